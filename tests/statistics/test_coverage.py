"""How often intervals hold the truth, and verdicts are wrong where there is nothing to find: what evidence.py's numbers rest on.

Each trial is a data set of its own from a fixed seed. Intervals that are not given do not count: an interval that is declined
misleads no one. Limits allow for the error of so many trials (two standard errors below .90, or above .05).
"""

import numpy as np
import pytest

from lmirl_jax.evaluation import comparison, front
from lmirl_jax.statistics.bootstrap import bootstrap_interval
from lmirl_jax.statistics.correlation_samples import correlation_sample
from lmirl_jax.statistics.correlations import correlations
from lmirl_jax.statistics.evidence import conclusion
from lmirl_jax.statistics.proportions import mean_interval, share_interval
from lmirl_jax.statistics.rank_correlation import POOLED, WITHIN, AnswerTable


def least(trials):
    """So low may a coverage of .90 come out."""
    return 0.9 - 2 * (0.9 * 0.1 / trials) ** 0.5


def most(trials):
    """So high may a rate of errors of .05 come out."""
    return 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


@pytest.mark.parametrize("events", [1, 2, 3, 5, 8, 10])
@pytest.mark.parametrize("prompts", [10, 20, 50, 400])
def test_shares_of_right_or_wrong(prompts, events):
    """Exactly, from the binomial distribution: so many events are expected of so many prompts, and as many failures."""
    if 2 * events > prompts:
        pytest.skip("no rare event")
    from scipy import stats

    share = events / prompts
    chances = stats.binom.pmf(np.arange(prompts + 1), prompts, share)
    for flip in (False, True):
        held = 0.0
        for right, chance in enumerate(chances):
            low, high = mean_interval(np.arange(prompts) < (prompts - right if flip else right))
            held += chance * (low <= (1 - share if flip else share) <= high)
        assert held >= 0.9


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("samples", [4, 16])
@pytest.mark.parametrize(
    ("prompts", "share"), [(10, 0.95), (20, 0.95), (20, 0.5), (100, 0.02), (400, 0.0125)]
)
def test_shares_of_several_samples(prompts, share, samples, alike):
    """Samples of a prompt that are right alike (beta-binomial)."""
    generator, trials = np.random.default_rng(prompts + samples), 400
    spread = (1 - alike) / max(alike, 1e-3)
    chances = generator.beta(share * spread, (1 - share) * spread, (trials, prompts))
    found = [mean_interval(generator.binomial(samples, row) / samples) for row in chances]
    held = [low <= share <= high for low, high in found if low is not None]
    assert len(held) > 0.9 * trials and np.mean(held) >= least(len(held))


@pytest.mark.parametrize("kind", ["lengths", "rare", "skewed"])
@pytest.mark.parametrize("prompts", [10, 20, 100])
def test_means_of_what_is_no_share(prompts, kind):
    """Lengths in whole tokens (ties), a score that most prompts do not have, and a skewed one."""
    generator, trials = np.random.default_rng(prompts), 400
    make, truth = {
        "lengths": (lambda: generator.poisson(3, prompts), 3.0),
        "rare": (lambda: (generator.random(prompts) < 0.3) * generator.normal(40, 10, prompts), 12.0),
        "skewed": (lambda: generator.gamma(2, 10, prompts), 20.0),
    }[kind]
    found = [bootstrap_interval(make().astype(float), draws=500) for _ in range(trials)]
    held = [low <= truth <= high for low, high in found if low is not None]
    assert len(held) < 20 or np.mean(held) >= least(len(held))


def answers(generator, prompts, per_prompt, rate, relation, alike, levels):
    """A return and a right-or-wrong metric with a latent relation, both more or less alike within prompts."""
    count = prompts * per_prompt
    of_prompt = np.repeat(generator.normal(size=(2, prompts)), per_prompt, axis=1)
    x, y = np.sqrt(alike) * of_prompt + np.sqrt(1 - alike) * generator.normal(size=(2, count))
    latent = relation * x + np.sqrt(1 - relation**2) * y
    from scipy import stats

    if levels:
        x = np.round(x * levels) / levels
    return x, (latent > stats.norm.ppf(1 - rate)).astype(float)


CASES = [  # Prompts, answers to each, right ones expected, levels of the return to a standard deviation (0: no ties).
    (10, 8, 20, 0),
    (20, 1, 8, 0),
    (20, 8, 16, 1),
    (40, 4, 80, 2),
    (100, 4, 10, 0),
    (400, 1, 8, 1),
]


def correlated(case, relation, alike, trials, draws):
    """The pooled and the within-prompt Spearman of each trial; their truths from one large data set."""
    prompts, per_prompt, right, levels = case
    setting = (per_prompt, right / (prompts * per_prompt), relation, alike, levels)
    rows = []
    for trial in range(trials):
        x, y = answers(np.random.default_rng((trial, prompts)), prompts, *setting)
        table = AnswerTable(("x", "y"), np.stack([x, y]), np.repeat(np.arange(prompts), per_prompt), prompts)
        found = correlations([table], ["x"], ["y"], draws=draws)
        rows.append({row.scope: row for row in found if row.kind == "spearman"})
    x, y = answers(np.random.default_rng(0), 40_000, *setting)
    large = AnswerTable(("x", "y"), np.stack([x, y]), np.repeat(np.arange(40_000), per_prompt), 40_000)
    sample = {
        scope: correlation_sample([large], ["x"], ["y"], ("spearman", scope), 0, 1)
        for scope in (POOLED, WITHIN)
    }
    return rows, {scope: float(own.by_seed[0, 0, 0]) for scope, own in sample.items()}


@pytest.mark.parametrize(
    ("trials", "draws"),
    [
        pytest.param(40, 500, marks=pytest.mark.slow),
        pytest.param(250, 2000, marks=pytest.mark.soak),
    ],
)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("relation", "alike"), [(0.0, 0.0), (0.5, 0.5)])
def test_rank_correlations_of_rare_right_answers(case, relation, alike, trials, draws):
    """Pooled and within prompt: intervals hold the truth, and without a relation hardly a verdict sees one."""
    rows, truths = correlated(case, relation, alike, trials, draws)
    for scope in (POOLED, WITHIN):
        given = [row[scope] for row in rows if scope in row and row[scope].low is not None]
        held = [row.low <= truths[scope] <= row.high for row in given]
        assert len(held) < 20 or np.mean(held) >= least(len(held))
    if relation == 0:
        said = [{conclusion(row.low, row.high, row.p_value) for row in own.values()} for own in rows]
        wrong = [bool(own & {"positive", "negative"}) for own in said]
        assert np.mean(wrong) <= most(trials)


def sweep(generator, run, chances, temperatures, samples=4, forms=6):
    """A policy's answers to prompts: right by chance, each right one in one of several forms, more evenly where it is hot."""
    for temperature in temperatures:
        right = (
            generator.random((len(chances), samples)) < (chances * np.exp(0.3 - 0.6 * temperature))[:, None]
        )
        weights = np.exp(-np.arange(forms) / temperature)
        form = generator.choice(forms, p=weights / weights.sum(), size=right.shape)
        diversity = [100.0 - 15 * len(set(own)) + generator.normal(0, 3) for own in form]
        values = {"accuracy": right.mean(axis=1).tolist(), "self_bleu": diversity}
        yield front.Cell(run, 0, temperature, {}, values)


@pytest.mark.parametrize(
    "trials", [pytest.param(60, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.soak)]
)
@pytest.mark.parametrize(("prompts", "rate"), [(10, 0.3), (20, 0.05), (20, 0.8), (60, 0.03)])
def test_few_verdicts_find_a_difference_between_equal_policies(prompts, rate, trials):
    """Two sweeps of one policy: few prompts, rare right answers and frequent ones; and the area's interval holds 0."""
    alarms, held = [], []
    for trial in range(trials):
        generator = np.random.default_rng((trial, prompts))
        chances = np.clip(2 * rate * generator.beta(1, 1, prompts), 0, 1)
        cells = [cell for run in ("a", "b") for cell in sweep(generator, run, chances, (0.5, 1.0, 1.5))]
        text = comparison.verdict(cells, diversity="self_bleu")
        alarms.append("lies above" in text or "partly above" in text or "curves cross" in text)
        found = comparison.compare(*front.curves(cells), diversity="self_bleu")
        if found is not None and found.area.low is not None:
            held.append(found.area.low <= 0 <= found.area.high)
    assert np.mean(alarms) <= most(trials)
    assert len(held) < 20 or np.mean(held) >= least(len(held))


def test_shares_of_damaged_answers_over_seeds():
    """Three seeds reward the same damaged answers, mostly alike: the interval by answer covers, the one by case does not."""
    generator, trials, share, answers_ = np.random.default_rng(0), 400, 0.8, 30
    by_answer, by_case = [], []
    for _ in range(trials):
        alike = generator.random(answers_) < share
        own = np.where(generator.random((3, answers_)) < 0.9, alike, generator.random((3, answers_)) < share)
        low, high = mean_interval(own.mean(axis=0))
        by_answer.append(low <= share <= high)
        low, high = share_interval(own.ravel().tolist())
        by_case.append(low <= share <= high)
    assert np.mean(by_answer) >= least(trials) > 0.8 > np.mean(by_case)


def test_reranking_by_a_score_that_knows_nothing():
    """Best of four by a random score against the first sample: the interval of the difference by prompt holds 0."""
    generator, trials, held = np.random.default_rng(0), 400, []
    for _ in range(trials):
        right = generator.random((40, 4)) < generator.beta(1, 3, 40)[:, None]
        best = np.take_along_axis(right, generator.integers(0, 4, (40, 1)), axis=1)[:, 0]
        low, high = bootstrap_interval(best.astype(float) - right.mean(axis=1), draws=500)
        held.append(low is None or low <= 0 <= high)
    assert np.mean(held) >= 1 - most(trials)
