"""A run that seems to hang prints every thread's stack, and what it waits for."""

import threading
import time

from lmirl_jax import training
from lmirl_jax.training.watchdog import Watchdog
from tests.training.fakes import FakeData, FakeIterator
from tests.training.test_loop import train


class StuckIterator(FakeIterator):
    def __next__(self):
        if self._next == 2:
            wait_for_the_third_batch()
        return super().__next__()


class StuckData(FakeData):
    def iterator(self, rows):
        return StuckIterator(self.batch_size, rows)


def wait_for_the_third_batch():
    time.sleep(1.5)


def test_a_wait_for_data_is_said_with_all_stacks(tmp_path, capfd):
    stuck = training.FaultConfig(watchdog_seconds=0.3)
    train(tmp_path, 3, data=StuckData(), faults=stuck)
    said = capfd.readouterr().err
    report = said[said.index("s for: data") :]
    assert "in wait_for_the_third_batch" in report and "in run_steps" in report
    # The stack of the watchdog's own thread shows that they are those of all threads.
    assert "watchdog.py" in report
    # After 0.3, 0.6 and 1.2 seconds, unless the machine is slow.
    assert 1 <= said.count("s for: data") <= 3
    assert not [thread for thread in threading.enumerate() if thread.name == "lmirl watchdog"]


def test_only_the_phase_that_lasts_is_said(capfd):
    watchdog = Watchdog(0.4)
    with watchdog.at("evaluation"):
        for _ in range(8):
            with watchdog.at("checkpoint"):
                time.sleep(0.1)
        assert "for:" not in capfd.readouterr().err
        time.sleep(0.6)
    watchdog.close()
    said = capfd.readouterr().err
    assert said.count("s for: evaluation") == 1 and "checkpoint" not in said


def test_none_is_off():
    watchdog = Watchdog(None)
    with watchdog.at("data"):
        assert not [thread for thread in threading.enumerate() if thread.name == "lmirl watchdog"]
    watchdog.close()
