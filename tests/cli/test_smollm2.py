"""The README's fine-tuning of a chat model that people use: four macros, a folder for transformers, the same answers there."""

import json
import subprocess

import numpy as np
import pytest
from etils import epath

import lmirl_jax
from lmirl_jax.cli import main
from lmirl_jax.training.metric_writers import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
QUESTION = "What is the capital of France?"
# Generates greedily with transformers from a folder, a conversation and a number of tokens.
GENERATE = """
import json, sys, torch, transformers
folder, messages, count = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
made = model.generate(**ids, max_new_tokens=count, do_sample=False)[0, ids["input_ids"].shape[1]:]
print(json.dumps(tokenizer.decode(made, skip_special_tokens=True)))
"""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """In place of the fixture of that name for all tests here: a model of this size runs for longer than it compiles."""


@pytest.mark.parametrize("adapter", [False, True], ids=["in full", "LoRA"])
def test_four_macros_fine_tune_it(smollm2, parity_python, tmp_path, adapter):
    data, run, out = tmp_path / "chat.jsonl", tmp_path / "run", tmp_path / "out"
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "It is Paris, of course!"},
    ]
    data.write_text(json.dumps({"messages": turns}) + "\n")
    macros = {"MODEL_DIR": run, "INITIAL_CHECKPOINT_PATH": smollm2, "DATA": data}
    given = [f"--gin.{name}={str(value)!r}" for name, value in macros.items()] + ["--gin.TRAIN_STEPS=3"]
    # On two cores; a user with an accelerator leaves these out.
    small = ["--gin.BATCH_SIZE=8", "--gin.TASK_FEATURE_LENGTHS={'inputs': 48, 'targets': 16}"]
    small += [
        "--gin.WARMUP_STEPS=0",
        "--gin.EVALUATIONS=[]",
        f"--gin.LEARNING_RATE={1e-3 if adapter else 5e-5}",
    ]
    files = ["--gin_file=gin/runs/finetune.gin", *["--gin_file=gin/adapters/lora.gin"] * adapter]
    assert main(["train", *files, *given, *small]) == 0
    losses = [line["train/loss"] for line in read_metrics(epath.Path(run) / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    given = {"CHECKPOINT_PATH": str(run), "OUTPUT_PATH": str(out), "FORMAT": "hf"}
    assert main(["convert", *(f"--gin.{name}={value!r}" for name, value in given.items())]) == 0
    ours = lmirl_jax.load(out).generate(QUESTION, max_new_tokens=12)
    assert ours == lmirl_jax.load(run).generate(QUESTION, max_new_tokens=12)
    command = [parity_python, "-c", GENERATE, str(out), json.dumps(turns[:1]), "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) == ours
    assert np.isfinite(losses).all()
