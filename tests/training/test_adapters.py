"""Runs of adapters: only they are learnt and saved, and the base stays; resumed, sharded, in parts and from other checkpoints."""

import dataclasses
import functools
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from etils import epath
from flax import nnx

from lmirl_jax import checkpoints, objectives, sharding, training
from lmirl_jax.models import LoRAConfig, merge_adapters
from lmirl_jax.models.abstract import build
from lmirl_jax.models.trainable import frozen, has_adapters, trainable
from lmirl_jax.training.state import init_params, init_state, state_shardings
from lmirl_jax.types import UserError
from tests.models.families import DECODER_ONLY
from tests.training.fakes import TINY, FakeData, global_batch, mesh_of

KEY = jax.random.key(0)
MODEL = LoRAConfig(TINY, rank=2, alpha=4.0, dropout_rate=0.1)


def updates(
    mesh,
    model=MODEL,
    *,
    optimizer=None,
    steps=2,
    microbatches=1,
    loss=training.TokenLoss(objectives.iqlearn, 0.5),
):
    """The states before and after some updates, and the metrics of each."""
    optimizer = optimizer or optax.sgd(0.1)
    graph, _ = build(model)
    _, shardings = state_shardings(mesh, model, optimizer)
    step = functools.partial(
        training.train_step,
        graph=graph,
        loss=loss,
        optimizer=optimizer,
        key=KEY,
        microbatches=microbatches,
    )
    with sharding.use(mesh):
        state = init_state(shardings, model, optimizer, KEY)
        before, history = jax.device_get(state), []
        update = jax.jit(step, out_shardings=(shardings, None))
        for seed in range(steps):
            state, metrics = update(state, global_batch(mesh, seed))
            history.append(jax.device_get(metrics))
    return before, jax.device_get(state), history


@pytest.fixture(scope="module")
def alone():
    return updates(mesh_of(1, 1, 1, 1))


def test_only_adapters_move(alone):
    before, after, _ = alone
    jax.tree.map(np.testing.assert_array_equal, frozen(after.params), frozen(before.params))
    changes = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), trainable(after.params), trainable(before.params)
    )
    assert all(change > 0 for change in jax.tree.leaves(changes))


def test_the_state_of_the_optimizer_knows_adapters_alone():
    mesh, optimizer = mesh_of(1, 1, 1, 1), training.adamw(1e-2)
    shapes, _ = state_shardings(mesh, MODEL, optimizer)
    moments = [leaf.shape for leaf in jax.tree.leaves(shapes.opt_state) if leaf.ndim]
    learnt = [leaf.shape for leaf in jax.tree.leaves(trainable(shapes.params))]
    assert sorted(moments) == sorted(2 * learnt)
    assert len(learnt) < len(jax.tree.leaves(shapes.params))


def test_the_gradient_norm_is_that_of_the_adapters(alone):
    """With B = 0 no gradient reaches A, so that the norm of the first update is that of the Bs."""
    before, after, history = updates(mesh_of(1, 1, 1, 1), steps=1)
    changes = jax.tree.map(lambda a, b: a - b, trainable(after.params), trainable(before.params))
    np.testing.assert_allclose(optax.tree.norm(changes) / 0.1, history[0]["gradient_norm"], rtol=1e-4)


def test_a_mesh_of_eight_equals_one_device(alone):
    _, state, history = updates(mesh_of(8, 2, 2, 2))
    np.testing.assert_allclose([m["loss"] for m in history], [m["loss"] for m in alone[2]], rtol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-3), state.params, alone[1].params
    )


def test_parts_of_the_batch_equal_the_whole(alone):
    _, state, _ = updates(mesh_of(1, 1, 1, 1), microbatches=4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-3), state.params, alone[1].params
    )


@pytest.mark.parametrize(("family", "base_dtype"), [("qwen2", "bfloat16"), ("gemma3", "float32")])
def test_decoder_only_networks_learn_by_adapters(family, base_dtype):
    base = dataclasses.replace(DECODER_ONLY[family], vocab_size=128, remat="full")
    model = LoRAConfig(base, rank=2, base_dtype=base_dtype)
    loss = training.TokenLoss(objectives.mle)
    before, after, history = updates(
        mesh_of(2, 1, 1, 2), model, optimizer=training.adamw(1e-2), steps=6, loss=loss
    )
    assert history[-1]["loss"] < history[0]["loss"]
    kept = frozen(after.params)
    jax.tree.map(np.testing.assert_array_equal, kept, frozen(before.params))
    assert kept["token_embedder"].dtype == base_dtype


def test_adafactor_learns_by_adapters():
    _, _, history = updates(mesh_of(2, 1, 1, 2), optimizer=training.adafactor(1e-2), steps=6)
    assert np.isfinite([m["loss"] for m in history]).all()


def train(model_dir, train_steps=4, **changes):
    settings = {
        "model": MODEL,
        "learner": training.Offline(objectives.iqlearn, 0.5),
        "optimizer": training.adamw(1e-2),
        "data": FakeData(),
        "mesh": mesh_of(2, 2, 1, 1),
        "checkpoint": training.CheckpointConfig(period=2),
        "tensorboard": False,
    }
    return training.train(model_dir=str(model_dir), train_steps=train_steps, **settings | changes)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A run of the whole model."""
    folder = tmp_path_factory.mktemp("base")
    train(folder, 1, model=TINY)
    return folder


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    state = train(folder, initial_checkpoint_path=str(base))
    return folder, jax.device_get(state.params)


def load(path, model=TINY):
    """The parameters of a checkpoint as a whole model."""
    shapes = jax.eval_shape(lambda: init_params(model, KEY))
    mesh = mesh_of(2, 1, 1, 2)
    places = sharding.parameter_shardings(mesh, build(model)[1])
    found = checkpoints.find_checkpoint(str(path))
    checkpoints.check_params(found, shapes)
    return checkpoints.load_params(found, shapes, places)


def sizes(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_checkpoints_hold_adapters_and_name_their_base(run, base):
    folder, params = run
    record = checkpoints.read_record(epath.Path(folder / "checkpoints" / "4"))
    assert record is not None
    assert record.base == str(base / "checkpoints" / "1") and record.base_dtype == "float32"
    assert (record.rank, record.alpha) == (2, 4.0)
    assert checkpoints.read_record(epath.Path(record.base)) is None
    jax.tree.map(np.testing.assert_array_equal, frozen(params), jax.device_get(load(base)))
    info = (folder / "model-info.txt").read_text()
    count = sum(leaf.size for leaf in jax.tree.leaves(trainable(params)))
    assert f"Number of trained parameters: {count}" in info


def test_a_damaged_base_is_refused_by_name(run, base):
    folder = base / "checkpoints/1/state"
    file = max(folder.rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    name = f"state/{file.relative_to(folder)}"
    try:
        line = f"the checkpoint {base}/checkpoints/1 is damaged: {name} has changed"
        with pytest.raises(UserError, match=line):
            load(run[0])
        with pytest.raises(UserError, match=line):
            train(run[0], 5)
    finally:
        file.write_bytes(content)
    load(run[0])


def test_loading_merges_the_adapters_into_the_base(run):
    folder, params = run
    expected = merge_adapters(params, MODEL.scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), load(folder), expected)


def test_resumed_equals_uninterrupted(run, base, tmp_path):
    train(tmp_path / "a", 2, initial_checkpoint_path=str(base))
    # A resumed run finds its base by its own record.
    state = train(tmp_path / "a", 4)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), run[1])


def test_a_base_that_is_gone_or_another_is_one_line(base, tmp_path):
    moved, folder = tmp_path / "base", tmp_path / "run"
    shutil.copytree(base, moved)
    train(folder, 2, initial_checkpoint_path=str(moved))
    os.rename(moved, tmp_path / "away")
    for call in (lambda: train(folder, 3), lambda: load(folder)):
        with pytest.raises(
            UserError, match=f"no base model at {moved}.*put it there again, or a link"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
    train(moved, 1, model=TINY, seed=1)
    with pytest.raises(UserError, match="is not the base model that it was"):
        load(folder)
    shutil.rmtree(moved)
    os.symlink(tmp_path / "away", moved)
    load(folder)


def test_a_base_of_random_parameters_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"random parameters .* set INITIAL_CHECKPOINT_PATH"):
        train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("model", "line"),
    [
        (dataclasses.replace(MODEL, rank=3), "lora_a is .* set LORA_RANK and LORA_MATRICES"),
        (dataclasses.replace(MODEL, matrices=("query",)), "adapter.* is missing|adapter.* missing here"),
        (TINY, "missing"),
    ],
)
def test_other_adapters_in_the_same_folder_are_one_line(run, model, line):
    with pytest.raises(UserError, match=line) as caught:
        train(run[0], 5, model=model)
    assert "\n" not in str(caught.value)


def test_a_folder_of_whole_models_is_no_place_for_adapters(base):
    with pytest.raises(UserError, match="trains the whole model, not adapters"):
        train(base, 5)


def test_a_base_of_other_sizes_is_one_line(base, tmp_path):
    wide = dataclasses.replace(MODEL, base=dataclasses.replace(TINY, mlp_dim=64))
    with pytest.raises(UserError, match=r"of another model: .*mlp"):
        train(tmp_path / "run", model=wide, initial_checkpoint_path=str(base))


def test_further_runs_start_from_the_merged_model(run, tmp_path):
    """Of the whole model, and of new adapters, whose base is then the model that the first ones made."""
    merged = jax.device_get(load(run[0]))
    still = optax.sgd(0.0)
    whole = train(tmp_path / "whole", 1, model=TINY, initial_checkpoint_path=str(run[0]), optimizer=still)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole.params), merged)
    again = train(tmp_path / "again", 1, initial_checkpoint_path=str(run[0]))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(frozen(again.params)), merged)
    expected = merge_adapters(jax.device_get(again.params), MODEL.scale)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), load(tmp_path / "again"), expected)


def test_a_base_may_be_stored_in_bfloat16(base, tmp_path):
    model = dataclasses.replace(MODEL, base_dtype="bfloat16")
    state = train(tmp_path / "run", 2, model=model, initial_checkpoint_path=str(base))
    assert frozen(state.params)["token_embedder"].dtype == jnp.bfloat16
    # A resumed run keeps the type without being told.
    state = train(tmp_path / "run", 3)
    kept = frozen(state.params)
    assert (
        kept["token_embedder"].dtype == jnp.bfloat16 and kept["encoder"]["norm"]["scale"].dtype == jnp.float32
    )


def test_without_adapters_nothing_is_split():
    params = init_params(TINY, KEY)
    assert not has_adapters(params) and trainable(params) is params
    graph, _ = build(TINY)
    assert nnx.merge(graph, params) is not None
