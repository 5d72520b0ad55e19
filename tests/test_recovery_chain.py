"""Online IQLearn learns to come back from states that no demonstration shows; where nothing leads back it ties."""

import importlib.util
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="module")
def bench(repository):
    """benchmarks/recovery_chain.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(
        "recovery_chain", repository / "benchmarks/recovery_chain.py"
    )
    module = sys.modules["recovery_chain"] = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "benchmarks"))  # As for a script that is run.
        spec.loader.exec_module(module)
    yield module
    del sys.modules["recovery_chain"]


def test_the_experts_success_by_hand(bench):
    """A step leads astray with probability 0.1 * 2/4, and from there 0.9 + 0.1/4 of the time back."""
    for recovery, expected in ((False, 0.95**10), (True, (0.95 / (1 - 0.05 * 0.925)) ** 10)):
        chain = bench.Chain(recovery=recovery)
        found = bench.success_probability(chain.next_states(), jnp.asarray(chain.expert_logits()))
        np.testing.assert_allclose(found, expected, rtol=1e-4)  # The horizon cuts off 1 episode in 100,000.


@pytest.mark.parametrize("astray_ends", [True, False])
def test_episodes_agree_with_the_exact_probability(bench, astray_ends):
    chain = bench.Chain(astray_ends=astray_ends)
    case = bench.case_of(chain, bench.Training(discount=0.9))
    logits = jnp.tile(jnp.array([1.0, 1.0, 0.0, 0.0]), (bench.STATES, 1))
    draws = bench.uniform(2, bench.HORIZON, 2, 4000)
    episodes = jax.tree.map(np.asarray, bench.run_episodes(case, logits, draws))
    ends = (episodes.weights == 1) & (episodes.discounts == 0) & (episodes.td_weights == 1)
    cut = ~ends.any(axis=1)
    # Where the line ends, success is the only end that is one step away.
    succeeded = (ends & (episodes.states == bench.SUCCESS - 2)).any(axis=1)
    exact = bench.success_probability(case.next_states, logits)
    np.testing.assert_allclose(succeeded.mean(), exact, atol=0.025)
    assert cut.any() and not cut.all()
    np.testing.assert_array_equal(episodes.td_weights[cut, -1], 0.0)  # Cut off at the horizon, not ended.
    np.testing.assert_allclose(np.unique(episodes.discounts), [0.0, 0.9], rtol=1e-6)


@pytest.fixture(scope="module")
def with_recovery(bench) -> dict:
    return bench.compare(bench.Chain(), bench.Training(alpha=0.1))


def test_online_beats_offline_where_there_is_a_way_back(with_recovery):
    """By more than the 11% that the paper's appendix A.3.3 states of its own chain."""
    mean, low, _ = with_recovery["online_less_offline"]
    assert mean > 0.11 and low > 0.05, with_recovery
    assert abs(with_recovery["offline"]["success"] - with_recovery["mle"]["success"]) < 0.01


def test_they_tie_where_there_is_none(bench):
    without = bench.compare(bench.Chain(recovery=False), bench.Training(alpha=0.1))
    assert np.abs(without["online_less_offline"]).max() < 0.005, without


def test_it_is_the_value_of_the_next_state_that_teaches_recovery(bench, with_recovery):
    """States that no demonstration shows stay at a guess, 1 in 4, offline; and online where the discount is 0."""
    assert with_recovery["mle"]["recovery_unseen"] == 0.25
    assert with_recovery["offline"]["recovery_unseen"] == 0.25
    assert with_recovery["online"]["recovery_unseen"] > 0.6
    blind = bench.study(bench.Chain(), bench.Training(alpha=0.1, discount=0.0))
    assert abs(blind["recovery_unseen"] - 0.25) < 0.05
