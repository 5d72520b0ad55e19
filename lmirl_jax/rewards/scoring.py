"""Scores answers with a checkpoint, in the order in which they come; batches are packed, and run on any mesh."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import objectives, sharding, soft_q
from lmirl_jax.arguments import Count, Lengths, NonNegative, Share, check_arguments
from lmirl_jax.data.packing import Packer, Place
from lmirl_jax.models import reward_heads, reward_values
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.types import Batch, UserError

# The decimals of all numbers; float32 has no more digits to give.
DECIMALS = 6


@runtime_checkable
class RewardModel(Protocol):
    """A checkpoint that scores, such as `runs.load` returns: its network, parameters and mesh, and settings of its training."""

    @property
    def graph(self) -> nnx.GraphDef: ...

    @property
    def params(self) -> Any: ...

    @property
    def mesh(self) -> Mesh: ...

    @property
    def task(self) -> Any: ...

    @property
    def lengths(self) -> Mapping[str, int]: ...

    @property
    def discount(self) -> float: ...


@runtime_checkable
class Pair(Protocol):
    """An answer to a prompt, such as a `data.Pair`."""

    input_tokens: Any
    target_tokens: Any
    example: int
    candidate: int
    candidates: int


@check_arguments
class Scorer:
    """Computes the rewards of answers under a checkpoint. All batches have one shape, so that the program is compiled once.

        r_t = q_t - gamma * v_{t+1}  [- beta * log pi_ref(a_t|s_t)]  [+ gamma * v_{t+1} - v_t]

    A reward model (gin/runs/reward_model.gin) rewards a token by how much it raises the mean of the heads: r_t = R_t - R_{t-1}.
    The return is then R of the answer less R of its prompt alone.

    The numbers of an answer depend on the answer and its prompt only: not on the other answers in its batch or row, and not on
    the mesh.

    Args:
        model: the checkpoint; it may be trained with any objective.
        batch_size: the number of rows in a batch, which the mesh must divide.
        lengths: the numbers of tokens in a row, for `inputs` and `targets`; None for those of the model's training.
        discount: gamma; None for that of the model's training.
        reference: another checkpoint with the same vocabulary, whose log-probabilities are subtracted; None for no reference.
        beta: the weight of the reference's log-probabilities.
        shaping: 'value' adds the differences of v as a potential, so that log pi_t is left; None adds nothing.
        packed: whether short answers share a row.

    Raises:
        UserError: a setting out of range, or one that does not fit the mesh.
    """

    def __init__(
        self,
        model: RewardModel,
        *,
        batch_size: Count = 32,
        lengths: Lengths | None = None,
        discount: Share | None = None,
        reference: RewardModel | None = None,
        beta: NonNegative = 1.0,
        shaping: objectives.Shaping | None = None,
        packed: bool = True,
    ):
        self.model, self.reference, self.batch_size, self.packed = model, reference, batch_size, packed
        self.of_heads = bool(reward_heads(getattr(model, "model", None)))
        if self.of_heads:
            if shaping is not None or reference is not None:
                raise UserError(
                    "SHAPING and REFERENCE_PATH are of rewards that a policy implies, and the checkpoint is a reward model: "
                    "leave them out"
                )
            # Differences add up to what they are of without a discount; the state after an answer has no place in a packed row.
            self.packed, discount = False, 1.0
        self.lengths = dict(model.lengths if lengths is None else lengths)
        self.discount = float(model.discount if discount is None else discount)
        self.beta = float(beta)
        self.shaping = shaping
        sharding.check_batch_size(model.mesh, batch_size, name="SCORE_BATCH_SIZE")

    def settings(self) -> dict[str, Any]:
        """The settings on which the rewards depend, beside the checkpoints and the pairs, by the names of the macros."""
        return {
            "TASK_FEATURE_LENGTHS": self.lengths,
            "DISCOUNT": self.discount,
            "BETA": self.beta if self.reference is not None else None,
            "SHAPING": self.shaping,
        }

    def __call__(self, pairs: Iterable[Pair], skip: int = 0) -> Iterator[ScoredAnswer]:
        """Scores each pair after the first `skip`, in order. All candidates of an example must come one after the other."""
        waiting = None
        group: list[ScoredAnswer] = []
        for packed_batch in self._batches(pairs, skip):
            # The devices compute this batch while the results of the batch before it are read.
            running = packed_batch, self._run(packed_batch.batch)
            if waiting is not None:
                yield from self._read_results(*waiting, group, skip)
            waiting = running
        if waiting is not None:
            yield from self._read_results(*waiting, group, skip)

    def _batches(self, pairs: Iterable[Pair], skip: int) -> Iterator["_PackedBatch"]:
        """Packs the pairs into batches, in order.

        The batches do not depend on `skip`, except that batches without any pair to score are left out.
        """
        packer, items = self._packer(), []
        for number, pair in enumerate(pairs):
            # The mean over a prompt's answers needs all of them.
            needed = number - pair.candidate + pair.candidates > skip
            place = packer.add(pair.input_tokens, pair.target_tokens)
            if place is None:
                if any(item.needed for item in items):
                    yield _PackedBatch(packer.batch(), items)
                packer, items = self._packer(), []
                place = packer.add(pair.input_tokens, pair.target_tokens)
            # An empty batch has room for any pair, because long pairs are truncated.
            assert place is not None
            items.append(_Item(number, pair, place, needed))
        if any(item.needed for item in items):
            yield _PackedBatch(packer.batch(), items)

    def _packer(self) -> Packer:
        return Packer(
            self.batch_size,
            lengths=self.lengths,
            discount=self.discount,
            eos_ids=self.model.task.eos_ids,
            packed=self.packed,
        )

    def _run(self, batch: Batch) -> dict[str, Any]:
        mesh, size = self.model.mesh, self.batch_size
        rows = sharding.local_rows(mesh, size)
        global_batch = sharding.to_global(mesh, jax.tree.map(lambda x: x[rows], batch), size)
        networks = [
            (model.graph, model.params) for model in (self.model, self.reference) if model is not None
        ]
        with sharding.use(mesh):
            return _token_values(
                networks,
                global_batch,
                beta=self.beta,
                shaping=self.shaping,
                mesh=mesh,
                of_heads=self.of_heads,
            )

    def _read_results(
        self, packed_batch: "_PackedBatch", values: dict[str, Any], group: list[ScoredAnswer], skip: int
    ) -> Iterator[ScoredAnswer]:
        """Reads the values of a batch from the devices.

        Yields the answers to each prompt after the last of them is read; until then they wait in `group`.
        """
        arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
        arrays["td_weights"] = packed_batch.batch.td_weights
        for item in packed_batch.items:
            if not item.needed:
                continue
            row, start, stop = item.place
            answer_values = {name: array[row, start:stop] for name, array in arrays.items()}
            group.append(_score(item.pair, answer_values, self.discount))
            if len(group) == item.pair.candidates:
                first = item.number - len(group) + 1
                yield from _centre_returns(group)[max(skip - first, 0) :]
                group.clear()


class _Item(NamedTuple):
    number: int
    pair: Any
    place: Place
    needed: bool


class _PackedBatch(NamedTuple):
    batch: Batch
    items: list[_Item]


@functools.partial(jax.jit, static_argnames=("beta", "shaping", "mesh", "of_heads"))
def _token_values(
    networks: list[tuple[nnx.GraphDef, Any]],
    batch: Batch,
    *,
    beta: float,
    shaping: objectives.Shaping | None,
    mesh: Mesh,
    of_heads: bool,
) -> dict[str, jax.Array]:
    """The soft Q-values and the reward of each token of a batch, on every process; also the reference's, if there is one."""
    out, *others = [soft_q.from_model(nnx.merge(*network), batch, with_entropy=True) for network in networks]
    reference = others[0] if others else None
    reward = objectives.extracted_rewards(
        out, batch.discounts, shaping=shaping, reference=reference, beta=beta
    )
    if of_heads:
        values = jnp.mean(reward_values(nnx.merge(*networks[0]), batch), axis=0)
        reward = values[:, 1:] - values[:, :-1]
    values = {"q": out.q, "v": out.v, "entropy": out.entropy, "reward": reward}
    if reference is not None:
        values |= {"reference_q": reference.q, "reference_v": reference.v}
    return jax.lax.with_sharding_constraint(values, sharding.replicated_sharding(mesh))


def _score(pair: Any, values: Mapping[str, np.ndarray], discount: float) -> ScoredAnswer:
    """The scored answer of a pair, from the values of its tokens."""
    has_reward = values["td_weights"] != 0
    # Every token has a reward, except the last one of a truncated answer.
    rewards = values["reward"][has_reward]
    total = float(np.sum(rewards * discount ** np.arange(len(rewards))))
    log_prob = values["q"] - values["v"]
    count = len(log_prob)
    offsets = pair.offsets[:count]
    reference = values["reference_q"] - values["reference_v"] if "reference_q" in values else None
    return ScoredAnswer(
        example=pair.example,
        candidate=pair.candidate,
        inputs=pair.inputs,
        targets=pair.targets,
        reference=pair.reference,
        id=pair.id,
        truncated=not has_reward[-1],
        tokens=tuple(int(token) for token in pair.target_tokens[:count]),
        pieces=tuple(pair.targets[begin:end] for begin, end in offsets),
        offsets=offsets,
        q=_round(values["q"]),
        v=_round(values["v"]),
        reward=tuple(r if has else None for r, has in zip(_round(values["reward"]), has_reward, strict=True)),
        log_prob=_round(log_prob),
        entropy=_round(values["entropy"]),
        reference_log_prob=None if reference is None else _round(reference),
        total=round(total, DECIMALS),
        normalised_return=round(total / max(len(rewards), 1), DECIMALS),
        centred_return=None,
        v_0=round(float(values["v"][0]), DECIMALS),
        log_likelihood=round(float(np.sum(log_prob)), DECIMALS),
        metrics={},
        messages=pair.messages,
        references=pair.references,
    )


def _centre_returns(answers: list[ScoredAnswer]) -> list[ScoredAnswer]:
    """Adds `centred_return` to the answers to a prompt, where it has several; it can be compared between prompts."""
    if len(answers) == 1:
        return list(answers)
    mean = sum(answer.total for answer in answers) / len(answers)
    return [
        dataclasses.replace(answer, centred_return=round(answer.total - mean, DECIMALS)) for answer in answers
    ]


def _round(values: np.ndarray) -> tuple[float, ...]:
    return tuple(np.round(values, DECIMALS).tolist())
