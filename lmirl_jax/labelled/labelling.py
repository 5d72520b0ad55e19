"""Makes labelled data of answers: right and wrong ones, rewards, or preferences."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from lmirl_jax.argument_rules import Words
from lmirl_jax.arguments import Count, Seed, Share, check_arguments, takes
from lmirl_jax.labelled.answer_sets import AnswerSet
from lmirl_jax.labelled.checkers import CheckerName, make_checker
from lmirl_jax.labelled.pits import prefix_with_pit
from lmirl_jax.labelled.step_scorers import ScoresSteps, StepScore, check_made, score_steps
from lmirl_jax.types import UserError

Labeller = Annotated[
    Callable[..., Any], Words("a function (prompt, first, second) that gives 0, 1 or None", takes(3))
]
Returns = Annotated[
    Callable[..., Any], Words("a function (prompt, answers) that gives a number for each answer", takes(2))
]
Rows = list[dict[str, Any]]


@check_arguments
class Labels:
    """Labels the answers to prompts.

    Args:
        form: 'labels' says of each answer whether it is right, 'rewards' gives its score, 'preferences' makes pairs of answers to
            a prompt, and 'step_preferences' pairs of a right answer and the beginning of a wrong one, up to its pit.
        checker: gives an answer's score; see `make_checker`.
        returns: gives the scores of all answers to a prompt, a text or a conversation, in place of `checker`; None for none.
        threshold: the score from which on an answer is right.
        labeller: of preferences: `(prompt, first, second)` gives 0 or 1, the number of the better answer, or None where it
            abstains. Without one, the answer with the higher score is better, and of equal ones none is.
        step_scores: what scores each step of an answer, of which the lowest is its pit: a function (prompt, answer), or the name
            of the scores that the answers come with.
        pairs_per_prompt: the greatest number of preferences of a prompt, from pairs in random order.
        flip_rate: the share of labels, or preferences, that are turned into the opposite, at random: a labeller that errs.
        abstain_rate: the share of answers, or pairs, that stay without a label, at random.
        drop_duplicates: whether equal answers to a prompt count once.
        seed: the seed of all that is random. The labels of a prompt depend on its place in the file alone.
    """

    # The macros that determine the rows, whose values have no place in `settings`.
    macros = ("CHECKER", "LABELLER", "STEP_SCORES", "ROLLOUTS", "BEST_OF")

    def __init__(
        self,
        form: Literal["labels", "rewards", "preferences", "step_preferences"] = "labels",
        checker: CheckerName | None = "exact_match",
        returns: Returns | None = None,
        threshold: float = 0.5,
        labeller: Labeller | None = None,
        step_scores: ScoresSteps | StepScore | None = None,
        pairs_per_prompt: Count = 1,
        flip_rate: Share = 0.0,
        abstain_rate: Share = 0.0,
        drop_duplicates: bool = True,
        seed: Seed = 0,
    ):
        self.form, self.threshold, self.labeller = form, threshold, labeller
        self.pairs_per_prompt, self.drop_duplicates, self.seed = pairs_per_prompt, drop_duplicates, seed
        self.step_scores = step_scores
        self.flip_rate, self.abstain_rate = flip_rate, abstain_rate
        if labeller is not None and form != "preferences":
            raise UserError(
                f"LABELLER is of preferences, and FORM={form!r}: set FORM='preferences', or a CHECKER"
            )
        if form in ("rewards", "step_preferences") and flip_rate:
            raise UserError(
                f"FLIP_RATE={flip_rate}: FORM={form!r} has no opposite; set it to 0, or FORM to another form"
            )
        if step_scores is not None and form != "step_preferences":
            raise UserError(
                f"STEP_SCORES are of pits, and FORM={form!r}: set FORM='step_preferences', or leave them out"
            )
        check_made(step_scores, "STEP_SCORES")
        if checker is None and labeller is None and returns is None:
            raise UserError(
                "CHECKER=None: name what scores answers, such as 'number', a REWARD_CHECKPOINT_PATH, or a LABELLER of preferences"
            )
        self.returns = returns
        self.check = None if checker is None else make_checker(checker)

    def rows(self, answers: AnswerSet, number: int) -> Rows:
        """The rows of one prompt, for `DATA`.

        Args:
            answers: the prompt and its answers.
            number: its number in the file.
        """
        random = np.random.default_rng([self.seed, number])
        texts = list(dict.fromkeys(answers.answers)) if self.drop_duplicates else list(answers.answers)
        if self.form == "preferences":
            return self._preferences(answers, texts, number, random)
        if self.form == "step_preferences":
            return self._step_preferences(answers, texts, number, random)
        rows = []
        for place, (text, score) in enumerate(zip(texts, self._scores(answers, texts), strict=True)):
            abstains, flips = random.random() < self.abstain_rate, random.random() < self.flip_rate
            if abstains:
                continue
            label: dict[str, Any] = {"reward": score}
            if self.form == "labels":
                label = {"label": (score >= self.threshold) != flips}
            rows.append(_row(answers, text) | label | {"id": f"{number}-{place}"})
        return rows

    def settings(self) -> dict[str, Any]:
        """What determines the rows, as JSON."""
        names = (
            "form",
            "threshold",
            "pairs_per_prompt",
            "flip_rate",
            "abstain_rate",
            "drop_duplicates",
            "seed",
        )
        return {name: getattr(self, name) for name in names}

    def _preferences(
        self, answers: AnswerSet, texts: Sequence[str], number: int, random: np.random.Generator
    ) -> Rows:
        pairs = list(itertools.combinations(range(len(texts)), 2))
        random.shuffle(pairs)
        scores = self._scores(answers, texts) if self.labeller is None else []
        rows: Rows = []
        for pair in pairs:
            if len(rows) == self.pairs_per_prompt:
                break
            # Labellers may favour the first answer that they read.
            first, second = random.permutation(pair).tolist()
            abstains, flips = random.random() < self.abstain_rate, random.random() < self.flip_rate
            better = self._better(answers, texts, scores, (first, second))
            if better is None or abstains:
                continue
            chosen, rejected = (first, second) if (better == 0) != flips else (second, first)
            rows.append(
                _pair(answers, texts[chosen], texts[rejected]) | {"id": f"{number}-{chosen}-{rejected}"}
            )
        return rows

    def _step_preferences(
        self, answers: AnswerSet, texts: Sequence[str], number: int, random: np.random.Generator
    ) -> Rows:
        scores = self._scores(answers, texts)
        right = [place for place, score in enumerate(scores) if score >= self.threshold]
        wrong = [place for place, score in enumerate(scores) if score < self.threshold]
        random.shuffle(wrong)
        rows: Rows = []
        for rejected in wrong if right else ():
            if len(rows) == self.pairs_per_prompt:
                break
            chosen = int(random.choice(right))
            prefix = prefix_with_pit(texts[rejected], self._scores_of_steps(answers, texts[rejected]))
            # A right answer that begins so would be unlearnt.
            if random.random() < self.abstain_rate or texts[chosen].startswith(prefix):
                continue
            rows.append(_pair(answers, texts[chosen], prefix) | {"id": f"{number}-{chosen}-{rejected}"})
        return rows

    def _scores_of_steps(self, answers: AnswerSet, text: str) -> Sequence[float]:
        if callable(self.step_scores):
            return score_steps(
                self.step_scores, "STEP_SCORES", answers.inputs, text, answers.references, answers.messages
            )
        if answers.step_scores is None:
            raise UserError(
                "FORM='step_preferences' needs a score of each step: set STEP_SCORES to a function (prompt, answer), or to "
                "'reward', 'log_prob', 'log_ratio' or 'value' with ANSWERS a file that lmirl score wrote"
            )
        return answers.step_scores[list(answers.answers).index(text)]

    def _better(
        self, answers: AnswerSet, texts: Sequence[str], scores: Sequence[float], pair: tuple[int, int]
    ) -> int | None:
        first, second = pair
        if self.labeller is None:
            return None if scores[first] == scores[second] else int(scores[second] > scores[first])
        choice = self.labeller(answers.inputs, texts[first], texts[second])
        if choice is not None and (isinstance(choice, bool) or choice not in (0, 1)):
            raise UserError(
                f"{answers.where}: LABELLER gave {choice!r}; return 0 where the first answer is better, 1 where the second one "
                "is, or None"
            )
        return choice

    def _scores(self, answers: AnswerSet, texts: Sequence[str]) -> Sequence[float]:
        try:
            if self.returns is not None:
                return self.returns(answers.messages or answers.inputs, texts)
            check = self.check
            assert check is not None
            return [check(answers.inputs, text, answers.references) for text in texts]
        except UserError as error:
            raise UserError(f"{answers.where}: {error}") from None


def _row(answers: AnswerSet, text: str) -> dict[str, Any]:
    """The row of a demonstration."""
    if answers.messages is None:
        return {"inputs": answers.inputs, "targets": text}
    return {"messages": [*answers.messages, {"role": "assistant", "content": text}]}


def _pair(answers: AnswerSet, chosen: str, rejected: str) -> dict[str, Any]:
    """The row of a preference."""
    other = rejected if answers.messages is None else [{"role": "assistant", "content": rejected}]
    return _row(answers, chosen) | {"rejected": other}


@dataclasses.dataclass
class Tally:
    """How often each label occurs.

    Args:
        prompts: the number of prompts.
        answers: the number of their answers.
        rows: the number of rows that were written.
        labels: how many of them are right and wrong, if they have labels.
        kinds: how many prompts have right answers alone, wrong ones alone, both, or no row.
        rewards: the sum of the rewards.
        weights: the weight of each row that has one.
    """

    prompts: int = 0
    answers: int = 0
    rows: int = 0
    labels: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    kinds: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    rewards: float = 0.0
    weights: list[float] = dataclasses.field(default_factory=list)

    def add(self, count: int, rows: Rows) -> None:
        """Counts a prompt with this number of answers, and its rows."""
        self.prompts, self.answers, self.rows = self.prompts + 1, self.answers + count, self.rows + len(rows)
        labels = collections.Counter("right" if row["label"] else "wrong" for row in rows if "label" in row)
        self.labels += labels
        self.weights += [row["weight"] for row in rows if "weight" in row]
        self.rewards += sum(row.get("reward", 0.0) for row in rows)
        if not rows:
            self.kinds["without a row"] += 1
        elif labels:
            self.kinds["both right and wrong" if len(labels) > 1 else f"only {next(iter(labels))}"] += 1

    def lines(self) -> list[tuple[str, str]]:
        """The table, as names and values."""
        table = [
            ("prompts", f"{self.prompts:,}"),
            ("answers", f"{self.answers:,}"),
            ("rows", f"{self.rows:,}"),
        ]
        for name in ("right", "wrong"):
            if self.labels:
                table.append((name, f"{self.labels[name]:,} ({self.labels[name] / self.rows:.1%} of rows)"))
        table += [(f"prompts {name}", f"{count:,}") for name, count in sorted(self.kinds.items())]
        if self.rows and not self.labels and self.rewards:
            table.append(("mean reward", f"{self.rewards / self.rows:.4g}"))
        if self.weights:
            table.append(("mean weight", f"{sum(self.weights) / len(self.weights):.4g}"))
        return table
