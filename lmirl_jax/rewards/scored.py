"""An answer with its rewards under a checkpoint: one line of the file that `lmirl score` writes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.rewards.scored_values import wrong_value
from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class ScoredAnswer:
    """An answer to a prompt with the reward of each token and of the whole answer, in nats.

    Token t of `tokens` (EOS included) has the text `pieces[t]`, which is `targets[slice(*offsets[t])]`; EOS has an empty text.

    Args:
        example: the number of the prompt in its source, from 0; all answers to a prompt share it.
        candidate: the number of the answer among those to its prompt.
        inputs: the prompt.
        targets: the answer that was scored.
        reference: the reference answer of the data set, where `targets` is another answer.
        id: the id of the example in its source, if it has one.
        truncated: whether the answer lacks its EOS, so that the last token has no reward.
        tokens: the tokens of the answer.
        pieces: the text of each token.
        offsets: where each token begins and ends in `targets`, in characters.
        q: the soft Q-value of each token, q_t.
        v: the soft value of the state before each token, v_t.
        reward: r_t = q_t - gamma * v_{t+1}, with correction and shaping if the scorer has them; None where the token has none.
        log_prob: log pi_t = q_t - v_t.
        entropy: the entropy of the policy before the token.
        reference_log_prob: the log-probability of the token under the reference policy, if the scorer has one.
        total: the return, sum_t gamma^t r_t over tokens that have a reward; `return` in files.
        normalised_return: the return divided by the number of these tokens.
        centred_return: the return minus the mean return of the answers to the prompt; None where the prompt has one answer.
        v_0: the soft value of the prompt.
        log_likelihood: sum_t log pi_t.
        metrics: the metrics of the task for this answer, against the reference, or against all of several.
        messages: the prompt as a conversation, where it is more than one message of a user; `inputs` is then its text. A file
            has this key only there.
        references: all references, where there are several; files have the first alone.
    """

    example: int
    candidate: int
    inputs: str
    targets: str
    reference: str | None
    id: str | None
    truncated: bool
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    q: tuple[float, ...]
    v: tuple[float, ...]
    reward: tuple[float | None, ...]
    log_prob: tuple[float, ...]
    entropy: tuple[float, ...]
    reference_log_prob: tuple[float, ...] | None
    total: float
    normalised_return: float
    centred_return: float | None
    v_0: float
    log_likelihood: float
    metrics: Mapping[str, float]
    messages: Sequence[Mapping[str, Any]] | None = None
    references: tuple[str, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """The answer as a JSON object, in which `total` is called `return`."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields = {"return" if name == "total" else name: value for name, value in row.items()}
        del fields["references"]
        if self.messages is None:
            del fields["messages"]
        else:
            fields["messages"] = [dict(message) for message in self.messages]
        return fields | {"offsets": [list(pair) for pair in self.offsets], "metrics": dict(self.metrics)}

    @classmethod
    def from_row(cls, row: Mapping[str, Any], where: str) -> "ScoredAnswer":
        """Makes an answer from a row of `to_row`.

        Raises:
            UserError: `lmirl score` did not write this row; the error begins with `where`.
        """
        names = {"return" if field.name == "total" else field.name for field in dataclasses.fields(cls)}
        names.remove("references")
        missing = sorted(names - set(row) - {"messages"})
        if missing:
            raise UserError(
                f"{where}: no {', '.join(missing)}, so this is no line of lmirl score: name a file that it wrote"
            )
        wrong = wrong_value(row)
        if wrong is not None:
            raise UserError(f"{where}: {wrong}, so this is no line of lmirl score: name a file that it wrote")
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
        }
        values["offsets"] = tuple((begin, end) for begin, end in row["offsets"])
        values.setdefault("messages", None)
        values["total"] = values.pop("return")
        return cls(**{name: values[name] for name in names - {"return"} | {"total"}})
