"""How often intervals hold the truth, and verdicts are wrong where there is nothing to find: what evidence.py's numbers rest on.

Each trial is a data set of its own from a fixed seed. Intervals that are not given do not count: an interval that is declined
misleads no one. Limits allow for the error of so many trials (two standard errors below .90, or above .05).
"""

import numpy as np
import pytest

from lmirl_jax.evaluation.bootstrap import bootstrap_interval
from lmirl_jax.evaluation.correlations import correlations
from lmirl_jax.evaluation.proportions import mean_interval
from lmirl_jax.evaluation.rank_correlation import POOLED, WITHIN, AnswerTable


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
    truths = {row.scope: row.value for row in _values(large)}
    return rows, truths


def _values(table):
    from lmirl_jax.evaluation.correlation_samples import correlation_sample

    for scope in (POOLED, WITHIN):
        by_seed = correlation_sample([table], ["x"], ["y"], ("spearman", scope), 0, 1).by_seed
        yield type("Row", (), {"scope": scope, "value": float(by_seed[0, 0, 0])})
