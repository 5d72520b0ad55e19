"""Answers of a policy to every prompt of a data set, the same on any mesh and for any batch size."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import decoding, sharding
from lmirl_jax.types import Batch, UserError


@runtime_checkable
class Prompts(Protocol):
    """A data set with prompts, as `data.EvalDataset` has them."""

    lengths: Mapping[str, int]

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Sequence[Mapping[str, Any]]]]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


@dataclasses.dataclass(frozen=True)
class Answers:
    """The samples of one prompt: texts, the tokens of each (EOS included), and log pi of each, in nats, at temperature 1."""

    example: Mapping[str, Any]
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    log_probs: tuple[tuple[float, ...], ...]


class Generator:
    """Samples answers, a batch at a time; compiled once for all temperatures and parameters.

    Args:
        batch_size: prompts at a time; what the mesh divides.
        num_samples: answers to each prompt.
        max_length: tokens of an answer at most; None for the data set's target length.
        seed: of the sampling. A prompt's samples depend on it, its place in the data set and the sample's number alone.
    """

    def __init__(
        self, batch_size: int = 32, num_samples: int = 1, max_length: int | None = None, seed: int = 0
    ):
        if num_samples < 1:
            raise UserError(f"NUM_SAMPLES={num_samples} must be 1 or more")
        self.batch_size, self.num_samples, self.max_length, self.seed = (
            batch_size,
            num_samples,
            max_length,
            seed,
        )

    def check(self, mesh: Mesh) -> None:
        sharding.check_batch_size(mesh, self.batch_size, name="EVAL_BATCH_SIZE")

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, prompts: Prompts, temperature: float
    ) -> Iterator[Answers]:
        """Answers each prompt in order; a temperature of 0 takes the likeliest token each time."""
        if temperature < 0:
            raise UserError(f"sampling temperature {temperature} must be 0 (the likeliest token) or positive")
        self.check(mesh)
        length = self.max_length or prompts.lengths["targets"]
        rows = sharding.local_rows(mesh, self.batch_size)
        key = jax.random.key(self.seed)
        start = 0
        for batch, examples in prompts.batches(self.batch_size):
            placed = sharding.to_global(mesh, jax.tree.map(lambda x: x[rows], batch), self.batch_size)
            first = jnp.asarray(start)
            with sharding.use(mesh):
                out = _sample(graph, mesh, self.num_samples, length, params, placed, key, first, temperature)
            tokens, log_probs = np.asarray(out.tokens), np.asarray(out.log_probs)
            for row, example in enumerate(examples):
                yield _answers(prompts, example, tokens[row], log_probs[row])
            start += self.batch_size


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _sample(graph, mesh, num_samples, max_length, params, batch, key, first, temperature) -> decoding.Samples:
    rows = batch.encoder_input_tokens.shape[0]
    keys = decoding.sample_keys(key, first + jnp.arange(rows), num_samples)
    out = decoding.sample(nnx.merge(graph, params), batch, keys, temperature, max_length=max_length)
    # Every process reads all answers: they are small.
    return jax.lax.with_sharding_constraint(out, sharding.replicated(mesh))


def _answers(
    prompts: Prompts, example: Mapping[str, Any], tokens: np.ndarray, log_probs: np.ndarray
) -> Answers:
    real = [row[: _length(row)] for row in tokens]
    return Answers(
        example,
        tuple(prompts.decode(row.tolist()) for row in real),
        tuple(tuple(row.tolist()) for row in real),
        tuple(tuple(p[: len(row)].tolist()) for p, row in zip(log_probs, real, strict=True)),
    )


def _length(tokens: np.ndarray) -> int:
    """Tokens up to and with EOS; all of them where the answer was cut off."""
    ends = np.flatnonzero(tokens == decoding.EOS)
    return int(ends[0]) + 1 if len(ends) else len(tokens)
