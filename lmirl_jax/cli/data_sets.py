"""Protocols of the data sets and generators that commands use; those of `lmirl_jax.data` and `evaluation` satisfy them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from lmirl_jax.decoding import Filters
from lmirl_jax.evaluation.evaluator import DatasetWithMetrics
from lmirl_jax.evaluation.generation import AnswersPrompts, Prompts
from lmirl_jax.evaluation.metric_intervals import Corpora
from lmirl_jax.rewards.scoring import Pair
from lmirl_jax.types import Task


@runtime_checkable
class TaskOrMixture(Task, Protocol):
    """A task, or a mixture of tasks; from SeqIO, or over files."""

    @property
    def tasks(self) -> Sequence[Any]: ...

    @property
    def output_vocabulary(self) -> Any: ...


@runtime_checkable
class PromptSet(Prompts, Protocol):
    """Prompts with a name and the task of the policy that answers them: a split of the task, or a file."""

    task: TaskOrMixture
    split: str

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...


@runtime_checkable
class TaskSplit(DatasetWithMetrics, Corpora, Protocol):
    """A split of a task, which has metrics."""

    task: TaskOrMixture
    split: str
    examples: Sequence[Mapping[str, Any]]


@runtime_checkable
class ReferencedSplit(TaskSplit, Protocol):
    """A split of a task that knows how many prompts there are, and the reference answer to each."""

    available: int

    def __len__(self) -> int: ...

    def reference(self, example: Mapping[str, Any]) -> str: ...


@runtime_checkable
class PairSet(Protocol):
    """Pairs of a prompt and an answer to score, from a file or a split of a task."""

    @property
    def name(self) -> str: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Pair]: ...

    def fingerprint(self) -> str: ...


@runtime_checkable
class SweptGenerator(AnswersPrompts, Protocol):
    """A generator that answers the prompts of a sweep, at several values of top-p."""

    batch_size: int
    max_length: int | None
    seed: int
    filters: Filters

    def with_top_p(self, top_p: float) -> "SweptGenerator": ...
