"""Which evaluation is the best, counted by hand; and the one line for what cannot be."""

import json
import math

import pytest

from lmirl_jax.training.best import Best, BestConfig
from lmirl_jax.types import UserError


def follow(best: Best, values):
    """Evaluations at steps 10, 20, ..: for each whether it is the best so far."""
    return [best.update(10 * (i + 1), {"eval/x": value}) for i, value in enumerate(values)]


def test_the_highest_and_the_first_of_equals():
    best = Best(BestConfig("eval/x"))
    assert follow(best, [0.2, 0.5, 0.5, 0.4, 0.6]) == [True, True, False, False, True]
    assert (best.step, best.value) == (50, 0.6)
    assert not best.exhausted
    assert best.describe() == "highest eval/x 0.6 at step 50"


@pytest.mark.parametrize(
    ("metric", "mode", "sign"),
    [
        ("eval/loss", None, -1),
        ("eval/loss_mle", None, -1),
        ("eval/task/sampled/self_bleu", None, -1),
        ("eval/loss_task/accuracy", None, 1),
        ("eval/task/bleu", None, 1),
        ("eval/loss", "max", 1),
        ("eval/task/bleu", "min", -1),
    ],
)
def test_the_direction_is_given_or_follows_from_the_name(metric, mode, sign):
    assert BestConfig(metric, mode).sign == sign


def test_patience_counts_evaluations_without_a_better_one():
    best = Best(BestConfig("eval/x", "min", patience=2))
    assert follow(best, [3.0, 2.0, 2.5]) == [True, True, False] and not best.exhausted
    assert not best.update(40, {"eval/x": 2.0}) and best.exhausted
    assert best.describe_patience() == "2 evaluations in a row without a better eval/x"


def test_small_gains_are_kept_but_do_not_buy_time():
    """3, 2.9, 2.8 and 2.7 with a margin of 0.25: each is the best, and the last alone beats 3 by enough."""
    best = Best(BestConfig("eval/x", "min", patience=3, min_delta=0.25))
    assert follow(best, [3.0, 2.9, 2.8]) == [True] * 3
    assert best.state()["since"] == 2 and best.value == 2.8
    assert best.describe_patience() == "2 evaluations in a row without a better eval/x by more than 0.25"
    best.update(40, {"eval/x": 2.7})
    assert best.state()["since"] == 0 and best.step == 40


@pytest.mark.parametrize("undefined", [{}, {"eval/x": math.nan}, {"eval/x": math.inf}])
def test_an_undefined_value_is_never_better(undefined):
    best = Best(BestConfig("eval/x", patience=2))
    assert not best.update(10, undefined) and best.step is None
    assert best.describe() == "eval/x was undefined in every evaluation"
    assert best.update(20, {"eval/x": 0.0}) and not best.exhausted
    assert not best.update(30, undefined) and not best.update(40, undefined)
    assert best.exhausted and best.step == 20


def test_the_state_goes_through_json_and_belongs_to_one_metric():
    config = BestConfig("eval/x", patience=3)
    one = Best(config)
    follow(one, [0.1, 0.3, 0.2, 0.25])
    other = Best(config)
    other.set_state(json.loads(json.dumps(one.state())))
    assert other.state() == one.state() and other.step == 20
    assert not other.update(50, {"eval/x": 0.3}) and other.exhausted
    for changed in (BestConfig("eval/y"), BestConfig("eval/x", "min")):
        anew = Best(changed)
        anew.set_state(one.state())
        assert anew.step is None
    assert Best(BestConfig()).state() is None and not Best(BestConfig()).update(1, {"eval/x": 1.0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric": ""}, "metric='' must be a text"),
        ({"metric": "x", "mode": "best"}, "mode='best' must be 'max' or 'min', or None"),
        ({"metric": "x", "patience": 0}, "patience=0 must be a whole number of 1 or more"),
        ({"metric": "x", "patience": -1}, "patience=-1 must be a whole number of 1 or more"),
        ({"metric": "x", "min_delta": -0.1}, "min_delta=-0.1 must be a number of 0 or more"),
        ({"patience": 3}, "EARLY_STOPPING_PATIENCE=3 needs a metric to watch: set BEST_METRIC"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UserError, match=message):
        BestConfig(**settings)


def test_a_metric_that_no_evaluation_has():
    known = ["eval/loss", "eval/task/accuracy"]
    BestConfig().check([])
    BestConfig("eval/loss").check(known)
    with pytest.raises(UserError, match=r"of this run's evaluations: did you mean 'eval/task/accuracy'\?$"):
        BestConfig("eval/task/acuracy").check(known)
    with pytest.raises(UserError, match=r"evaluations: they have eval/loss, eval/task/accuracy$"):
        BestConfig("zzz").check(known)
    with pytest.raises(UserError, match="nothing to be measured on: there is no validation split"):
        BestConfig("eval/loss").check([])
