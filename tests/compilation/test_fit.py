"""The search for settings, on a made-up machine, and the names of topologies."""

import dataclasses

import pytest

from lmirl_jax.compilation import DoesNotFit, Memory, Summary
from lmirl_jax.compilation.fit import Candidate, Trial, search
from lmirl_jax.sharding import CHIPS, chip_of
from lmirl_jax.types import UserError


def summary(share: float, mfu: float) -> Summary:
    """A program that takes this share of the memory, with this bound on MFU."""
    memory = Memory(int(1000 * share), 0, 0, 0, limit=1000.0)
    times = {"compute": 1.0, "hbm": 0.5, "ici": 0.1}
    return Summary(memory, mfu, 0.0, mfu, 0.0, [], times, 1.0, "f32[1]", False, 0, 1.0)


def machine(candidate: Candidate) -> Summary | DoesNotFit | None:
    """Memory grows with the batch, less where more is computed again, which costs time; two parts of heads are best."""
    if candidate.tensor > 4:
        return None
    share = candidate.batch_size / 8 / (1 + ["none", "minimal", "full"].index(candidate.remat))
    if share > 4:
        return DoesNotFit(f"needs ({share:.2f}G) exceeds available HBM (1.00G)", 1.0)
    slower = {"none": 1.0, "minimal": 0.9, "full": 0.6}[candidate.remat]
    return summary(
        share,
        slower
        * candidate.batch_size
        / (4 + candidate.batch_size)
        * {1: 0.8, 2: 1.0, 4: 0.5}[candidate.tensor],
    )


@pytest.mark.parametrize(
    "start", [Candidate(1, "none", 1), Candidate(64, "none", 1), Candidate(512, "full", 4)], ids=str
)
def test_the_search_ends_at_the_best_that_fits(start):
    trials = list(search(start, machine, 60))
    assert trials[0].candidate == start
    assert len({trial.candidate for trial in trials}) == len(trials)
    # 16 rows with remat fill the memory (0.9 x 16 / 20); 8 rows without have 8 / 12.
    assert max(trials, key=lambda trial: trial.score).candidate == Candidate(16, "minimal", 2)


def test_the_search_stops_after_its_trials():
    assert len(list(search(Candidate(1, "none", 1), machine, 3))) == 3


def test_scores():
    fits, too_large = summary(1.0, 0.4), summary(1.5, 0.9)
    here = Candidate(1, "none", 1)
    assert Trial(here, fits).score == 0.4
    assert Trial(here, too_large).score == -1.5
    reason = "the total memory required for HLO temporaries (31.50G) exceeds available HBM (15.75G)."
    assert Trial(here, DoesNotFit(reason, 1.0)).score == -2
    assert Trial(here, DoesNotFit("(512.00M) exceeds (0.25G)", 1.0)).score == -2
    assert Trial(here, None).score < Trial(here, DoesNotFit("no numbers", 1.0)).score


def test_a_summary_adds_up():
    one = dataclasses.replace(
        summary(0.5, 0.0),
        flops=130.0,
        recomputed_flops=20.0,
        model_flops=100.0,
        seconds={"compute": 2.0, "ici": 4.0},
    )
    one = dataclasses.replace(one, peak_flops=65.0)
    assert (one.waste, one.bound_by, one.step_seconds) == (1.1, "ici", 4.0)
    assert one.mfu_bound == 100 / 4 / 65
    memory = Memory(arguments=70, outputs=60, aliased=55, temporaries=20, limit=95.0)
    assert (memory.peak, memory.fits, memory.share) == (95, True, 1.0)


@pytest.mark.parametrize("name", ["v4:4x4x8", "v5e:16x16", "v5p:8x8x8", "v6e:2x4"])
def test_topologies(name):
    assert chip_of(name) is CHIPS[name.partition(":")[0]]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v7:2x2", "unknown chip 'v7'"),
        ("v5e:4x4x4", "v5e has 2 sides"),
        ("v5p:8x8", "v5p has 3 sides"),
        ("v5e:0x4", "2 sides"),
        ("", "unknown chip"),
    ],
)
def test_names_that_are_none_of_a_topology(name, words):
    with pytest.raises(UserError, match=words):
        chip_of(name)


@pytest.mark.parametrize("name", CHIPS)
def test_a_chip_computes_more_than_it_moves(name):
    chip = CHIPS[name]
    # A product of large bfloat16 matrices needs at least some 200 operations for each byte.
    assert 100 < chip.flops / chip.hbm_bandwidth < 1000
    assert chip.ici < chip.hbm_bandwidth < 100 * chip.hbm
