"""Scores answers with a checkpoint: packed into batches on any mesh, in order, as they come."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from lmirl_jax import objectives, sharding, soft_q
from lmirl_jax.arguments import Count, Lengths, NonNegative, Share, check_arguments
from lmirl_jax.data.packing import Packer, Place
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.types import Batch

DECIMALS = 6  # Of all numbers: what float32 has to say.


@runtime_checkable
class RewardModel(Protocol):
    """A checkpoint to score with, as `runs.load` gives it: the network, its parameters on a mesh, and how it was trained."""

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
    """An answer to a prompt, as `data.Pair` is one."""

    input_tokens: Any
    target_tokens: Any
    example: int
    candidate: int
    candidates: int


@check_arguments
class Scorer:
    """The rewards of answers under a checkpoint; compiled once.

        r_t = q_t - gamma * v_{t+1}  [- beta * log pi_ref(a_t|s_t)]  [+ gamma * v_{t+1} - v_t]

    An answer's numbers depend on it and its prompt alone: neither on what shares its batch or its row, nor on the mesh.

    Args:
        model: the checkpoint; of any objective.
        batch_size: rows of a batch; what the mesh divides.
        lengths: tokens of a row, for `inputs` and `targets`; None for those of the model's training.
        discount: gamma; None for that of the model's training.
        reference: another checkpoint with the same vocabulary, whose log-probabilities are taken off; or None.
        beta: their weight.
        shaping: 'value' adds the differences of v as a potential, which leaves log pi_t; None adds nothing.
        packed: let short answers share a row.

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
        self.lengths = dict(model.lengths if lengths is None else lengths)
        self.discount = float(model.discount if discount is None else discount)
        self.beta = float(beta)
        self.shaping = shaping
        sharding.check_batch_size(model.mesh, batch_size, name="SCORE_BATCH_SIZE")

    def settings(self) -> dict[str, Any]:
        """What the rewards depend on beside checkpoints and pairs, by the names of the macros."""
        return {
            "TASK_FEATURE_LENGTHS": self.lengths,
            "DISCOUNT": self.discount,
            "BETA": self.beta if self.reference is not None else None,
            "SHAPING": self.shaping,
        }

    def __call__(self, pairs: Iterable[Pair], skip: int = 0) -> Iterator[ScoredAnswer]:
        """Scores each pair but the first `skip`, in order. All candidates of an example must come one after the other."""
        waiting = None
        group: list[ScoredAnswer] = []
        for filled in self._filled(pairs, skip):
            running = filled, self._run(filled.batch)  # Computes while the batch before it is read.
            if waiting is not None:
                yield from self._finished(*waiting, group, skip)
            waiting = running
        if waiting is not None:
            yield from self._finished(*waiting, group, skip)

    def _filled(self, pairs: Iterable[Pair], skip: int) -> Iterator["_Filled"]:
        """Batches in the order of the pairs; the same ones wherever it starts, but without those that nothing is needed of."""
        packer, held = self._packer(), []
        for number, pair in enumerate(pairs):
            # The mean over a prompt's answers needs all of them.
            needed = number - pair.candidate + pair.candidates > skip
            place = packer.add(pair.input_tokens, pair.target_tokens)
            if place is None:
                if any(item.needed for item in held):
                    yield _Filled(packer.batch(), held)
                packer, held = self._packer(), []
                place = packer.add(pair.input_tokens, pair.target_tokens)
            assert place is not None  # An empty batch has room for any pair, trimmed.
            held.append(_Item(number, pair, place, needed))
        if any(item.needed for item in held):
            yield _Filled(packer.batch(), held)

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
        placed = sharding.to_global(mesh, jax.tree.map(lambda x: x[rows], batch), size)
        networks = [
            (model.graph, model.params) for model in (self.model, self.reference) if model is not None
        ]
        with sharding.use(mesh):
            return _token_values(networks, placed, beta=self.beta, shaping=self.shaping, mesh=mesh)

    def _finished(
        self, filled: "_Filled", values: dict[str, Any], group: list[ScoredAnswer], skip: int
    ) -> Iterator[ScoredAnswer]:
        arrays = {name: np.asarray(value, np.float64) for name, value in values.items()}
        arrays["td_weights"] = filled.batch.td_weights
        for item in filled.items:
            if not item.needed:
                continue
            row, start, stop = item.place
            own = {name: array[row, start:stop] for name, array in arrays.items()}
            group.append(_scored(item.pair, own, self.discount))
            if len(group) == item.pair.candidates:
                first = item.number - len(group) + 1
                yield from _centred(group)[max(skip - first, 0) :]
                group.clear()


class _Item(NamedTuple):
    number: int
    pair: Any
    place: Place
    needed: bool


class _Filled(NamedTuple):
    batch: Batch
    items: list[_Item]


@functools.partial(jax.jit, static_argnames=("beta", "shaping", "mesh"))
def _token_values(
    networks: list[tuple[nnx.GraphDef, Any]],
    batch: Batch,
    *,
    beta: float,
    shaping: objectives.Shaping | None,
    mesh: Mesh,
) -> dict[str, jax.Array]:
    """The soft Q-values and the reward of each token of a batch, on every process; also the reference's, if there is one."""
    out, *others = [soft_q.of_model(nnx.merge(*network), batch, with_entropy=True) for network in networks]
    reference = others[0] if others else None
    reward = objectives.extracted_rewards(
        out, batch.discounts, shaping=shaping, reference=reference, beta=beta
    )
    values = {"q": out.q, "v": out.v, "entropy": out.entropy, "reward": reward}
    if reference is not None:
        values |= {"reference_q": reference.q, "reference_v": reference.v}
    return jax.lax.with_sharding_constraint(values, sharding.replicated(mesh))


def _scored(pair: Any, own: Mapping[str, np.ndarray], discount: float) -> ScoredAnswer:
    has_reward = own["td_weights"] != 0
    rewards = own["reward"][has_reward]  # All, or all but the last.
    total = float(np.sum(rewards * discount ** np.arange(len(rewards))))
    log_prob = own["q"] - own["v"]
    count = len(log_prob)
    offsets = pair.offsets[:count]
    reference = own["reference_q"] - own["reference_v"] if "reference_q" in own else None
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
        q=_rounded(own["q"]),
        v=_rounded(own["v"]),
        reward=tuple(r if has else None for r, has in zip(_rounded(own["reward"]), has_reward, strict=True)),
        log_prob=_rounded(log_prob),
        entropy=_rounded(own["entropy"]),
        reference_log_prob=None if reference is None else _rounded(reference),
        total=round(total, DECIMALS),
        normalised_return=round(total / max(len(rewards), 1), DECIMALS),
        centred_return=None,
        v_0=round(float(own["v"][0]), DECIMALS),
        log_likelihood=round(float(np.sum(log_prob)), DECIMALS),
        metrics={},
    )


def _centred(answers: list[ScoredAnswer]) -> list[ScoredAnswer]:
    """With the return of each less their mean, where a prompt has several: so it can be compared between prompts."""
    if len(answers) == 1:
        return list(answers)
    mean = sum(answer.total for answer in answers) / len(answers)
    return [
        dataclasses.replace(answer, centred_return=round(answer.total - mean, DECIMALS)) for answer in answers
    ]


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(np.round(values, DECIMALS).tolist())
