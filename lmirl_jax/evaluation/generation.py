"""Generates the answers of a policy to every prompt of a data set, the same on any mesh and for any batch size."""

import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import decoding, sharding
from lmirl_jax.argument_rules import fits
from lmirl_jax.arguments import Count, NonNegative, PositiveShare, Seed, Share, Whole, check_arguments
from lmirl_jax.rows import prompts_of
from lmirl_jax.types import AnswerBatch, Batch, UserError


@runtime_checkable
class Prompts(Protocol):
    """A data set with prompts, such as `data.EvalDataset`."""

    lengths: Mapping[str, int]

    @property
    def eos_ids(self) -> tuple[int, ...]: ...

    def batches(self, batch_size: int) -> Iterator[tuple[Batch, Sequence[Mapping[str, Any]]]]: ...

    def decode(self, tokens: Sequence[int]) -> str: ...


@runtime_checkable
class AnswersPrompts(Protocol):
    """Answers the prompts of a data set, such as `Generator`."""

    num_samples: int

    def check(self, mesh: Mesh) -> None: ...

    def __call__(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, prompts: Any, temperature: float
    ) -> Iterator["Answers"]: ...


@dataclasses.dataclass(frozen=True)
class Answers:
    """The samples of one prompt: their texts, their tokens (EOS included), and log pi and the entropy at each token.

    Both are in nats, of the policy at temperature 1. `log_prob_gap` is the largest difference between a log pi and that of
    teacher forcing; None where the generator does not gauge it. Each of `scores` has one number for each sample, by which the
    best sample can be chosen: larger is better.
    """

    example: Mapping[str, Any]
    texts: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    log_probs: tuple[tuple[float, ...], ...]
    entropies: tuple[tuple[float, ...], ...] = ()
    log_prob_gap: float | None = None
    scores: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    @property
    def best(self) -> dict[str, int]:
        """For each score, the number of the sample with the largest value; the first one among equals."""
        return {name: int(np.argmax(values)) for name, values in self.scores.items()}


@check_arguments
class Generator:
    """Samples answers in batches, or searches for them with beams; compiled once for all temperatures, filters and parameters.

    Args:
        batch_size: the number of prompts in a batch, which the mesh divides.
        num_samples: the number of answers to each prompt.
        max_length: the maximum number of tokens of an answer; None for the target length of the data set.
        seed: the seed of the sampling. A sample depends only on it, the prompt's number (its `sampling_id` if it has one,
            else its index) and the sample's number.
        top_k: the number of likeliest tokens from which to sample; None or 0 for all.
        top_p: the total probability of the likeliest tokens from which to sample; 1 for all.
        min_p: the smallest probability of a token, as a share of the probability of the likeliest one; 0 for all.
        num_beams: the number of beams with which to search for the best answers instead of sampling; None to sample.
        beam_alpha: the exponent of the beams' length penalty, ((5 + length) / 6) ** beam_alpha.
        gauge: whether to compare each answer's log-probabilities with those of teacher forcing.
        continues: whether answers begin with those of the data set, which lack their EOS.
    """

    def __init__(
        self,
        batch_size: Count = 32,
        num_samples: Count = 1,
        max_length: Count | None = None,
        seed: Seed = 0,
        *,
        top_k: Whole | None = None,
        top_p: PositiveShare = 1.0,
        min_p: Share = 0.0,
        num_beams: Count | None = None,
        beam_alpha: NonNegative = 0.6,
        gauge: bool = False,
        continues: bool = False,
    ):
        self.batch_size, self.num_samples = batch_size, num_samples
        self.max_length, self.seed = max_length, seed
        self.filters = decoding.Filters(top_k or 0, float(top_p), float(min_p))
        self.num_beams, self.beam_alpha, self.gauge = num_beams, beam_alpha, gauge
        self.continues = continues
        if num_beams is not None:
            _check_beams(num_beams, num_samples, self.filters)
            if continues:
                raise UserError(
                    f"NUM_BEAMS={num_beams}: beams do not go on from beginnings; set NUM_BEAMS=None to sample"
                )

    def settings(self) -> dict[str, Any]:
        """The settings that determine the answers, by the names of their macros; batch size and mesh have no influence."""
        return {
            "NUM_SAMPLES": self.num_samples,
            "SAMPLING_SEED": self.seed,
            "TOP_K": self.filters.top_k,
            "TOP_P": self.filters.top_p,
            "MIN_P": self.filters.min_p,
            "NUM_BEAMS": self.num_beams,
            "BEAM_ALPHA": self.beam_alpha,
            "max_length": self.max_length,
        }

    def check(self, mesh: Mesh) -> None:
        sharding.check_batch_size(mesh, self.batch_size, name="EVAL_BATCH_SIZE")

    @check_arguments
    def with_top_p(self, top_p: PositiveShare) -> "Generator":
        """The same generator with another top-p; both share one compilation."""
        other = copy.copy(self)
        other.filters = dataclasses.replace(self.filters, top_p=float(top_p))
        return other

    def check_temperature(self, temperature: float) -> None:
        if not fits(temperature, NonNegative):
            raise UserError(
                f"sampling temperature {temperature!r} must be 0 (the likeliest token) or a positive number"
            )
        if self.num_beams is not None and temperature != 1:
            raise UserError(
                f"temperature {temperature!r} with NUM_BEAMS={self.num_beams}: beams search the policy as it is; leave "
                "the temperature at 1.0, or set NUM_BEAMS=None to sample"
            )

    def check_samples(self, temperature: float) -> None:
        """Raises a UserError for several samples at temperature 0, because they would all be equal."""
        self.check_temperature(temperature)
        if temperature == 0 and self.num_samples > 1:
            raise UserError(
                f"TEMPERATURE=0 has one answer to a prompt, not NUM_SAMPLES={self.num_samples}: set NUM_SAMPLES=1, or a "
                "positive TEMPERATURE"
            )

    def __call__(
        self,
        graph: nnx.GraphDef,
        params: Any,
        mesh: Mesh,
        prompts: Prompts,
        temperature: float,
        skip: int = 0,
    ) -> Iterator[Answers]:
        """Answers the prompts after the first `skip`, in order; a temperature of 0 always takes the likeliest token."""
        self.check_temperature(temperature)
        self.check(mesh)
        length = self.max_length or prompts.lengths["targets"]
        shape = _Shape(self.num_samples, length, prompts.eos_ids, self.num_beams, self.gauge, self.continues)
        numbers = _Numbers(
            jax.random.key(self.seed), float(temperature), self.filters, float(self.beam_alpha)
        )
        rows = sharding.local_rows(mesh, self.batch_size)
        for start, (batch, examples) in zip(
            itertools.count(0, self.batch_size), prompts.batches(self.batch_size), strict=False
        ):
            if start + len(examples) <= skip:
                continue
            global_batch = sharding.to_global(mesh, jax.tree.map(lambda x: x[rows], batch), self.batch_size)
            ids = _example_ids(examples, start, self.batch_size)
            with sharding.use(mesh):
                out, gaps = _answer(graph, mesh, shape, params, global_batch, ids, numbers)
            lengths = np.asarray(out.answers.lengths)
            arrays = [np.asarray(x) for x in (out.answers.tokens, out.log_probs, out.entropies)]
            gaps = None if gaps is None else np.asarray(gaps)
            for row in range(max(skip - start, 0), len(examples)):
                gap = None if gaps is None else float(gaps[row])
                yield _answers(prompts, examples[row], lengths[row], [x[row] for x in arrays], gap)

    def lower(
        self, graph: nnx.GraphDef, params: Any, mesh: Mesh, batch: Batch, eos_ids: tuple[int, ...]
    ) -> jax.stages.Lowered:
        """The program that answers a batch, before its compilation; `params` and `batch` may be shapes with shardings."""
        length = self.max_length or batch.tokens.shape[1]
        shape = _Shape(self.num_samples, length, eos_ids, self.num_beams, self.gauge)
        numbers = _Numbers(jax.random.key(self.seed), 1.0, self.filters, float(self.beam_alpha))
        ids = np.zeros(self.batch_size, np.int32)
        with sharding.use(mesh):
            return _answer.lower(graph, mesh, shape, params, batch, ids, numbers)


@dataclasses.dataclass(frozen=True)
class _Shape:
    """Static settings: each distinct value is compiled separately."""

    num_samples: int
    max_length: int
    eos_ids: tuple[int, ...]
    num_beams: int | None
    gauge: bool
    continues: bool = False


class _Numbers(NamedTuple):
    """Traced settings: one compilation serves all of their values."""

    key: Any
    temperature: Any
    filters: decoding.Filters
    beam_alpha: Any


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _answer(graph, mesh, shape: _Shape, params, batch, ids, numbers: _Numbers):
    """Generates the answers to a batch of prompts, and for each prompt the gap to teacher forcing if the generator gauges it."""
    model, prompts = nnx.merge(graph, params), prompts_of(batch)
    lengths = {"max_length": shape.max_length, "eos_ids": shape.eos_ids}
    if shape.num_beams is None:
        keys = decoding.sample_keys(numbers.key, ids, shape.num_samples)
        beginnings = _beginnings(batch) if shape.continues else None
        out = decoding.sample(
            model, prompts, keys, numbers.temperature, numbers.filters, beginnings=beginnings, **lengths
        )
    else:
        out = decoding.search(model, prompts, shape.num_beams, numbers.beam_alpha, **lengths)
        out = jax.tree.map(lambda x: x[:, : shape.num_samples], out)
    gaps = decoding.log_prob_gaps(model, prompts, out) if shape.gauge else None
    # Answers are small, so that every process can read all of them.
    return jax.lax.with_sharding_constraint((out, gaps), sharding.replicated_sharding(mesh))


def _beginnings(batch: Batch) -> AnswerBatch:
    """The answers of rows with one example each, as what other answers begin with."""
    lengths = jnp.sum(batch.segment_ids > 0, axis=1)
    return AnswerBatch(batch.tokens, lengths, jnp.zeros(lengths.shape, bool))


def _check_beams(num_beams: int, num_samples: int, filters: decoding.Filters) -> None:
    if num_samples > num_beams:
        raise UserError(
            f"NUM_SAMPLES={num_samples} of NUM_BEAMS={num_beams}: beams end in as many answers as there are; set "
            f"NUM_SAMPLES to {num_beams} or less"
        )
    if filters != decoding.Filters():
        raise UserError(
            f"TOP_K, TOP_P and MIN_P are of sampling: leave them out with NUM_BEAMS={num_beams}, or set NUM_BEAMS=None"
        )


def _example_ids(examples: Sequence[Mapping[str, Any]], start: int, batch_size: int) -> np.ndarray:
    """The number from which the random keys of each example are made: its `sampling_id`, or its index in the data set."""
    ids = np.zeros(batch_size, np.int32)
    ids[: len(examples)] = [example.get("sampling_id", start + row) for row, example in enumerate(examples)]
    return ids


def _answers(
    prompts: Prompts,
    example: Mapping[str, Any],
    lengths: np.ndarray,
    arrays: Sequence[np.ndarray],
    gap: float | None,
) -> Answers:
    """Makes answers of the tokens, log-probabilities and entropies of a prompt's samples."""
    tokens, log_probs, entropies = (
        tuple(tuple(row[:length].tolist()) for row, length in zip(values, lengths, strict=True))
        for values in arrays
    )
    texts = tuple(prompts.decode(list(row)) for row in tokens)
    return Answers(example, texts, tokens, log_probs, entropies, gap)
