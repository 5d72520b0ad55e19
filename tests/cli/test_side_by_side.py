"""Commands side by side: all of them run, on cores of their own, and the first failure is told in one line."""

import os

import pytest

from lmirl_jax.cli import side_by_side
from lmirl_jax.cli.side_by_side import run_side_by_side
from lmirl_jax.types import UserError

pytestmark = pytest.mark.e2e


def test_every_command_has_cores_of_its_own_and_the_cpu_alone(monkeypatch, capfd):
    code = "import os, sys; print(os.environ['JAX_PLATFORMS'], os.environ['MORE'], *os.sched_getaffinity(0), file=sys.stderr)"
    monkeypatch.setattr(side_by_side, "PROGRAM", ("-c", code))
    run_side_by_side({"one": [], "two": []}, {"MORE": "more"})
    said = dict(line.split(": ", 1) for line in capfd.readouterr().err.splitlines() if "finished" not in line)
    assert sorted(said) == ["one", "two"]
    assert all(line.startswith("cpu more ") for line in said.values())
    cores = [{int(core) for core in line.split()[2:]} for line in said.values()]
    available = os.sched_getaffinity(0)
    assert cores[0] | cores[1] == available or len(cores[0]) == len(cores[1]) == 1
    assert not cores[0] & cores[1] or len(available) == 1


def test_a_failure_is_told_by_its_last_line_and_ends_what_has_not_begun(monkeypatch, capfd):
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {core})
    with pytest.raises(UserError, match=r"^one: .*nonsense"):
        run_side_by_side({"one": ["nonsense"], "two": ["--help"]}, {})
    assert "two" not in capfd.readouterr().err
