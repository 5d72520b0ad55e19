"""The ground floor: the arrays and protocols that every other room speaks of."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Int, Key

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]


class UserError(Exception):
    """An error that a user can cause and mend: one line that says what, where and what to do instead.

    The command line prints its message alone and exits with 1; any other exception is a bug of ours and keeps its traceback.
    """


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows of tokens that a model reads from left to right; numpy or JAX arrays, filled up with 0.

    One layout serves every model. Objectives, rewards, online learners and reports see only the arrays that mark the
    tokens of answers (`weights`, `discounts`, `td_weights`, `rewards`), and never ask what else a row holds:

    - A row for an encoder-decoder holds an answer, and its prompt lies beside it in `prompt_tokens`.
    - A row for a decoder-only model holds a prompt and its answer; `prompt_tokens` is None. The tokens of the prompt have
      weight 0, discount 0 and TD weight 0.
    - A chat row holds several answers, each after what was said before it. Each answer is an episode of its own: the
      discount at its last token is 0.
    - A packed row holds several examples. `segment_ids` tell them apart, `positions` start anew in each, and the discount
      of 0 at the end of each answer keeps its rewards apart from the next one's.
    - A chosen and a rejected answer to one prompt are two rows, one after the other; `training.microbatches.group_rows`
      keeps them in one part of the batch.

    A model derives from the layout what it needs: the token that it is fed at each place (the one before, or its start
    token where the position is 0), and its attention masks (equal segment ids, which are 0 on padding). No token id marks
    padding, so that every id can be a word. `lmirl_jax.rows` makes all of these arrays.

    Args:
        tokens: y_1 .. y_T of each answer, the last of which ends it unless it is truncated, [batch, length].
        segment_ids: 1, 2, .. for the examples of a row, 0 on padding, [batch, length].
        positions: 0, 1, .. within each example, 0 on padding, [batch, length].
        weights: the weight in the loss of each token of an answer, 1 unless the data give another one, [batch, length].
        discounts: gamma inside an answer, 0 at its last token, [batch, length].
        td_weights: 1 where a token has a reward: at each token of an answer but the last one of a truncated answer,
            [batch, length].
        rewards: the given reward of each token, in nats; None where the data give none, [batch, length].
        prompt_tokens: what the encoder reads, [batch, inputs]; None in the rows of a decoder-only model.
        prompt_segment_ids: 1, 2, .. as the examples in `segment_ids`, 0 on padding, [batch, inputs].
    """

    tokens: Any
    segment_ids: Any
    positions: Any
    weights: Any
    discounts: Any
    td_weights: Any
    rewards: Any = None
    prompt_tokens: Any = None
    prompt_segment_ids: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptBatch:
    """Prompts to answer: all that sampling and beam search read.

    Args:
        tokens: of each prompt from its first place on, filled up with 0, [batch, inputs].
        lengths: how many tokens each prompt has, [batch].
    """

    tokens: Any
    lengths: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnswerBatch:
    """AnswerBatch by themselves, from a policy or from the data; the leading axes are rows, or prompts and samples.

    Args:
        tokens: up to and with the one that ends an answer, filled up with 0, [*rows, length].
        lengths: how many tokens each answer has, [*rows].
        terminal: whether an answer ends with an end-of-sequence token; False where it is truncated, [*rows].
    """

    tokens: Any
    lengths: Any
    terminal: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftQ:
    """What objectives see of the logits, each of the shape of the tokens, in nats and float32; None where not asked for.

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
    """How hidden states become logits: `soft_cap * tanh(scale * hidden @ kernel / soft_cap)`; no cap where it is None."""

    kernel: Any  # [embed, vocab]
    scale: float = dataclasses.field(default=1.0, metadata={"static": True})
    soft_cap: float | None = dataclasses.field(default=None, metadata={"static": True})


@runtime_checkable
class Trunk(Protocol):
    """A network without its output: hidden states alone."""

    def hidden(
        self,
        batch: Batch,
        dropout_keys: Key[Array, " batch"] | None = None,
        token_offsets: Float[Array, "batch length embed"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """The hidden state from which each token of the rows is predicted, given those before it.

        Args:
            batch: the rows.
            dropout_keys: one a row; None for no dropout.
            token_offsets: added to the embeddings of the rows' tokens where these are read, so that one can
                differentiate by them.
        """
        ...


@runtime_checkable
class Model(Trunk, Protocol):
    """A network: hidden states in training, a cache in decoding. It never sees an objective."""

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

    It names among its arguments what else it needs: `discounts`, `td_weight` (lambda of this step times the TD mask) and
    `rewards` (given ones, where the data have them), each [batch, length], and `vocab_size`, the number of logits.
    """

    def __call__(self, soft_q: SoftQ, **arrays: Any) -> Float[Array, "batch length"]: ...


@runtime_checkable
class Task(Protocol):
    """What demonstrations are of, as `data.Task` is: a name, and how tokens of its vocabularies become text."""

    @property
    def name(self) -> str: ...

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer; the first is the one that demonstrations end with."""
        ...

    def decode(self, tokens: Any) -> str: ...


@runtime_checkable
class BatchIterator(Protocol):
    """Batches of this process's rows, and a position that a checkpoint can hold (JSON; the same on every process)."""

    def __iter__(self) -> Iterator[Batch]: ...

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class TrainData(Protocol):
    """A training set as the trainer sees it.

    Args:
        batch_size: rows of a global batch.
        vocab_size: every token is below it.
        rows_together: rows that follow one another and belong together, such as a chosen and a rejected answer; 1 where
            each row stands by itself.
    """

    batch_size: int
    vocab_size: int
    rows_together: int

    def iterator(self, rows: slice) -> BatchIterator:
        """Batches of the given rows of each global batch of `batch_size`: the process that calls it owns these."""
        ...
