"""A decoder-only network that began with random parameters goes out as its family in transformers, and comes back."""

import json

import jax
import numpy as np
import pytest

import lmirl_jax
from lmirl_jax.cli import main

pytestmark = pytest.mark.slow
TRAIN = [
    "train",
    "--gin_file=gin/runs/finetune.gin",
    "--gin.TRAIN_STEPS=1",
    "--gin.BATCH_SIZE=8",
    "--gin.EVALUATIONS=[]",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 16, 'targets': 8}",
]
SIZES = {"emb_dim": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "mlp_dim": 24}
# The options are those of the file.
TYPES = {"llama/llama3_2_1b": "llama", "qwen2_5/qwen2_5_0_5b": "qwen2", "gemma3/gemma3_4b": "gemma3_text"}


@pytest.fixture(params=TYPES)
def exported(request, tmp_path):
    """What a run of one step with a file's options makes in transformers' form."""
    data, run, out = tmp_path / "data.jsonl", tmp_path / "run", tmp_path / "out"
    data.write_text(json.dumps({"inputs": "add 3 and 4", "targets": "7"}) + "\n")
    sizes = [f"--gin.models.DecoderOnlyConfig.{name}={size}" for name, size in SIZES.items()]
    if "gemma" in request.param:
        sizes.append("--gin.models.DecoderOnlyConfig.layer_types=['sliding_attention', 'full_attention']")
    model = f"--gin_file=gin/models/{request.param}.gin"
    assert main([*TRAIN, model, *sizes, f"--gin.MODEL_DIR='{run}'", f"--gin.DATA='{data}'"]) == 0
    paths = [f"--gin.CHECKPOINT_PATH='{run}'", f"--gin.OUTPUT_PATH='{out}'"]
    assert main(["convert", "--gin.FORMAT='hf'", *paths]) == 0
    return run, out, TYPES[request.param]


def test_it_comes_back(exported):
    run, out, model_type = exported
    ours, back = lmirl_jax.load(run), lmirl_jax.load(out)
    assert json.loads((out / "config.json").read_text())["model_type"] == model_type
    jax.tree.map(np.testing.assert_array_equal, ours.policy.params, back.policy.params)
    ids = [[5, 9, 70, 33, 8], [7, 3, 4, 5, 6]]
    np.testing.assert_array_equal(back.logits(ids), ours.logits(ids))


@pytest.mark.e2e
def test_transformers_computes_the_same(exported, load_in_transformers):
    run, out, _ = exported
    # For Qwen 2, transformers takes no other tokenizer than Qwen's; token ids suffice here.
    for file in out.glob("*token*"):
        file.unlink()
    found, computed = load_in_transformers(out)
    assert not found["missing_keys"] + found["unexpected_keys"] + found["mismatched_keys"]
    prompts = [row[:length] for row, length in zip(computed["inputs"], computed["lengths"])]
    rows = [[*prompt, *row[1:]] for prompt, row in zip(prompts, computed["decoder_ids"])]
    logits = lmirl_jax.load(run).logits(rows)
    for row, length, expected in zip(logits, computed["lengths"], computed["logits"]):
        np.testing.assert_allclose(row[length - 1 :][: len(expected)], expected, atol=2e-5, rtol=0)
