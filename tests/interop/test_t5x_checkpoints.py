"""Checkpoints that T5X itself saved compute here what T5X computes from them, from a disk and from a bucket."""

import json
import pathlib

import jax
import numpy as np
import pytest
from etils import epath

import lmirl_jax
from lmirl_jax import checkpoints, cli, interop, rewards, sharding
from lmirl_jax.types import UserError
from tests.interop import fake_bucket

pytestmark = pytest.mark.eight_devices

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden_t5x"
FOLDERS = sorted(path for path in GOLDEN.glob("*/*/checkpoint_0"))


def names(path: pathlib.Path) -> str:
    return "-".join(path.parts[-3:-1])


def check(model, folder: pathlib.Path) -> None:
    """Compares logits with T5X's; inputs are padded with 0."""
    with np.load(folder / "expected.npz") as expected:
        prompts = [row[row > 0] for row in expected["inputs"]]
        logits = model.logits(expected["decoder_ids"], prompts)
        np.testing.assert_allclose(logits, expected["logits"], atol=3e-5, rtol=0)


def test_the_committed_formats():
    assert [names(path) for path in FOLDERS] == [
        "scanned-msgpack_and_zarr",
        "scanned-orbax",
        "t5_1_0-msgpack",
        "t5_1_1-msgpack_and_zarr",
        "t5_1_1-orbax",
    ]


@pytest.mark.parametrize("path", FOLDERS, ids=names)
def test_logits_are_those_of_t5x(path):
    # T5X's MODEL_DIR stands for its newest checkpoint.
    check(lmirl_jax.load(path.parent), path.parent.parent)
    assert checkpoints.step_of(epath.Path(path)) == 0


@pytest.mark.parametrize("path", FOLDERS, ids=names)
def test_logits_on_eight_devices(path):
    check(lmirl_jax.load(path, mesh=sharding.make_mesh(data=2, fsdp=2, tensor=2)), path.parent.parent)


@pytest.mark.parametrize("kind", ["scanned", "t5_1_1"])
def test_both_formats_hold_the_same_bits(kind):
    one, other = (path for path in FOLDERS if path.parts[-3] == kind)
    jax.tree.map(
        np.testing.assert_array_equal, lmirl_jax.load(one).policy.params, lmirl_jax.load(other).policy.params
    )


def test_a_trained_checkpoint_of_t5x(shared_data):
    folder = shared_data / "checkpoints/t5x_tiny_trained"
    model = lmirl_jax.load(folder / "checkpoint_2")
    with np.load(folder / "expected.npz") as file:
        expected = dict(file)
    inputs, targets = expected["encoder_input_tokens"], expected["decoder_target_tokens"]
    logits = model.logits(expected["decoder_input_tokens"], [row[row > 0] for row in inputs])
    log_sum = np.asarray(jax.nn.logsumexp(logits, axis=-1))
    log_probs = np.take_along_axis(logits, targets[..., None], -1)[..., 0] - log_sum
    # T5X masks the padding of the decoder too, so that what it computes there is another thing.
    real = targets > 0
    for name, ours in {
        "logits_first_200_words": logits[..., :200],
        "logsumexp": log_sum,
        "target_log_probs": log_probs,
    }.items():
        np.testing.assert_allclose(ours[real], expected[name][real], atol=1e-5, rtol=0, err_msg=name)


def test_a_checkpoint_in_one_file(shared_data):
    model = lmirl_jax.load(shared_data / "checkpoints/t5x_tiny" / "test_t5_tiny.checkpoint_0")
    logits = model.logits([[0, 5]], [[7, 8, 1]])
    assert logits.shape == (1, 2, model.policy.model.vocab_size) and np.isfinite(logits).all()


def train(path: str, folder: pathlib.Path, vocabulary: pathlib.Path) -> int:
    """Two steps of training from a checkpoint, through the command."""
    rows = [{"inputs": f"compare {n} and {n + 1}", "targets": f"x = {n}"} for n in range(16)]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "MODEL_DIR": f"'{folder / 'run'}'",
        "DATA": f"'{folder / 'data.jsonl'}'",
        "VOCABULARY_PATH": f"'{vocabulary}'",
        "INITIAL_CHECKPOINT_PATH": f"'{path}'",
        "TASK_FEATURE_LENGTHS": "{'inputs': 32, 'targets': 16}",
        "TRAIN_STEPS": "2",
        "BATCH_SIZE": "8",
    }
    return cli.main(
        [
            "train",
            "--gin_file=gin/runs/finetune.gin",
            *(f"--gin.{name}={value}" for name, value in settings.items()),
        ]
    )


@pytest.mark.parametrize("path", [path for path in FOLDERS if "t5_1_1" in path.parts], ids=names)
def test_a_bucket(path, tmp_path, monkeypatch):
    with fake_bucket.serve(path.parent, monkeypatch) as bucket:
        assert str(checkpoints.find_checkpoint(bucket)) == f"{bucket}/checkpoint_0"
        assert checkpoints.pinned(bucket) == bucket
        opened = interop.open_pretrained(epath.Path(f"{bucket}/checkpoint_0"))
        assert opened.kind == "t5x" and opened.dtypes == ["float32"]
        check(lmirl_jax.load(bucket), path.parent.parent)
        check(lmirl_jax.load(f"{bucket}/checkpoint_0"), path.parent.parent)
        with pytest.raises(UserError, match="no checkpoint at gs://a-bucket/nothing"):
            lmirl_jax.load(f"{bucket}/nothing")


@pytest.mark.slow
def test_training_from_a_bucket(tmp_path, monkeypatch, words_model, one_process):
    path = GOLDEN / "t5_1_1/msgpack_and_zarr"
    with fake_bucket.serve(path, monkeypatch) as bucket:
        assert train(f"{bucket}/checkpoint_0", tmp_path, words_model) == 0
    text = (tmp_path / "run/config.gin").read_text()
    assert f"INITIAL_CHECKPOINT_PATH = '{fake_bucket.BUCKET}" not in text
    assert "gs://a-bucket/checkpoint_0" in text


# Whatever leads to parameters: T5X's description of one that lies in a folder must never pass for it.
DOORS = ("load", "mesh", "convert", "train", "score")


@pytest.mark.parametrize("door", DOORS)
def test_specs_never_pass_for_arrays(door, tmp_path, words_model, one_process):
    path = GOLDEN / "t5_1_1/msgpack_and_zarr/checkpoint_0"
    expected = np.load(path.parent.parent / "expected.npz")
    if door in ("load", "mesh"):
        mesh = sharding.make_mesh(fsdp=8) if door == "mesh" else None
        loaded = lmirl_jax.load(path, mesh=mesh)
    elif door == "convert":
        form = [f"--gin.OUTPUT_PATH='{tmp_path / 'out'}'", "--gin.FORMAT='orbax'"]
        assert (
            cli.main(
                [
                    "convert",
                    f"--gin.CHECKPOINT_PATH='{path}'",
                    f"--gin.VOCABULARY_PATH='{words_model}'",
                    *form,
                ]
            )
            == 0
        )
        loaded = lmirl_jax.load(tmp_path / "out")
    elif door == "train":
        assert train(str(path), tmp_path, words_model) == 0
        loaded = lmirl_jax.load(tmp_path / "run")
    else:
        loaded = lmirl_jax.load(path, vocabulary_path=str(words_model))
        scores = rewards.score(loaded.policy, ["compare 1"], ["x = 1"])
        assert np.isfinite(scores.total).all()
    leaves = jax.tree.leaves(loaded.policy.params)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == np.float32 for leaf in leaves)
    moved = np.abs(
        loaded.logits(expected["decoder_ids"], [row[row > 0] for row in expected["inputs"]])
        - expected["logits"]
    ).max()
    # Two steps move the parameters a little; specs, zeros or new parameters would be far off.
    assert moved < (0.5 if door == "train" else 3e-5)
