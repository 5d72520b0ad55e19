"""A damaged checkpoint: found by the file, whatever is wrong with it; `train` uses the one before, and readers refuse it."""

import functools
import json
import logging
import os
import pathlib
import re
import shutil
import types

import jax
import numpy as np
import pytest
from etils import epath

from lmirl_jax import checkpoints, content_hashes, objectives, sharding, training
from lmirl_jax.checkpoints import commit, manifest
from lmirl_jax.checkpoints.newest import keep_newest_whole
from lmirl_jax.cli.checkpoint_report import describe_checkpoint
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_params
from lmirl_jax.types import UserError
from tests.training.fakes import TINY, FakeData, mesh_of

MESH = functools.partial(mesh_of, 1, 1, 1, 1)


def train(model_dir, train_steps=4, **changes):
    settings = {
        "model": TINY,
        "learner": training.Offline(objectives.mle),
        "optimizer": training.adamw(1e-2),
        "data": FakeData(2),
        "mesh": MESH(),
        "checkpoint": training.CheckpointConfig(period=2),
        "tensorboard": False,
    }
    return training.train(model_dir=str(model_dir), train_steps=train_steps, **settings | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with checkpoints of steps 2 and 4, and its last parameters."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    return folder, jax.device_get(train(folder).params)


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def read(path):
    """As every reader of a run does."""
    key = jax.random.key(0)
    variables = build(TINY)[1]
    shapes = jax.eval_shape(functools.partial(init_params, TINY), key)
    found = checkpoints.find_checkpoint(str(path))
    return checkpoints.load_params(found, shapes, sharding.parameter_shardings(MESH(), variables))


def lines(model_dir):
    """Those of metrics.jsonl, without times."""
    found = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in found]


def files_of(checkpoint: pathlib.Path) -> list[str]:
    return sorted(str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file())


def array_file(checkpoint: pathlib.Path) -> str:
    """The largest file, which holds arrays."""
    return max(files_of(checkpoint), key=lambda name: (checkpoint / name).stat().st_size)


def truncate(checkpoint, name):
    os.truncate(checkpoint / name, (checkpoint / name).stat().st_size - 1)


def delete(checkpoint, name):
    (checkpoint / name).unlink()


def flip_a_bit(checkpoint, name):
    content = bytearray((checkpoint / name).read_bytes())
    content[len(content) // 2] ^= 1
    (checkpoint / name).write_bytes(content)


def add_a_file(checkpoint, name):
    (checkpoint / name).with_name("copy").write_bytes((checkpoint / name).read_bytes())


def add_a_folder(checkpoint, name):
    (checkpoint / name).with_name("folder").mkdir()


DAMAGES = {
    truncate: r"NAME has [\d,]+ bytes, not [\d,]+",
    delete: "NAME is missing",
    flip_a_bit: r"NAME has changed \(content hash [0-9a-f]{32}, not [0-9a-f]{32}\)",
    add_a_file: "FOLDERcopy does not belong there",
    add_a_folder: "FOLDERfolder/ is an empty folder",
}


def expected(damage, name):
    """The pattern of the line that tells it, for a file but that of the hashes."""
    folder = name.rpartition("/")[0]
    pattern = DAMAGES[damage].replace("FOLDER", f"{folder}/" if folder else "")
    return pattern.replace("NAME", name)


@pytest.mark.parametrize("damage", [truncate, delete, flip_a_bit])
def test_damage_to_any_file_is_found_told_and_refused(run, damage, caplog):
    """By all who read: the comparison itself, doctor, a reader, and the choice of the checkpoint that `train` goes on from."""
    newest, kept = run / "checkpoints/4", run.parent / "kept"
    shutil.copytree(newest, kept)
    names = files_of(newest)
    assert len(names) > 10 and content_hashes.NAME in names
    for name in names:
        damage(newest, name)
        pattern = expected(damage, name)
        if name == content_hashes.NAME:
            pattern = f"{name} is missing" if damage is delete else f"{name} is damaged"
        (problem,) = checkpoints.problems(epath.Path(newest))
        assert re.fullmatch(pattern, problem), problem
        assert describe_checkpoint(str(run))[1] == [
            problem,
            f"name {run}/checkpoints/2, the newest whole one before it",
        ]
        for path in (run, newest):
            with pytest.raises(UserError) as caught:
                read(path)
            assert str(caught.value) == (
                f"the checkpoint {newest} is damaged: {problem}: name {run}/checkpoints/2, the newest whole one before it"
            )
        caplog.clear()
        assert keep_newest_whole(epath.Path(run / "checkpoints")) == 2
        assert caplog.messages == [
            f"the checkpoint {newest} is damaged ({problem}): it is renamed to damaged-4, and training goes on from 2"
        ]
        shutil.rmtree(run / "checkpoints/damaged-4")
        shutil.copytree(kept, newest)
    read(run)


@pytest.mark.parametrize("damage", [add_a_file, add_a_folder])
def test_what_does_not_belong_there_is_refused(run, damage):
    newest = run / "checkpoints/4"
    for name in ("data/metadata", "commit_success.txt"):
        damage(newest, name)
        (problem,) = checkpoints.problems(epath.Path(newest))
        assert problem == expected(damage, name)
        with pytest.raises(UserError, match=f"{newest} is damaged: {problem}: name {run}/checkpoints/2"):
            read(run)
        shutil.rmtree(newest)
        shutil.copytree(run / "checkpoints/2", newest)


def test_a_checkpoint_without_any_of_its_files_is_not_finished(run, caplog):
    newest = run / "checkpoints/4"
    shutil.rmtree(newest)
    newest.mkdir()
    assert checkpoints.find_checkpoint(str(run)).name == "2"
    assert "unfinished checkpoints in" in caplog.text
    with pytest.raises(UserError, match="is not finished"):
        read(newest)


@pytest.mark.parametrize("damage", [truncate, delete, flip_a_bit, add_a_file, add_a_folder, None])
def test_training_goes_on_from_the_one_before_as_if_the_damaged_had_never_been(
    whole, run, damage, caplog, capfd
):
    newest = run / "checkpoints/4"
    name = array_file(newest)
    if damage is None:
        shutil.rmtree(newest)
        newest.mkdir()
        aside, why = "unfinished-4", "is not finished"
    else:
        damage(newest, name)
        aside, why = "damaged-4", rf"is damaged \({expected(damage, re.escape(name))}\)"
    state = train(run)
    (warning,) = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    told = f"the checkpoint {newest} {why}: it is renamed to {aside}, and training goes on from 2"
    assert re.fullmatch(told, warning)
    assert f"resuming {run} from its checkpoint at step 2" in capfd.readouterr().err
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), whole[1])
    assert lines(run) == lines(whole[0]) and [line["step"] for line in lines(run)] == [1, 2, 3, 4]
    assert sorted(os.listdir(run / "checkpoints")) == ["2", "4", aside]
    assert not checkpoints.problems(epath.Path(newest))


@pytest.mark.parametrize("damage", [truncate, delete, flip_a_bit, shutil.rmtree])
def test_with_none_left_nothing_starts_over_the_ruins(run, damage):
    for step in (2, 4):
        checkpoint = run / f"checkpoints/{step}"
        if damage is shutil.rmtree:
            shutil.rmtree(checkpoint)
            checkpoint.mkdir()
        else:
            damage(checkpoint, array_file(checkpoint))
    before = sorted(map(str, run.rglob("*"))), lines(run)
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"no checkpoint in .* is whole: .*checkpoints/4 is .*; nothing"
        ) as caught:
            train(run)
        assert "\n" not in str(caught.value) and f"delete {run}/checkpoints to start anew" in str(
            caught.value
        )
        assert (sorted(map(str, run.rglob("*"))), lines(run)) == before
    with pytest.raises(UserError, match=r"no whole one lies before it|no checkpoint at"):
        read(run)


def test_what_was_set_aside_is_a_ruin_too(run):
    """The newest was damaged, and later the one before it."""
    flip_a_bit(run / "checkpoints/4", array_file(run / "checkpoints/4"))
    assert keep_newest_whole(epath.Path(run / "checkpoints")) == 2
    shutil.rmtree(run / "checkpoints/2")
    with pytest.raises(
        UserError, match="is whole: all are set aside as damaged; nothing is trained over them"
    ):
        keep_newest_whole(epath.Path(run / "checkpoints"))


def test_a_run_inherits_from_the_checkpoint_that_it_goes_on_from(run):
    """Before it opens its checkpoints, `train` reads what the newest says of itself: then of the one before."""
    flip_a_bit(run / "checkpoints/4", "data/metadata")
    assert checkpoints.resumable_checkpoint(str(run)).name == "2"
    flip_a_bit(run / "checkpoints/2", "state/_METADATA")
    with pytest.raises(
        UserError, match=r"checkpoints/4 is damaged: data/metadata has changed .* no whole one"
    ):
        checkpoints.resumable_checkpoint(str(run))


def test_a_rollback_reads_no_damaged_checkpoint(run):
    saved = checkpoints.Checkpoints(epath.Path(run), training.CheckpointConfig())
    nothing = types.SimpleNamespace(params=None, extra=None)
    flip_a_bit(run / "checkpoints/2", array_file(run / "checkpoints/2"))
    with pytest.raises(UserError, match=r"checkpoints/2 is damaged: .* no whole one lies before it"):
        saved.restore(2, nothing, nothing)
    saved.close()


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("hashed", [False, True])
def test_the_last_whole_checkpoint_outlives_a_save_that_is_cut_short(
    whole, tmp_path, monkeypatch, asynchronous, hashed
):
    """With one checkpoint kept: killed when Orbax has written its own mark, before the hashes or just after them."""
    settings = {"checkpoint": training.CheckpointConfig(2, keep=1, asynchronous=asynchronous)}
    complete = manifest.complete

    def die(folder):
        if folder.name.startswith("4"):
            assert (folder / "commit_success.txt").is_file()
            if hashed:
                complete(folder)
            raise Killed
        complete(folder)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(manifest, "complete", die)
        train(tmp_path, **settings)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()] == ["2"]
    state = train(tmp_path, **settings)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), whole[1])
    assert os.listdir(tmp_path / "checkpoints") == ["4"] and lines(tmp_path) == lines(whole[0])


def test_processes_share_the_hashing_and_the_comparison(run, monkeypatch):
    """Each hashes the arrays that it has written, and compares a share; together they do what one does."""
    checkpoint, state = epath.Path(run / "checkpoints/4"), run / "checkpoints/4/state"
    shutil.copytree(state / "ocdbt.process_0", state / "ocdbt.process_1")
    alone = content_hashes.hash_files(checkpoint, content_hashes.files_below(checkpoint))
    hashed = []
    count = content_hashes.content_hash
    monkeypatch.setattr(content_hashes, "content_hash", lambda file: hashed.append(str(file)) or count(file))
    for index in (0, 1, 2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        commit._HashedAfterwards([], epath.Path(state)).result()
        assert all(f"ocdbt.process_{index}/" in file for file in hashed) and bool(hashed) == (index < 2)
        hashed.clear()
    manifest.complete(checkpoint)
    assert not any("ocdbt" in file.removesuffix("manifest.ocdbt") for file in hashed)
    assert content_hashes.read_hashes(checkpoint) == alone
    assert not [name for name in os.listdir(checkpoint) if name.startswith(manifest.PART)]
    for name in ("state/_METADATA", "data/metadata", "state/ocdbt.process_1/manifest.ocdbt"):
        flip_a_bit(pathlib.Path(checkpoint), name)
    everything = manifest.problems(checkpoint)
    monkeypatch.setattr(manifest, "_joined", lambda found: found)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    shares = []
    for index in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        shares.append(manifest.problems(checkpoint))
    assert len(everything) == 3 and sorted(shares[0] + shares[1]) == sorted(everything)


def test_all_processes_learn_of_what_one_has_found(monkeypatch):
    long = ["x" * 5000, "y" * 5000, "z" * 5000]

    def gather(message):
        others = json.dumps(["b is missing", "a is missing"]).encode()
        return np.stack([message, np.frombuffer(others.ljust(manifest.TEXT, b"\0"), np.uint8)])

    monkeypatch.setattr(manifest.multihost_utils, "process_allgather", gather)
    assert manifest._joined(["a is missing"]) == ["a is missing", "b is missing"]
    assert manifest._joined([]) == ["b is missing", "a is missing"]
    assert manifest._joined(long) == [long[0], "b is missing", "a is missing"]


def test_a_bucket_has_its_hashes_last(tmp_path, monkeypatch):
    """There a checkpoint is written in its place, and is finished when its hashes are there."""
    monkeypatch.setattr(commit, "temporary_path_class", None)
    monkeypatch.setattr(
        "lmirl_jax.checkpoints.save.temporary_path_class", lambda folder: commit.InPlaceWithHashes
    )
    train(tmp_path, 2)
    checkpoint = epath.Path(tmp_path / "checkpoints/2")
    assert not checkpoints.problems(checkpoint) and (checkpoint / "commit_success.txt").is_file()
    assert checkpoints.find_checkpoint(str(tmp_path)) == checkpoint


def test_the_best_checkpoint_is_compared_too_and_may_be_gone(run):
    (run / "checkpoints/4/best").mkdir()
    (run / "checkpoints/4/best/metadata").write_text(json.dumps({"step": 2}))
    content_hashes.write_hashes(run / "checkpoints/4")
    best = run / "checkpoints/best"
    flip_a_bit(run / "checkpoints/2", "data/metadata")
    with pytest.raises(UserError, match=r"checkpoints/2 is damaged: data/metadata has changed"):
        read(best)
    shutil.rmtree(run / "checkpoints/2")
    with pytest.raises(
        UserError, match=r"the best checkpoint, .*/2, is gone or not finished: name .*/4, the newest"
    ):
        read(best)


def test_the_model_that_is_shipped_is_whole(repository):
    assert content_hashes.problems(repository / "tasks/number_paths_model/checkpoints/3000") == []
