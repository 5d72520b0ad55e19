"""Answers of a policy to every prompt of a data set, the same on any mesh and for any batch size."""

import copy
import dataclasses
import functools
import math
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
    """The samples of one prompt: texts, the tokens of each (EOS included), and of each token log pi and the entropy.

    Both are in nats and of the policy itself, at temperature 1. `log_prob_gap` is the largest difference of a log pi to
    that of teacher forcing; None where it was not asked for.
    """

    example: Mapping[str, Any]
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    log_probs: tuple[tuple[float, ...], ...]
    entropies: tuple[tuple[float, ...], ...] = ()
    log_prob_gap: float | None = None


class Generator:
    """Samples answers, a batch at a time; compiled once for all temperatures, filters and parameters.

    Args:
        batch_size: prompts at a time; what the mesh divides.
        num_samples: answers to each prompt.
        max_length: tokens of an answer at most; None for the data set's target length.
        seed: of the sampling. A prompt's samples depend on it, its place in the data set and the sample's number alone.
        top_k: draw from so many of the likeliest tokens; None or 0 for all.
        top_p: draw from the likeliest tokens that hold this probability; 1 for all.
        min_p: draw from tokens at least so likely, as a share of the likeliest one's probability; 0 for all.
        gauge: whether to compare each answer's log-probabilities with those of teacher forcing.
    """

    def __init__(
        self,
        batch_size: int = 32,
        num_samples: int = 1,
        max_length: int | None = None,
        seed: int = 0,
        *,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        gauge: bool = False,
    ):
        if num_samples < 1:
            raise UserError(f"NUM_SAMPLES={num_samples} must be 1 or more")
        self.batch_size, self.num_samples, self.max_length, self.seed = (
            batch_size,
            num_samples,
            max_length,
            seed,
        )
        self.filters = _checked_filters(top_k, top_p, min_p)
        self.gauge = gauge

    def check(self, mesh: Mesh) -> None:
        sharding.check_batch_size(mesh, self.batch_size, name="EVAL_BATCH_SIZE")

    def with_top_p(self, top_p: float) -> "Generator":
        """The same generator with another top-p; both share one compilation."""
        other = copy.copy(self)
        other.filters = _checked_filters(self.filters.top_k, top_p, self.filters.min_p)
        return other

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, prompts: Prompts, temperature: float
    ) -> Iterator[Answers]:
        """Answers each prompt in order; a temperature of 0 takes the likeliest token each time."""
        if not _is_number(temperature) or not 0 <= temperature < math.inf:
            raise UserError(
                f"sampling temperature {temperature!r} must be 0 (the likeliest token) or a positive number"
            )
        self.check(mesh)
        search = _Search(self.num_samples, self.max_length or prompts.lengths["targets"], self.gauge)
        rows = sharding.local_rows(mesh, self.batch_size)
        key = jax.random.key(self.seed)
        start = 0
        for batch, examples in prompts.batches(self.batch_size):
            placed = sharding.to_global(mesh, jax.tree.map(lambda x: x[rows], batch), self.batch_size)
            first = jnp.asarray(start)
            with sharding.use(mesh):
                out, gaps = _answer(
                    graph, mesh, search, params, placed, key, first, float(temperature), self.filters
                )
            arrays = [np.asarray(x) for x in (out.tokens, out.log_probs, out.entropies)]
            gaps = None if gaps is None else np.asarray(gaps)
            for row, example in enumerate(examples):
                gap = None if gaps is None else float(gaps[row])
                yield _answers(prompts, example, *(x[row] for x in arrays), gap)
            start += self.batch_size


@dataclasses.dataclass(frozen=True)
class _Search:
    """What each has a compilation of its own."""

    num_samples: int
    max_length: int
    gauge: bool


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _answer(graph, mesh, search: _Search, params, batch, key, first, temperature, filters):
    """The samples, and where asked for each prompt's gap to teacher forcing."""
    model = nnx.merge(graph, params)
    rows = batch.encoder_input_tokens.shape[0]
    keys = decoding.sample_keys(key, first + jnp.arange(rows), search.num_samples)
    out = decoding.sample(model, batch, keys, temperature, filters, max_length=search.max_length)
    gaps = decoding.log_prob_gaps(model, batch, out) if search.gauge else None
    # Every process reads all answers: they are small.
    return jax.lax.with_sharding_constraint((out, gaps), sharding.replicated(mesh))


def _checked_filters(top_k: int | None, top_p: float, min_p: float) -> decoding.Filters:
    if top_k is not None and (not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 0):
        raise UserError(f"TOP_K={top_k!r} must be a whole number, 0 or None for all tokens")
    if not _is_number(top_p) or not 0 < top_p <= 1:
        raise UserError(f"TOP_P={top_p!r} must be above 0 and at most 1 (all tokens)")
    if not _is_number(min_p) or not 0 <= min_p <= 1:
        raise UserError(f"MIN_P={min_p!r} must be from 0 (all tokens) to 1 (the likeliest)")
    return decoding.Filters(top_k or 0, float(top_p), float(min_p))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _answers(
    prompts: Prompts,
    example: Mapping[str, Any],
    tokens: np.ndarray,
    log_probs: np.ndarray,
    entropies: np.ndarray,
    gap: float | None,
) -> Answers:
    ends = decoding.real_tokens(tokens).sum(axis=-1)

    def real(values: np.ndarray) -> tuple[tuple[Any, ...], ...]:
        return tuple(tuple(row[:end].tolist()) for row, end in zip(values, ends, strict=True))

    texts = tuple(prompts.decode(list(row)) for row in real(tokens))
    return Answers(example, texts, real(tokens), real(log_probs), real(entropies), gap)
