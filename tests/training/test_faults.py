"""Values that are not finite, and spikes of the loss: what is left out, what is saved, and that resuming is exact."""

import dataclasses
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import objectives, training
from lmirl_jax.training.finite import check_finite
from lmirl_jax.training.state import TrainState
from lmirl_jax.training.suspect_batch import read_batch
from lmirl_jax.types import UserError
from tests.training.fakes import FakeData, FakeIterator, make_batch
from tests.training.test_loop import metrics, train, without_times

SKIP = training.FaultConfig("skip", max_nonfinite_updates=2)


class ChangedIterator(FakeIterator):
    """Batches by their number from 0, some of which are changed."""

    def __init__(self, data, rows):
        super().__init__(data.batch_size, rows)
        self._data = data

    def __next__(self):
        if self._next in self._data.failures:
            self._data.failures.remove(self._next)
            raise _Killed
        number = self._next
        batch = super().__next__()
        if number in self._data.poisoned:
            batch.weights[0, 0] = np.inf
        if number in self._data.spikes:
            batch.discounts[:] = 9.0
        return batch


class ChangedData(FakeData):
    def __init__(self, poisoned=(), spikes=(), failures=()):
        super().__init__()
        self.poisoned, self.spikes, self.failures = poisoned, spikes, list(failures)

    def iterator(self, rows):
        return ChangedIterator(self, rows)

    def decode_inputs(self, tokens):
        return " ".join(map(str, tokens))

    decode = decode_inputs


class _Killed(Exception):
    pass


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    with pytest.raises(
        UserError, match=r"loss at step 2 is nan: nothing of it was saved;.*nonfinite/step-2.npz"
    ):
        train(tmp_path, data=ChangedData(poisoned=[1]))
    assert os.listdir(tmp_path / "checkpoints") == []
    assert [line["step"] for line in metrics(tmp_path)] == [1]
    saved, given = read_batch(str(tmp_path / "nonfinite/step-2.npz")), make_batch(1, 16)
    given.weights[0, 0] = np.inf
    same(saved, given)
    lines = [json.loads(line) for line in (tmp_path / "nonfinite/step-2.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(16))
    length = int(np.sum(given.segment_ids[0] > 0))
    assert lines[0]["target_ids"] == given.tokens[0, :length].tolist()
    assert lines[0]["targets"] == " ".join(map(str, given.tokens[0, :length]))
    assert lines[0]["weights"] == ["inf"] + [1.0] * (length - 1)


def test_an_update_that_is_not_finite_is_left_out(tmp_path):
    """Parameters and optimizer are those of the step before, the data and the count of steps go on, and so after a resume."""
    data, config = ChangedData(poisoned=[1]), training.CheckpointConfig(period=1, keep=None)
    first = train(tmp_path / "whole", 1, data=data, checkpoint=config, faults=SKIP)
    second = train(tmp_path / "whole", 2, data=data, checkpoint=config, faults=SKIP)
    same((second.params, second.opt_state), (first.params, first.opt_state))
    assert int(second.step) == 2
    resumed = train(tmp_path / "whole", data=data, checkpoint=config, faults=SKIP)
    at_once = train(tmp_path / "at_once", data=data, faults=SKIP)
    same(resumed, at_once)
    lines = metrics(tmp_path / "whole")
    assert [line["train/skipped_updates"] for line in lines] == [0, 1, 1, 1]
    assert ["train/loss" in line for line in lines] == [True, False, True, True]
    assert without_times(lines) == without_times(metrics(tmp_path / "at_once"))


@pytest.mark.e2e
@pytest.mark.default_compiler
def test_without_such_values_both_settings_train_the_same(tmp_path):
    same(train(tmp_path / "stop", 2), train(tmp_path / "skip", 2, faults=SKIP))
    assert "train/skipped_updates" not in metrics(tmp_path / "stop")[0]


def test_the_limit_is_of_updates_in_a_row(tmp_path):
    """As of `optax.apply_if_finite`: two are left out, and the third in a row is not taken."""
    train(tmp_path / "twice", data=ChangedData(poisoned=[0, 1, 3]), faults=SKIP)
    with pytest.raises(UserError, match=r"the loss at step 3 is nan, after 2 updates in a row"):
        train(tmp_path / "thrice", data=ChangedData(poisoned=[0, 1, 2]), faults=SKIP)


def finite_loss(soft_q):
    """Its value is mle's, and the derivative of its root at 0 is not a number."""
    return objectives.mle(soft_q) + jnp.sqrt(jnp.maximum(0.0 * soft_q.q, 0.0))


def test_a_gradient_that_is_not_finite_is_one_too(tmp_path):
    with pytest.raises(UserError, match="the gradient norm at step 1 is nan"):
        train(tmp_path, 1, learner=training.Offline(finite_loss))


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, False),
        ({"loss": jnp.inf}, True),
        ({"gradient_norm": jnp.nan}, True),
        ({"value/gradient_norm": jnp.inf}, True),
        # Metrics of nothing are undefined, and no fault.
        ({"value/loss": jnp.nan}, False),
    ],
)
def test_all_networks_are_kept_together(changed, kept):
    def step(state, batch):
        metrics = {name: jnp.float32(1) for name in ("loss", "gradient_norm", "value/gradient_norm")}
        return jax.tree.map(lambda x: x + 1, state), metrics | changed

    critic = TrainState(jnp.int32(3), {"w": jnp.ones(2)}, {"m": jnp.zeros(2)})
    state = TrainState(jnp.int32(5), {"w": jnp.ones(3)}, {"m": jnp.zeros(3)}, {"value": critic})
    added = jax.tree.map(lambda x: x + 1, state)
    for skip in (True, False):
        new, metrics = jax.jit(check_finite(step, skip))(state, make_batch(0, 2))
        same(new, dataclasses.replace(state, step=added.step) if kept and skip else added)
        assert float(metrics["nonfinite"]) == kept


def spiky(soft_q, discounts):
    """The likelihood; 100 more where a batch is marked by discounts above 1."""
    return objectives.mle(soft_q) + 100.0 * (discounts > 1)


SPIKES = training.FaultConfig(spike_factor=3.0, max_rollbacks=2)
SPIKY = {"learner": training.Offline(spiky), "checkpoint": training.CheckpointConfig(period=4)}


class LeftOut(FakeIterator):
    """Without batches 12 and 13, from the start."""

    def __next__(self):
        if self._next == 12:
            self._next = 14
        return super().__next__()


class LeftOutData(FakeData):
    def iterator(self, rows):
        return LeftOut(self.batch_size, rows)


def test_a_spike_goes_back_and_leaves_out_the_data_also_after_a_kill(tmp_path, capfd):
    """The oracle never sees the two batches. Killed before the next checkpoint, the run goes on as it would."""
    expected = train(tmp_path / "expected", 18, data=LeftOutData(), **SPIKY)
    data = ChangedData(spikes=[13], failures=[15])
    with pytest.raises(_Killed):
        train(tmp_path / "run", 18, data=data, faults=SPIKES, **SPIKY)
    said = capfd.readouterr().err
    assert "goes back to step 12 and leaves out the data of 2 updates (32 rows)" in said
    assert [line["step"] for line in metrics(tmp_path / "run")] == list(range(1, 13))
    # Were the position that of the checkpoint again, the spike would be met again.
    state = train(tmp_path / "run", 18, data=data, faults=SPIKES, **SPIKY)
    assert "goes back" not in capfd.readouterr().err
    same(state, expected)
    assert without_times(metrics(tmp_path / "run")) == without_times(metrics(tmp_path / "expected"))
    # A line of a checkpoint that is not the newest is of a future that did not come.
    train(tmp_path / "run", 19, data=data, faults=SPIKES, **SPIKY)
    assert len((tmp_path / "run/rollbacks.jsonl").read_text().splitlines()) == 1


def test_a_run_goes_back_a_few_times_only(tmp_path):
    """From the start of the run, as nothing is saved yet."""
    config = SPIKY | {"checkpoint": training.CheckpointConfig(period=100)}
    data = ChangedData(spikes=[10, 21, 32])
    with pytest.raises(UserError, match=r"loss at step 11 is .* gone back 2 times already \(MAX_ROLLBACKS\)"):
        train(tmp_path, 18, data=data, faults=SPIKES, **config)
    records = [json.loads(line) for line in (tmp_path / "rollbacks.jsonl").read_text().splitlines()]
    assert [record["position"]["batches"]["next_batch"] for record in records] == [11, 22]
    assert [record["checkpoint"] for record in records] == [0, 0]
