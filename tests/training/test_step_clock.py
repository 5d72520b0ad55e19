"""The times of steps, and the useful share of a run's time over two starts, by a clock that the test sets."""

import gzip
import json

import jax
import optax
import pytest
from etils import epath

from lmirl_jax import objectives, training
from lmirl_jax.training import step_clock
from tests.training.fakes import TINY, FakeData, mesh_of

# The operations of an update of `TINY` with 16 rows of 7 + 6 tokens: 6 for each weight of a product and each of its tokens in two
# encoder layers, in two decoder layers, whose keys and values of attention to the prompt are of prompts, and in the output layer;
# 12 for each pair of tokens and unit of the width of all heads.
NEEDED = 6 * (
    2 * (4 * 256 + 3 * 512) * 112 + 2 * ((4 * 256 + 3 * 512 + 2 * 256) * 96 + 2 * 256 * 112) + 16 * 128 * 96
) + 12 * 16 * 16 * (2 * 7 * 7 + 2 * (6 * 6 + 6 * 7))


class Time:
    """Both clocks of Python."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    def monotonic(self):
        return self.now


@pytest.fixture
def time(monkeypatch):
    found = Time()
    monkeypatch.setattr(step_clock, "time", found)
    return found


def test_a_step_takes_the_time_since_the_step_before(tmp_path, time):
    clock = step_clock.StepClock(epath.Path(tmp_path) / "metrics.jsonl")
    time.now += 10  # Compilation.
    assert clock.end_step(100) == {"timing/unix_time": 1010, "timing/wall_seconds": 10, "timing/goodput": 0}
    clock.wait(0.5)
    time.now += 2
    found = clock.end_step(100)
    assert found == {
        "timing/seconds_per_step": 2,
        "timing/steps_per_second": 0.5,
        "timing/target_tokens_per_second": 50,
        "timing/target_tokens_per_second_per_device": 50 / jax.device_count(),
        "timing/data_wait_share": 0.25,
        "timing/unix_time": 1012,
        "timing/wall_seconds": 12,
        "timing/goodput": 1.5 / 12,
    }
    assert "timing/mfu" not in step_clock.StepClock(epath.Path(tmp_path) / "none.jsonl").end_step(100, 1e12)
    # An evaluation of 5 seconds belongs to no step.
    time.now += 5
    clock.begin_step()
    time.now += 1
    found = clock.end_step(100)
    assert found["timing/seconds_per_step"] == 1 and found["timing/goodput"] == 2.5 / 18
    clock.leave_out_step()
    time.now += 1
    assert "timing/seconds_per_step" not in clock.end_step(100)


def test_mfu_is_the_share_of_the_peak_that_the_model_needs(tmp_path, time):
    """8 devices of 100 TFLOP a second, 2 seconds, an update of 400 TFLOP: a quarter."""
    clock = step_clock.StepClock(epath.Path(tmp_path) / "metrics.jsonl", 8 * 100e12)
    assert "timing/mfu" not in clock.end_step(100, 400e12)
    time.now += 2
    assert clock.end_step(100, 400e12)["timing/mfu"] == 0.25
    time.now += 2
    assert "timing/mfu" not in clock.end_step(100, None)


def test_a_run_writes_mfu_where_the_peak_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr("lmirl_jax.sharding.peak_flops", lambda kind: 1e9 if kind == "cpu" else None)
    training.train(
        model_dir=str(tmp_path),
        train_steps=3,
        model=TINY,
        learner=training.Offline(objectives.mle),
        optimizer=optax.sgd(0.1),
        data=FakeData(),
        mesh=mesh_of(1, 1, 1, 1),
        tensorboard=False,
    )
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "timing/mfu" not in lines[0]
    for line in lines[1:]:
        needed = line["timing/mfu"] * line["timing/seconds_per_step"] * 1e9
        assert needed == pytest.approx(NEEDED)


def test_the_useful_share_is_over_all_starts(tmp_path, time):
    """Steps of 1 second: two are kept, one is lost by a kill, 10 seconds later the run starts again and makes it anew."""
    file = tmp_path / "metrics.jsonl"
    clock, lines = step_clock.StepClock(epath.Path(file)), []
    for step in (1, 2, 3):
        lines.append({"step": step, **clock.end_step(8)})
        time.now += 1
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    time.now += 10
    clock = step_clock.StepClock(epath.Path(file))
    clock.end_step(8)
    time.now += 1
    found = clock.end_step(8)
    # From 1000: 1 second to the end of step 2, 2 more for the lost one and its end, 10 away, and 1.
    assert found["timing/wall_seconds"] == 14
    assert found["timing/goodput"] == pytest.approx(2 / 14)


def test_a_clock_that_is_set_back_gives_a_share_of_one_at_most(tmp_path, time, monkeypatch):
    clock = step_clock.StepClock(epath.Path(tmp_path) / "metrics.jsonl")
    clock.end_step(8)
    time.now += 5
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.end_step(8)["timing/goodput"] == 1


def test_steps_are_profiled(tmp_path):
    training.train(
        model_dir=str(tmp_path),
        train_steps=3,
        model=TINY,
        learner=training.Offline(objectives.mle),
        optimizer=optax.sgd(0.1),
        data=FakeData(),
        mesh=mesh_of(1, 1, 1, 1),
        tensorboard=False,
        profile_steps=[2, 2],
    )
    (folder,) = (tmp_path / "plugins/profile").iterdir()
    names = {path.name for path in folder.iterdir()}
    assert any(name.endswith(".xplane.pb") for name in names)
    with gzip.open(folder / "perfetto_trace.json.gz") as file:
        assert json.load(file)["traceEvents"]
