"""A policy is loaded as config.gin of its run says, while another configuration is in use, which stays as it was."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import seqio
from etils import epath
from flax import nnx

from lmirl_jax import configuration, content_hashes, data, runs, sharding, soft_q
from lmirl_jax.types import UserError
from tests.fakes import make_run
from tests.training.fakes import global_batch, mesh_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "one", "DISCOUNT = 0.9")


def test_a_policy_has_what_its_configuration_says(run):
    mesh = mesh_of(4, 2, 2, 1)
    loaded = runs.load(str(run), mesh)
    assert str(loaded) == str(run / "checkpoints" / "3")
    assert loaded.lengths == {"inputs": 8, "targets": 23} and loaded.discount == 0.9
    assert loaded.task.name == "number_paths" and loaded.mesh is mesh
    assert {leaf.sharding.mesh for leaf in jax.tree.leaves(loaded.params)} == {mesh}
    with sharding.use(mesh):
        read = jax.jit(lambda params, batch: soft_q.from_model(nnx.merge(loaded.graph, params), batch).v)
        assert np.isfinite(np.asarray(read(loaded.params, global_batch(mesh, rows=4)))).all()


@pytest.mark.e2e
def test_loading_prints_nothing_and_takes_any_kind_of_path(run):
    """In a notebook, before anything has been configured: no greeting of TensorFlow, no warning of Orbax."""
    code = (
        "import pathlib, sys\nfrom lmirl_jax import runs\nfrom lmirl_jax.tasks import number_paths\n"
        "print(runs.load(pathlib.Path(sys.argv[1])).task.name)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "number_paths\n", "")


def test_a_policy_may_be_loaded_while_another_configuration_is_resolved(run, tmp_path):
    other = tmp_path / "other.gin"
    other.write_text(
        "from __gin__ import dynamic_registration\n"
        "from lmirl_jax import data\nfrom lmirl_jax import online\nfrom lmirl_jax import runs\n"
        "from lmirl_jax import sharding\n"
        f"PATH = '{run}'\nBATCH_SIZE = 3\nTASK_FEATURE_LENGTHS = {{'inputs': 5, 'targets': 4}}\n"
        "TASK = @reward/data.get_task()\nreward/data.get_task.mixture_or_task_name = 'number_paths'\n"
        "reward/runs.load.path = %PATH\nreward/runs.load.task = %TASK\nreward/runs.load.mesh = %MESH\n"
        "MESH = @sharding.make_mesh()\n"
        "REWARD = @reward/runs.load()\nBOTH = [%BATCH_SIZE, @reward/runs.load(), %TASK_FEATURE_LENGTHS]\n"
    )
    configuration.load([str(other)])
    before = configuration.config_text()
    batch_size, loaded, lengths = configuration.macro("BOTH")
    assert (batch_size, lengths["targets"], loaded.lengths["targets"]) == (3, 4, 23)
    assert configuration.config_text() == before
    assert configuration.macro("REWARD").checkpoint == loaded.checkpoint


def test_an_error_restores_the_other_configuration(run, tmp_path):
    configuration.load(["gin/meshes/data.gin"], complete=False)
    before = configuration.config_text()
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "config.gin").write_text("BATCH_SIZE = = 3\n")
    with pytest.raises(UserError, match=r"config\.gin:1: "):
        runs.load(str(broken))
    assert configuration.config_text() == before


def test_errors_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*nowhere.* \(the folder does not exist\)"):
        runs.load(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="path=None must be a path"):
        runs.load(None)
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "config.gin").unlink()
    with pytest.raises(UserError, match=r"no .*config\.gin: a run writes it beside its checkpoints/"):
        runs.load(str(bare))


def test_vocabularies_must_be_the_same(run):
    task = data.get_task("number_paths")
    assert runs.load(str(run), task=task).task.name == "number_paths"
    feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=7))
    other = task.tasks[0].replace(name="others", output_features={"inputs": feature, "targets": feature})
    with pytest.raises(UserError, match="trained on task number_paths with another vocabulary than others"):
        runs.load(str(run), task=data.Task("others", (other,), (1.0,)))


def other_task(task):
    feature = seqio.Feature(seqio.ByteVocabulary(extra_ids=7))
    features = {"inputs": feature, "targets": feature}
    return data.Task("others", (task.tasks[0].replace(name="others", output_features=features),), (1.0,))


def recorded(run, tmp_path, vocabularies):
    """The run with a checkpoint that says in which vocabularies it was trained."""
    folder = tmp_path / "recorded"
    shutil.copytree(run, folder)
    position = {"batches": {"next_index": 4, "dataset": "d", "vocabularies": vocabularies}}
    (folder / "checkpoints/3/data/metadata").write_text(json.dumps(position))
    content_hashes.write_hashes(folder / "checkpoints/3")
    return folder


def test_a_checkpoint_records_its_vocabularies(run, tmp_path):
    own = data.get_task("number_paths")
    other = other_task(own)
    fits = recorded(run, tmp_path, own.vocabulary_fingerprints) / "checkpoints/3"
    runs.check_vocabularies(epath.Path(fits), own, "mend it")
    with pytest.raises(
        UserError, match=r"checkpoints/3 was trained with another vocabulary than others .*: mend it"
    ):
        runs.check_vocabularies(epath.Path(fits), other, "mend it")


def test_a_vocabulary_file_that_was_replaced_is_noticed(run, tmp_path):
    """config.gin names what lies there now."""
    folder = recorded(run, tmp_path, other_task(data.get_task("number_paths")).vocabulary_fingerprints)
    with pytest.raises(
        UserError, match=r"another vocabulary than number_paths .*: give its config\.gin the VOCABULARY_PATH"
    ):
        runs.load(str(folder))


def test_the_configuration_tells_a_vocabulary_that_is_not_recorded(run, tmp_path, caplog):
    own = data.get_task("number_paths")
    checkpoint = epath.Path(run) / "checkpoints/3"
    runs.check_vocabularies(checkpoint, own, "mend it")
    with pytest.raises(UserError, match="mend it"):
        runs.check_vocabularies(checkpoint, other_task(own), "mend it")
    assert "does not record" not in caplog.text
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    (bare / "config.gin").unlink()
    runs.check_vocabularies(epath.Path(bare) / "checkpoints/3", own, "mend it")
    assert "does not record its vocabulary" in caplog.text


def test_a_run_does_not_continue_on_data_in_another_vocabulary(tmp_path):
    task = data.get_task("number_paths")
    sizes = {"inputs": 8, "targets": 23}
    iterator = data.TrainDataset(task, 4, sizes, cache_dir=str(tmp_path)).iterator(slice(0, 4))
    state = iterator.get_state()
    assert state["vocabularies"] == task.vocabulary_fingerprints
    iterator.set_state(state)
    with pytest.raises(UserError, match="trained with another vocabulary: set VOCABULARY_PATH"):
        iterator.set_state(state | {"vocabularies": other_task(task).vocabulary_fingerprints})
