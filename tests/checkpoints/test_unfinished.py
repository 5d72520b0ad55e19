"""A checkpoint that is not finished is told of and passed over, wherever a newest one is looked for."""

import shutil

import pytest
from etils import epath

from lmirl_jax import checkpoints, runs
from lmirl_jax.types import UserError
from tests.fakes import make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("unfinished") / "run")


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def without_what_is_written_last(folder):
    """As where a save into a bucket was interrupted, which has no renaming."""
    for name in ("content_hashes.json", "commit_success.txt"):
        (folder / name).unlink()


@pytest.fixture(params=[empty, without_what_is_written_last])
def run(request, whole, tmp_path):
    """A run with a finished checkpoint of step 3 and one of step 99 that is not."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    shutil.copytree(folder / "checkpoints/3", folder / "checkpoints/99")
    request.param(folder / "checkpoints/99")
    return folder


def test_an_unfinished_checkpoint_is_passed_over(run, caplog):
    assert checkpoints.find_checkpoint(str(run)).name == "3"
    (line,) = caplog.messages
    assert line == f"unfinished checkpoints in {run}/checkpoints: 99; 3 is the newest that is"
    assert runs.load(str(run)).checkpoint.name == "3"


def test_naming_an_unfinished_checkpoint_is_an_error(run):
    with pytest.raises(
        UserError, match=r"checkpoints/99 is not finished: name another, or .*/run for the newest"
    ):
        checkpoints.find_checkpoint(str(run / "checkpoints/99"))


def test_a_run_continues_from_a_finished_checkpoint_and_may_save_that_step_again(run, caplog):
    saved = checkpoints.Checkpoints(epath.Path(run), checkpoints.CheckpointConfig())
    assert saved.latest_step() == 3
    assert (
        f"{run}/checkpoints/99 is not finished: it is renamed to unfinished-99, and training goes on from 3"
        in caplog.text
    )
    saved.close()
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["3", "unfinished-99"]


def test_unfinished_checkpoints_alone_are_no_checkpoint(tmp_path):
    (tmp_path / "checkpoints/5").mkdir(parents=True)
    assert not checkpoints.has_checkpoints(str(tmp_path))
    with pytest.raises(UserError, match="no checkpoint at "):
        checkpoints.find_checkpoint(str(tmp_path))
