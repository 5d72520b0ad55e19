import dataclasses

import numpy as np
import pytest

from lmirl_jax.evaluation import comparison, front
from lmirl_jax.types import UserError

# Temperature: accuracy, valid distinct answers per prompt. Diversity peaks at 1.0.
BASE = {0.2: (0.90, 2.0), 0.6: (0.85, 4.0), 1.0: (0.70, 6.0), 1.4: (0.40, 5.0)}


def sweep(run, points=BASE, *, more=0.0, better=0.0, spread=1.0, prompts=150, seeds=(0, 1), salt=0):
    """Cells whose means over prompts are the points exactly, shifted by `more` and `better`."""
    cells = []
    for seed in seeds:
        for temperature, (accuracy, distinct) in points.items():
            rng = np.random.default_rng((salt, seed, round(100 * temperature)))
            noise = rng.normal(size=(2, prompts))
            noise -= noise.mean(axis=1, keepdims=True)
            values = {
                "accuracy": (accuracy + better + 0.2 * spread * noise[0]).tolist(),
                "distinct_valid": (distinct + more + spread * noise[1]).tolist(),
                "self_bleu": (100 - 10 * (distinct + more) + 10 * spread * noise[1]).tolist(),
            }
            cells.append(front.Cell(run, seed, temperature, {}, values))
    return cells


def test_the_run_is_better():
    text = comparison.verdict(sweep("MLE") + sweep("IQLearn", more=2.0, salt=1))
    assert text.startswith(
        "IQLearn's curve lies above MLE's: IQLearn gives more valid distinct answers per prompt at all 5 levels of equal "
        "accuracy (0.720 to 0.880). Averaged over the levels, IQLearn's lead over MLE is +2.00 in valid distinct answers per "
        "prompt (95% interval +1."
    )


def test_the_baseline_is_better():
    text = comparison.verdict(sweep("MLE") + sweep("IQLearn", more=-2.0, salt=1))
    assert text.startswith(
        "MLE's curve lies above IQLearn's: MLE gives more valid distinct answers per prompt at all 5"
    )
    assert "IQLearn's lead over MLE is -2.00 " in text


def test_the_run_is_better_in_part():
    steeper = {**BASE, 1.0: (0.70, 7.5)}
    text = comparison.verdict(sweep("MLE") + sweep("IQLearn", steeper, salt=1))
    assert text.startswith(
        "IQLearn's curve lies partly above MLE's: IQLearn gives more valid distinct answers per prompt"
    )
    assert "elsewhere the difference is within noise" in text and "at all" not in text


def test_the_curves_cross():
    crossing = {0.2: (0.90, 0.5), 0.6: (0.85, 2.5), 1.0: (0.70, 8.0), 1.4: (0.40, 5.0)}
    text = comparison.verdict(sweep("MLE") + sweep("IQLearn", crossing, spread=0.5, salt=1))
    assert text.startswith("The curves cross: IQLearn gives more valid distinct answers per prompt at ")
    assert ", while MLE gives more valid distinct answers per prompt at " in text


def test_the_curves_cross_where_one_reaches_further():
    shorter = {0.2: (0.80, 4.8), 0.6: (0.75, 8.0), 1.0: (0.70, 9.0), 1.4: (0.40, 5.0)}
    text = comparison.verdict(sweep("MLE") + sweep("IQLearn", shorter, salt=1))
    assert text.startswith("The curves cross: IQLearn gives more")
    assert "while MLE reaches a higher accuracy (0.900 against 0.800)." in text


@pytest.mark.parametrize("salt", range(1, 6))
def test_two_runs_alike_are_within_noise(salt):
    text = comparison.verdict(sweep("MLE") + sweep("IQLearn", more=0.05, salt=salt))
    assert text.startswith(
        "The difference between IQLearn and MLE is within noise at all 5 levels of equal accuracy ("
    )


def jittered(rng):
    """The base sweep, moved as far as the means over 150 prompts err."""
    return {
        t: (a + rng.normal(0, 0.2 / 150**0.5), d + rng.normal(0, 1 / 150**0.5)) for t, (a, d) in BASE.items()
    }


def test_false_alarms_are_rare():
    """Of pairs of equal policies no more than about 5% may be told apart."""
    alarms = 0
    for trial in range(60):
        rng = np.random.default_rng(trial)
        pair = [sweep(run, jittered(rng), seeds=(0,), salt=2 * trial + (run == "b")) for run in ("a", "b")]
        alarms += "within noise at" not in comparison.verdict(pair[0] + pair[1])
    assert alarms <= 6


def test_more_diverse_is_lower_self_bleu():
    text = comparison.verdict(sweep("MLE") + sweep("IQLearn", more=2.0, salt=1), diversity="self_bleu")
    assert "IQLearn gives more diverse samples (lower Self-BLEU) at all 5" in text
    # A lead is positive, as in the table of areas and in sweep.json.
    assert "IQLearn's lead over MLE is +20.0 in Self-BLEU (lower is ahead; 95% interval +1" in text


def test_the_baseline_can_be_named_and_every_other_run_is_compared():
    cells = sweep("MLE") + sweep("IQLearn", more=2.0, salt=1) + sweep("GEM", more=-2.0, salt=2)
    text = comparison.verdict(cells, baseline="IQLearn")
    assert "IQLearn's curve lies above MLE's" in text and "IQLearn's curve lies above GEM's" in text
    with pytest.raises(
        UserError, match="no run is called 'DFT'; choose the baseline among MLE, IQLearn, GEM"
    ):
        comparison.verdict(cells, baseline="DFT")


def test_sweeps_that_never_meet_are_not_compared():
    hot = {1.0: (0.30, 5.0), 1.4: (0.20, 6.0)}
    cold = {0.2: (0.90, 2.0), 0.6: (0.80, 4.0)}
    text = comparison.verdict(sweep("MLE", cold) + sweep("IQLearn", hot, salt=1))
    assert "the sweeps share no level of it (MLE 0.80 to 0.90 and IQLearn 0.20 to 0.30)" in text


def test_an_unfinished_sweep_is_not_held_against_its_run():
    """A sweep that stops at a low temperature is compared only where it went."""
    unfinished = {t: BASE[t] for t in (0.2, 0.6)}
    base, run = front.curves(sweep("MLE", unfinished) + sweep("IQLearn", salt=1))
    found = comparison.compare(base, run, diversity="distinct_valid")
    assert min(found.levels) > 0.85
    assert [d.mean for d in found.differences] == pytest.approx([0] * 5, abs=1e-9)


def test_one_seed_is_confessed_and_few_prompts_are_refused():
    cells = sweep("MLE", seeds=(0,)) + sweep("IQLearn", seeds=(0,), salt=1)
    assert "with one seed a run, training noise is left out" in comparison.verdict(cells)
    few = sweep("MLE", prompts=9) + sweep("IQLearn", more=9.0, prompts=9, salt=1)
    assert comparison.verdict(few) == (
        "Too few to say whether IQLearn and MLE differ: 9 of 9 prompts can be counted, 10 are needed. Evaluate on more prompts."
    )


def test_few_prompts_with_a_right_answer_say_nothing():
    """Of 400 prompts 7 have right answers in either run, whatever the diversity."""
    cells = [
        front.Cell(run, 0, t, {}, {"accuracy": [share] * 7 + [0.0] * 393, "self_bleu": noise.tolist()})
        for salt, run in enumerate(("MLE", "IQLearn"))
        for t, share in ((0.5, 0.5), (1.0, 0.25))
        for noise in [np.random.default_rng((salt, int(2 * t))).normal(50 - 30 * salt, 3, 400)]
    ]
    assert comparison.verdict(cells, diversity="self_bleu") == (
        "Too few to say whether IQLearn and MLE differ: accuracy differs from its commonest value in 7 of 400 prompts, "
        "8 are needed. Evaluate on more prompts."
    )
    found = comparison.compare(*front.curves(cells), diversity="self_bleu")
    assert found.area.low is None and found.too_few is not None and found.prompts == 400


def test_there_is_no_verdict_on_policies_that_solve_nothing():
    nothing = {0.5: (0.0, 0.0), 1.0: (0.0, 0.0)}
    text = comparison.verdict(sweep("MLE", nothing, spread=0) + sweep("IQLearn", nothing, spread=0))
    assert text.startswith(
        "Neither MLE nor IQLearn has any accuracy: it is 0 at every temperature, and the diversity"
    )
    assert text.count("Neither") == 1 and "nan" not in text


def test_few_seeds_understate_the_noise_of_training():
    curves = front.curves([dataclasses.replace(sweep("MLE")[0], seed=seed) for seed in range(5)])
    assert comparison.bootstrap_words(curves) == "over prompts and seeds"
    pair = front.curves([dataclasses.replace(sweep("MLE")[0], seed=seed) for seed in range(2)])
    assert comparison.bootstrap_words([*curves, *pair]).endswith(
        "with 2 seeds a run, training noise is understated"
    )


def test_runs_are_compared_at_equal_top_p():
    cells = sweep("MLE") + sweep("IQLearn")
    both = cells + [dataclasses.replace(cell, top_p=0.9) for cell in cells]
    found = [(base.label, run.label) for base, run in comparison.pairs(both)]
    assert found == [("MLE (top-p 1)", "IQLearn (top-p 1)"), ("MLE (top-p 0.9)", "IQLearn (top-p 0.9)")]
    lacking = [cell for cell in both if cell.run == "IQLearn" or cell.top_p == 1]
    with pytest.raises(UserError, match=r"run 'MLE' lacks top-p 0\.9; evaluate every run"):
        comparison.pairs(lacking)


def test_one_run_and_cells_without_values():
    assert comparison.verdict(sweep("MLE")) == "There is one run only (MLE): nothing to compare it with."
    bare = [front.Cell(run, 0, 1.0, {"accuracy": 0.5, "distinct_valid": 1.0}) for run in ("MLE", "IQLearn")]
    assert comparison.verdict(bare).startswith(
        "IQLearn and MLE are not told apart by accuracy: it has no values"
    )


def straight(run, shift, *, temperatures=5, prompts=12):
    """A sweep without noise on the line diversity = 1 + shift + 10 * (0.9 - quality), quality from 0.9 down to 0.5."""
    return [
        front.Cell(run, 0, 1.0 + i, {}, {"accuracy": [q] * prompts, "distinct_valid": [d] * prompts})
        for i in range(temperatures)
        for q in [0.9 - 0.4 * i / (temperatures - 1)]
        for d in [1 + shift + 10 * (0.9 - q)]
    ]


def test_area_between_two_straight_lines_by_hand():
    """Parallel lines 0.5 apart over a quality of 0.5 to 0.9: an area of 0.5 * 0.4."""
    base, run = front.curves(straight("MLE", 0.0) + straight("IQLearn", 0.5))
    found = comparison.compare(base, run, diversity="distinct_valid")
    assert found.shared == pytest.approx((0.5, 0.9))
    assert found.area.mean == pytest.approx(0.2)
    assert (found.area.low, found.area.high) == (None, None)  # Nothing varies: there is no noise to tell of.
    assert found.mean_difference.mean == pytest.approx(0.5)


def test_area_of_a_triangle_and_of_lines_that_cross():
    """One line is flat at 3; the other rises from 1 at 0.9 to 5 at 0.5: what is won is lost again."""
    flat = [
        front.Cell("flat", 0, 1.0, {}, {"accuracy": [0.9] * 12, "distinct_valid": [3.0] * 12}),
        front.Cell("flat", 0, 2.0, {}, {"accuracy": [0.5] * 12, "distinct_valid": [3.0 + 1e-9] * 12}),
    ]
    base, run = front.curves(flat + straight("IQLearn", 0.0))
    assert comparison.compare(base, run, diversity="distinct_valid").area.mean == pytest.approx(0.0, abs=1e-6)
    base, run = front.curves(flat + straight("IQLearn", 2.0))  # From equal at 0.9 to 4 more at 0.5.
    assert comparison.compare(base, run, diversity="distinct_valid").area.mean == pytest.approx(0.5 * 0.4 * 4)


def test_area_counts_for_the_run_with_the_lower_self_bleu():
    cells = sweep("MLE") + sweep("IQLearn", more=2.0, salt=1)
    base, run = front.curves(cells)
    found = comparison.compare(base, run, diversity="self_bleu")
    assert found.area.low > 0 and found.area.mean == pytest.approx(20 * 0.2, rel=0.02)
