"""Compares two quality-diversity fronts, and tells whether their difference is more than noise."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from lmirl_jax.evaluation.front import Cell, Curve, Interval, curves, describe, event_prompts_of
from lmirl_jax.evaluation.pareto import front_at
from lmirl_jax.statistics.bootstrap import interval_of, resampled_means, resampling_weights
from lmirl_jax.statistics.evidence import Evidence, pluralise
from lmirl_jax.types import UserError

# The number of levels of equal quality at which two fronts are compared.
LEVELS = 5
# The number of levels over which the area between two fronts is summed. They are the middles of equal bands, so that the sum
# is exact for straight lines.
AREA_LEVELS = 40
# With fewer seeds a bootstrap over seeds gives intervals that are too narrow.
ENOUGH_SEEDS = 5


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A run against a baseline at equal quality. Every difference is the run minus the baseline: positive where the run leads.

    The intervals of `differences` and `reach` hold jointly at 95% (Bonferroni); those of `mean_difference` and `area` hold
    one by one. There are none where `too_few` gives a reason.

    Args:
        levels: the levels of quality.
        differences: the difference in diversity at each level; positive where the run is more diverse.
        mean_difference: the mean of the differences over the levels.
        area: the area between the curves: the integral of the difference over the quality that both sweeps cover.
        shared: the lowest and the highest quality that both sweeps cover.
        reach: the difference in quality, each run at its best temperature.
        best: the quality of the baseline and of the run there.
        prompts: the number of prompts that both answered.
        too_few: why there are too few prompts or events to conclude anything; None where there are enough.
    """

    levels: tuple[float, ...]
    differences: tuple[Interval, ...]
    mean_difference: Interval
    area: Interval
    shared: tuple[float, float]
    reach: Interval
    best: tuple[float, float]
    prompts: int
    too_few: str | None


def verdict(
    cells: Sequence[Cell],
    *,
    baseline: str | None = None,
    quality: str = "accuracy",
    diversity: str = "distinct_valid",
) -> str:
    """Compares the front of each run with that of the baseline, in two sentences for each run.

    Args:
        cells: the sweeps. Both metrics need values per prompt; without them there is no verdict.
        baseline: the label of the run to compare with; None for the first run.
        quality: the metric at whose equal levels the runs are compared; larger is better.
        diversity: the metric that is compared there.

    Returns:
        Plain text. A lead counts only where its interval excludes 0. Simulated (tests/statistics/test_coverage.py): two runs of
        the same policy are told apart in less than 5% of verdicts, with 10 prompts or 100, rare right answers or frequent ones.

    Raises:
        UserError: an unknown baseline.
    """
    couples = pairs(cells, baseline)
    if not couples:
        return f"There is one run only ({cells[0].run}): nothing to compare it with."
    return " ".join(_sentences(base, run, quality, diversity) for base, run in couples)


def pairs(cells: Sequence[Cell], baseline: str | None = None) -> list[tuple[Curve, Curve]]:
    """Pairs of curves: the baseline (the first run if it is None) and each other run, at the same top-p.

    Raises:
        UserError: an unknown baseline, or one that lacks another run's top-p.
    """
    all_curves = curves(cells)
    names = list(dict.fromkeys(curve.run for curve in all_curves))
    if baseline is not None and baseline not in names:
        raise UserError(f"front: no run is called {baseline!r}; choose the baseline among {', '.join(names)}")
    base = baseline or names[0]
    bases = {curve.top_p: curve for curve in all_curves if curve.run == base}
    others = [curve for curve in all_curves if curve.run != base]
    for curve in others:
        if curve.top_p not in bases:
            raise UserError(
                f"front: run {base!r} lacks top-p {curve.top_p:g}; evaluate every run at every top-p"
            )
    return [(bases[curve.top_p], curve) for curve in others]


def _sentences(base: Curve, run: Curve, quality: str, diversity: str) -> str:
    for metric in (quality, diversity):
        if metric not in base.values or metric not in run.values:
            return (
                f"{run.label} and {base.label} are not told apart by {describe(metric).title}: it has no values per prompt, "
                "so that nothing says how large the noise is."
            )
    title = describe(quality).title
    if not base.means[quality].any() and not run.means[quality].any():
        return (
            f"Neither {base.label} nor {run.label} has any {title}: it is 0 at every temperature, and the diversity of "
            "answers without it says nothing. Train further, or compare at equal levels of another metric."
        )
    too_few = _evidence(base, run, quality, diversity).too_few
    if too_few:
        return f"Too few to say whether {run.label} and {base.label} differ: {too_few}. Evaluate on more prompts."
    comparison = compare(base, run, quality=quality, diversity=diversity)
    if comparison is None:
        spans = [
            f"{c.label} {c.means[quality].min():.2f} to {c.means[quality].max():.2f}" for c in (base, run)
        ]
        return (
            f"{run.label} and {base.label} cannot be compared at equal {title}: the sweeps share no level of it "
            f"({' and '.join(spans)}). Sweep more temperatures."
        )
    headline = _headline(base.label, run.label, comparison, quality, diversity)
    return f"{headline} {_lead_sentence(base, run, comparison, diversity)}"


def _headline(base: str, run: str, comparison: Comparison, quality: str, diversity: str) -> str:
    """The first sentence: one curve lies above, lies partly above, they cross, or there is no difference beyond noise."""
    ahead = [i for i, d in enumerate(comparison.differences) if d.low is not None and d.low > 0]
    behind = [i for i, d in enumerate(comparison.differences) if d.high is not None and d.high < 0]
    run_lead = _lead(comparison, ahead, comparison.reach.low, 1, quality, diversity)
    base_lead = _lead(comparison, behind, comparison.reach.high, -1, quality, diversity)
    count = len(comparison.levels)
    if run_lead and base_lead:
        return f"The curves cross: {run} {run_lead}, while {base} {base_lead}."
    if run_lead or base_lead:
        first, second, lead = (run, base, run_lead) if run_lead else (base, run, base_lead)
        everywhere = len(ahead or behind) == count
        where = "above" if everywhere else "partly above"
        rest = "" if everywhere else "; elsewhere the difference is within noise"
        return f"{first}'s curve lies {where} {second}'s: {first} {lead}{rest}."
    places = _places(comparison, list(range(count)), quality)
    return f"The difference between {run} and {base} is within noise at {places}."


def _lead(
    comparison: Comparison, levels: list[int], reach: float | None, sign: int, quality: str, diversity: str
) -> str:
    """Says in words where one run leads; empty if it leads nowhere. `sign` is 1 for the run and -1 for the baseline."""
    parts = []
    if levels:
        parts.append(f"gives {describe(diversity).more} at {_places(comparison, levels, quality)}")
    if reach is not None and sign * reach > 0:
        theirs, ours = comparison.best[::sign]
        parts.append(f"reaches a higher {describe(quality).title} ({ours:.3f} against {theirs:.3f})")
    return " and ".join(parts)


def _places(comparison: Comparison, places: list[int], quality: str) -> str:
    """Names levels, adjacent ones as a range: `3 of 5 levels of equal accuracy (0.62 to 0.74, 0.86)`."""
    levels, count = comparison.levels, len(comparison.levels)
    spans: list[list[int]] = []
    for i in places:
        if spans and i == spans[-1][-1] + 1:
            spans[-1].append(i)
        else:
            spans.append([i])
    digits = describe(quality).digits
    ends = [(f"{levels[span[0]]:.{digits}f}", f"{levels[span[-1]]:.{digits}f}") for span in spans]
    numbers = ", ".join(low if low == high else f"{low} to {high}" for low, high in ends)
    if count == 1:
        return f"the only level of {describe(quality).title} that both reach ({numbers})"
    some = f"all {count}" if len(places) == count else f"{len(places)} of {count}"
    return f"{some} levels of equal {describe(quality).title} ({numbers})"


def _lead_sentence(base: Curve, run: Curve, comparison: Comparison, diversity: str) -> str:
    """The second sentence: the mean lead with its interval."""
    mean, metric = comparison.mean_difference, describe(diversity)
    lead = with_sign(mean.mean, metric.digits)
    where = "Averaged over the levels" if len(comparison.levels) > 1 else "At that level"
    noise = f"over {pluralise(comparison.prompts, 'prompt')}; bootstrap {bootstrap_words([base, run])}"
    if mean.low is not None and mean.high is not None:
        ends = f"{with_sign(mean.low, metric.digits)} to {with_sign(mean.high, metric.digits)}"
        noise = f"95% interval {ends}, {noise}"
    noise = f"lower is ahead; {noise}" if metric.sign < 0 else noise
    return f"{where}, {run.label}'s lead over {base.label} is {lead} in {metric.title} ({noise})."


def with_sign(value: float, digits: int) -> str:
    """A number with its sign, such as +0.50; a number that rounds to 0 has a plus."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def bootstrap_words(runs: Sequence[Curve]) -> str:
    """Says in words what the bootstrap resamples, and whether it includes the noise between training runs."""
    fewest = min(len(run.seeds) for run in runs)
    if fewest == 1:
        return "over prompts; with one seed a run, training noise is left out"
    few = f"; with {fewest} seeds a run, training noise is understated" if fewest < ENOUGH_SEEDS else ""
    return f"over prompts and seeds{few}"


def _evidence(base: Curve, run: Curve, quality: str, diversity: str) -> Evidence:
    """The evidence of two runs: the prompts in which quality, or diversity if that is fewer, varies in either of them."""
    prompts = base.values[quality].shape[-1]
    events, metric = min(
        (len(event_prompts_of([curve.values[name] for curve in (base, run)])), name)
        for name in (quality, diversity)
    )
    return Evidence(prompts, prompts, events, describe(metric).title)


def compare(baseline: Curve, run: Curve, *, quality: str = "accuracy", diversity: str) -> Comparison | None:
    """Compares two fronts at equal quality; None where their sweeps share no level of it.

    The levels lie within the quality that both sweeps cover. A sweep whose diversity still rises at its highest temperature
    says nothing about lower quality than it has there; a sweep whose diversity peaked earlier does. The bootstrap draws the
    same prompts for both runs, and seeds for each run alone.
    """
    shared = _shared_quality((baseline, run), quality, diversity)
    if shared is None:
        return None
    levels, finer = _middles(shared, LEVELS), _middles(shared, AREA_LEVELS)
    fronts, front_draws, bests, best_draws = zip(
        *(
            _front(curve, quality, diversity, np.concatenate([levels, finer]), seed=1 + i)
            for i, curve in enumerate((baseline, run))
        ),
        strict=True,
    )
    count, width = len(levels), shared[1] - shared[0]
    difference, difference_draws = fronts[1] - fronts[0], front_draws[1] - front_draws[0]
    reach, reach_draws = bests[1] - bests[0], best_draws[1] - best_draws[0]
    area, area_draws = width * difference[count:].mean(), width * difference_draws[:, count:].mean(axis=1)
    evidence = _evidence(baseline, run, quality, diversity)
    # Bonferroni's correction for the levels and the reach.
    joint_coverage = 1 - 0.05 / (count + 1)

    def interval(
        value: float | np.floating, sample: Float[np.ndarray, " draws"], coverage: float
    ) -> Interval:
        return Interval(float(value), *interval_of(float(value), sample, evidence, coverage))

    return Comparison(
        tuple(levels.tolist()),
        tuple(
            interval(*pair, joint_coverage)
            for pair in zip(difference[:count], difference_draws.T[:count], strict=True)
        ),
        interval(difference[:count].mean(), difference_draws[:, :count].mean(axis=1), 0.95),
        interval(area, area_draws, 0.95),
        shared,
        interval(reach, reach_draws, joint_coverage),
        bests,
        evidence.prompts,
        evidence.too_few,
    )


def _front(
    curve: Curve, quality: str, diversity: str, levels: Float[np.ndarray, " levels"], seed: int
) -> tuple[
    Float[np.ndarray, " levels"], Float[np.ndarray, "draws levels"], float, Float[np.ndarray, " draws"]
]:
    """The front of a run at levels of quality, its best quality, and both in each bootstrap draw."""
    sign = describe(diversity).sign
    prompts = resampling_weights(curve.values[quality].shape[-1], 0)
    seeds = resampling_weights(len(curve.seeds), seed)
    quality_draws = resampled_means(curve.values[quality], prompts, seeds)
    diversity_draws = sign * resampled_means(curve.values[diversity], prompts, seeds)
    front = front_at(curve.means[quality], sign * curve.means[diversity], levels)
    best = float(curve.means[quality].max())
    return front, front_at(quality_draws, diversity_draws, levels), best, quality_draws.max(axis=1)


def _shared_quality(pair: tuple[Curve, Curve], quality: str, diversity: str) -> tuple[float, float] | None:
    """The lowest and the highest quality that both sweeps cover; None where they share none."""
    floors, rising = [], []
    for curve in pair:
        widest = int(np.argmax(describe(diversity).sign * curve.means[diversity]))
        floors.append(float(curve.means[quality][widest]))
        if widest == len(curve.temperatures) - 1:
            rising.append(floors[-1])
    low = max(rising) if rising else min(floors)
    high = min(float(curve.means[quality].max()) for curve in pair)
    return None if low > high else (low, high)


def _middles(span: tuple[float, float], count: int) -> Float[np.ndarray, " levels"]:
    """The middles of equal bands of a span; a single value where the span has no width."""
    low, high = span
    if high - low < 1e-6:
        return np.array([low])
    return low + (high - low) * (np.arange(count) + 0.5) / count
