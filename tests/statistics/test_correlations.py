import numpy as np
import pytest

from lmirl_jax.statistics.correlation_split import correlation_split
from lmirl_jax.statistics.correlations import correlations, difference
from lmirl_jax.statistics.length_bins import length_bins
from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN, AnswerTable


def table(prompts, **values):
    prompts = np.array(prompts)
    return AnswerTable(tuple(values), np.array(list(values.values()), float), prompts, int(prompts.max()) + 1)


def random_table(seed, prompts=20, answers=6):
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=(3, prompts * answers))
    of_prompt = np.repeat(generator.normal(size=prompts), answers)
    return table(
        np.repeat(np.arange(prompts), answers),
        total=noise[0] + of_prompt,
        score=noise[0] + noise[1],
        likelihood=noise[0],
        v_0=of_prompt,
        other=noise[2],
    )


def found(tables, measure, metric, scope, kind="spearman", **options):
    rows = correlations(tables, [measure], [metric], draws=300, **options)
    return next(row for row in rows if (row.scope, row.kind) == (scope, kind))


def test_within_prompt_and_pooled_may_contradict_each_other():
    # Simpson's: in each prompt the metric falls with the measure, over prompts it rises.
    one = table([0, 0, 1, 1, 2, 2], total=[1, 2, 11, 12, 21, 22], score=[2, 1, 12, 11, 22, 21])
    assert found([one], "total", "score", WITHIN).value == pytest.approx(-1)
    assert found([one], "total", "score", POOLED).value == pytest.approx(1 - 6 * 6 / (6 * 35))


def test_prompts_without_variation_are_left_out_and_counted():
    one = table([0, 0, 1, 1, 2], total=[1, 2, 1, 2, 1], score=[0, 1, 1, 1, 0])
    row = found([one], "total", "score", WITHIN)
    assert (row.value, row.prompts, row.left_out) == (pytest.approx(1), 1, 2)
    assert (
        row.low is None and row.p_value is not None
    )  # One prompt says nothing of noise, and yet has a test.


@pytest.mark.parametrize("kind", ["spearman", "kendall"])
@pytest.mark.parametrize("scope", [POOLED, WITHIN])
def test_undefined_is_none_and_never_nan(scope, kind):
    constant = table([0, 0, 1, 1], total=[1, 2, 3, 4], score=[1, 1, 1, 1])
    row = found([constant], "total", "score", scope, kind)
    assert (row.value, row.low, row.high, row.p_value) == (None, None, None, None)


def test_intervals_hold_the_value_and_equal_seeds_give_equal_ones():
    one = random_table(0)
    for row in correlations([one], ["total"], ["score", "other"], draws=300):
        assert row.low < row.value < row.high
        assert (row.p_value is None) == (row.kind == "kendall")
        assert row.metric == "score" or row.low < 0 < row.high
    assert correlations([one], ["total"], ["score"], draws=50) == correlations(
        [one], ["total"], ["score"], draws=50
    )


def test_seeds_are_averaged():
    tables = [random_table(seed) for seed in (0, 1)]
    for scope in (POOLED, WITHIN):
        single = [found([one], "total", "score", scope).value for one in tables]
        assert found(tables, "total", "score", scope).value == pytest.approx(np.mean(single))


def test_more_answers_to_the_same_prompts_do_not_narrow_a_pooled_interval():
    """Answers of a prompt that are all alike are no more evidence than one."""
    generator = np.random.default_rng(3)
    values = {name: generator.normal(size=15) for name in ("total", "score")}
    once = found([table(range(15), **values)], "total", "score", POOLED)
    often = found(
        [table(np.repeat(range(15), 20), **{k: np.repeat(v, 20) for k, v in values.items()})],
        "total",
        "score",
        POOLED,
    )
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-5)


def test_a_run_does_not_differ_from_itself():
    one = random_table(0)
    assert difference([one], [one], "total", "score", POOLED, paired=True, draws=100) == (0.0, 0.0, 0.0)
    _, low, high = difference([one], [one], "total", "score", POOLED, paired=False, draws=100)
    assert low < 0 < high


def test_the_split_by_hand():
    # total = 1 1 0 2 is the metric itself; each part has covariance 1/4 of the variance 1/2.
    one = table([0, 1, 2, 3], likelihood=[1, 0, 0, 1], v_0=[0, 1, 0, 1], score=[1, 1, 0, 2])
    shares = correlation_split([one], ["likelihood", "v_0"], "score", draws=20)
    assert [(share.name, share.value) for share in shares] == [
        ("likelihood", 0.5),
        ("v_0", 0.5),
        ("total", 1.0),
    ]


def test_the_parts_of_a_correlation_add_up():
    tables = [random_table(seed) for seed in (0, 1)]
    shares = {s.name: s for s in correlation_split(tables, ["likelihood", "v_0"], "score", draws=100)}
    assert shares["likelihood"].value + shares["v_0"].value == pytest.approx(shares["total"].value, abs=1e-12)
    own = [np.corrcoef(*t.rows(["total", "score"]))[0, 1] for t in tables]
    assert shares["total"].value == pytest.approx(np.mean(own))
    assert shares["total"].low < shares["total"].value < shares["total"].high


def test_a_split_of_what_does_not_vary_is_none():
    one = table([0, 1], likelihood=[1, 2], v_0=[0, 0], score=[3, 3])
    assert all(
        share.value is None for share in correlation_split([one], ["likelihood", "v_0"], "score", draws=9)
    )


def test_bins_of_length_by_hand():
    lengths, measure, metric = np.array([3.0, 1, 1, 2, 3, 9]), np.array([5.0, 1, 3, 2, 4, 0]), np.arange(6.0)
    bins = length_bins(lengths, measure, metric, bins=2)
    assert [(b.shortest, b.longest, b.answers) for b in bins] == [(1, 2, 3), (3, 9, 3)]
    assert [(b.measure, b.metric) for b in bins] == [(2.0, 2.0), (3.0, 3.0)]
    assert [b.correlation for b in bins] == [pytest.approx(0.5), pytest.approx(-1.0)]


def test_answers_of_one_length_are_one_bin():
    bins = length_bins(np.full(4, 7.0), np.arange(4.0), np.ones(4))
    assert [(b.shortest, b.longest, b.answers, b.correlation) for b in bins] == [(7, 7, 4, None)]
