"""lmirl killed by SIGKILL at random moments of its commands: the same command then leaves what an uninterrupted run leaves."""

import importlib.util
import sys

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
KINDS = ("train", "save", "evaluate", "sample", "score", "convert")


@pytest.fixture(scope="module")
def kills(repository):
    """benchmarks/kills.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("kills", repository / "benchmarks/kills.py")
    module = sys.modules["kills"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["kills"]


@pytest.fixture(scope="module")
def study(kills, tmp_path_factory):
    """The uninterrupted commands, with which each killed one is compared."""
    return kills.Study(tmp_path_factory.mktemp("kills"))


def test_each_kind_is_killed(kills):
    assert tuple(kills.KINDS) == KINDS


@pytest.mark.parametrize(("kind", "seed"), [*((kind, 0) for kind in KINDS), ("train", 1), ("save", 1)])
def test_a_killed_command_leaves_what_an_uninterrupted_one_leaves(study, kind, seed):
    assert study.kill(kind, seed)["killed"]


@pytest.mark.soak
@pytest.mark.parametrize("number", range(8, 50))
def test_fifty_kills(study, number):
    study.kill(KINDS[number % len(KINDS)], 2 + number // len(KINDS))
