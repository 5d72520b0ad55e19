"""The arrays and protocols that all other modules use."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


class UserError(Exception):
    """An error that a user can cause and correct: one line that says what is wrong, where, and what to do instead.

    The command line prints only the message and exits with 1. Any other exception is a bug, and keeps its traceback.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Answers that a model reads from left to right, and their prompts; numpy or JAX arrays, filled up with 0.

    One layout serves every model. Objectives, rewards, online learners and reports see only the arrays that mark the
    tokens of answers (`weights`, `discounts`, `td_weights`, `rewards`), and never ask what else a row holds:

    - An encoder-decoder reads the prompt with its encoder; a decoder-only model lays prompt and answer in one row itself.
    - A chat row holds several answers, and between them what the user said, which has weight 0 and TD weight 0. Each
      answer is a separate episode, whose last token has discount 0; or all are one, and discounts go on between them.
    - A packed row holds several examples. `segment_ids` tell them apart, `positions` start anew in each, and the discount
      of 0 at the end of each answer keeps its rewards apart from the next one's.
    - A chosen and a rejected answer to one prompt are two rows, one after the other; `training.microbatches.group_rows`
      keeps them in one part of the batch.

    A model derives from the layout what it needs: the token that it is fed at each place (the one before; at position 0 its
    start token, or the prompt's last one), and its attention masks (equal segment ids, which are 0 on padding). No token
    id marks padding, so that every id can be a word. `lmirl_jax.rows` makes all of these arrays.

    Args:
        tokens: y_1 .. y_T of each answer, the last of which ends it unless it is truncated, [batch, length].
        segment_ids: 1, 2, .. for the examples of a row, 0 on padding, [batch, length].
        positions: 0, 1, .. within each example, 0 on padding, [batch, length].
        weights: the weight in the loss of each token of an answer, 1 unless the data give another one, [batch, length].
        discounts: gamma inside an answer, 0 at its last token, [batch, length].
        td_weights: 1 where a token has a reward: at each token of an answer but the last one of a truncated answer,
            [batch, length].
        rewards: the given reward of each token, in nats; None where the data give none, [batch, length].
        labels: 1 at the tokens of right answers, whose likelihood is learnt, and 0 at those of wrong ones, of which only
            rewards are; None where the data have none, so that all answers are demonstrations, [batch, length].
        prompt_tokens: the prompts, [batch, inputs].
        prompt_segment_ids: the segment ids of the prompts, which equal those of their answers; 0 on padding, [batch, inputs].
    """

    tokens: Any
    segment_ids: Any
    positions: Any
    weights: Any
    discounts: Any
    td_weights: Any
    rewards: Any = None
    labels: Any = None
    prompt_tokens: Any = None
    prompt_segment_ids: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Prompts to answer, the input of sampling and beam search.

    Args:
        tokens: the tokens of each prompt from position 0 on, padded with 0, [batch, inputs].
        lengths: the number of tokens of each prompt, [batch].
    """

    tokens: Any
    lengths: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnswerBatch:
    """Answers without their prompts, from a policy or from the data; the leading axes are rows, or prompts and samples.

    Args:
        tokens: the tokens of each answer, including its EOS, padded with 0, [*rows, length].
        lengths: the number of tokens of each answer, [*rows].
        terminal: whether an answer ends with an end-of-sequence token; False where it is truncated, [*rows].
    """

    tokens: Any
    lengths: Any
    terminal: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftQ:
    """The numbers that objectives read instead of logits; each has the shape of the tokens, in nats and float32, or is None.

    `q` is the logit of the token taken (its soft Q-value), `v` the logsumexp over the vocabulary (the soft value),
    `entropy` that of the policy, `tempered` is `temperature * logsumexp(logits / temperature)`, `sum_logits` the sum over
    the vocabulary, `max_logit` the maximum (no gradient).
    """

    q: Any
    v: Any
    entropy: Any = None
    tempered: Any = None
    sum_logits: Any = None
    max_logit: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unembedding:
    """Converts hidden states to logits: `soft_cap * tanh(scale * hidden @ kernel / soft_cap)`; without a cap if it is None."""

    kernel: Any  # [embed, vocab]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})
    soft_cap: float | None = dataclasses.field(default=None, metadata={"static": True})


@runtime_checkable
class Trunk(Protocol):
    """A network that ends with hidden states, without an output layer."""

    def hidden(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        token_offsets: Float[Array, "batch length embed"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """The hidden state from which each token of the rows is predicted, given those before it.

        Args:
            batch: the rows.
            dropout_keys: one key for each row; None for no dropout.
            token_offsets: added to the embeddings of the rows' tokens where these are read, so that one can
                differentiate by them.
        """
        ...


@runtime_checkable
class Model(Trunk, Protocol):
    """A language model: it gives hidden states in training and uses a cache in decoding. It never sees an objective."""

    def unembedding(self) -> Unembedding: ...

    def start_decoding(
        self, prompts: PromptBatch, max_length: int, num_samples: int = 1
    ) -> tuple[Any, Int[Array, " rows"]]:
        """Reads each prompt once; returns a cache and the token to feed first.

        The cache has room for `max_length` new tokens in each of `batch * num_samples` rows, a prompt's together.
        """
        ...

    def decode(self, cache: Any, tokens: Int[Array, " rows"]) -> tuple[Any, Float[Array, "rows embed"]]:
        """Feeds one token a row; returns the cache and the hidden state from which the next one is drawn."""
        ...

    def reorder(self, cache: Any, parents: Int[Array, "prompts samples"]) -> Any:
        """Lets row j of each prompt go on from what the prompt's row `parents[prompt, j]` has read, as beam search needs."""
        ...


@runtime_checkable
class NetworkConfig(Protocol):
    """A recipe of a network: sizes and types, no arrays."""

    def build(self, key: Key[Array, ""]) -> Any: ...


@runtime_checkable
class ModelConfig(NetworkConfig, Protocol):
    """A recipe of a language model."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def emb_dim(self) -> int:
        """The width of the hidden states."""
        ...

    def build(self, key: Key[Array, ""]) -> Model: ...

    def build_trunk(self, key: Key[Array, ""]) -> Trunk:
        """The same network without its unembedding."""
        ...


@runtime_checkable
class Objective(Protocol):
    """A pure per-token loss on `SoftQ`: unreduced, in nats.

    Its other arguments name the arrays that it needs: `discounts`, `td_weight` (lambda of this step times the TD mask) and
    `rewards` (given ones, where the data have them) and `mle_weight` (0 on wrong answers, where the data have labels), each
    [batch, length], and `vocab_size`, the number of logits.
    """

    def __call__(self, soft_q: SoftQ, **arrays: Any) -> Float[Array, "batch length"]: ...


@runtime_checkable
class Task(Protocol):
    """The task of the demonstrations, such as a `data.Task`: it has a name and decodes tokens of its vocabularies."""

    @property
    def name(self) -> str: ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer; the first is the one that demonstrations end with."""
        ...

    def decode(self, tokens: Any) -> str: ...


@runtime_checkable
class BatchIterator(Protocol):
    """Yields batches of this process's rows; its position is JSON, the same on every process, and part of a checkpoint."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class TrainData(Protocol):
    """A training set as the trainer sees it.

    Args:
        batch_size: the number of rows of a global batch.
        vocab_size: the size of the vocabulary; every token is smaller.
        rows_together: the number of consecutive rows that belong together, such as a chosen and a rejected answer; 1 where
            each row stands by itself.
        has_rewards: whether its batches have given rewards.
        has_labels: whether its batches say which answers are right.
        has_preferences: whether each two rows are a chosen and a rejected answer to one prompt.
        packed: whether several examples may share a row.
        lengths: the number of tokens of a row, for `inputs` and `targets`.
    """

    batch_size: int
    vocab_size: int
    rows_together: int
    has_rewards: bool
    has_labels: bool
    has_preferences: bool
    packed: bool
    lengths: Mapping[str, int]

    def iterator(self, rows: slice | Int[np.ndarray, " rows"]) -> BatchIterator:
        """Batches of the given rows of each global batch of `batch_size`: the process that calls it owns these."""
        ...
