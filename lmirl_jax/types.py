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
    """Encoder-decoder examples, padded with 0 to `[batch, inputs]` and `[batch, targets]`; numpy or JAX arrays.

    `decoder_input_tokens` is pad, y_1 .. y_{T-1} and `decoder_target_tokens` y_1 .. y_T, of which the last is EOS unless
    the target was truncated. The three float arrays have the shape of the targets and are 0 on padding:

    - `weights`: on every real target token its example's weight in the loss, 1 unless the data say otherwise;
    - `discounts`: gamma inside a sequence, 0 at its last token (which also severs packed neighbours);
    - `td_weights`: 1 where the token has a reward: every real target token but the last of a truncated target.

    Segment ids (1, 2, .. within a row, 0 on padding) are given for packed rows only.
    """

    encoder_input_tokens: Any
    decoder_input_tokens: Any
    decoder_target_tokens: Any
    weights: Any
    discounts: Any
    td_weights: Any
    encoder_segment_ids: Any = None
    decoder_segment_ids: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SoftQ:
    """What objectives see of the logits, each of the shape of the targets, in nats and float32; None where not asked for.

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
        decoder_offset: Float[Array, "batch length embed"] | None = None,
    ) -> Float[Array, "batch length embed"]:
        """The hidden state of each target position; without keys there is no dropout.

        `decoder_offset` is added to the embeddings of the tokens that the decoder is fed, so that one can differentiate
        by them.
        """
        ...


@runtime_checkable
class Model(Trunk, Protocol):
    """A network: hidden states in training, a cache in decoding. It never sees an objective."""

    def unembedding(self) -> Unembedding: ...

    def start_decoding(
        self, batch: Batch, max_length: int, num_samples: int = 1
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

    It names among its arguments what else it needs: `discounts` and `td_weight`, lambda of this step times the TD mask,
    both [batch, length], and `vocab_size`, the number of logits.
    """

    def __call__(self, soft_q: SoftQ, **arrays: Any) -> Float[Array, "batch length"]: ...


@runtime_checkable
class Task(Protocol):
    """What demonstrations are of, as `data.Task` is: a name, and how tokens of its vocabularies become text."""

    @property
    def name(self) -> str: ...

    @property
    def eos_id(self) -> int: ...

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
    """A training set as the trainer sees it: every token is below `vocab_size`."""

    batch_size: int
    vocab_size: int

    def iterator(self, rows: slice) -> BatchIterator:
        """Batches of the given rows of each global batch of `batch_size`: the process that calls it owns these."""
        ...
