"""The README's fine-tuning of a chat model that people use: four macros, a folder for transformers, the same answers there."""

import json
import os
import subprocess
import sys

import pytest
from etils import epath

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


def lmirl(*arguments: str) -> None:
    """On one device: each of the tests' eight would hold a copy of the optimizer's state."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-P", "-m", "lmirl_jax", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]


def bind(**macros: object) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def test_four_macros_fine_tune_it(smollm2, transformers, tmp_path):
    data, run, out = tmp_path / "chat.jsonl", tmp_path / "run", tmp_path / "out"
    turns = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "It is Paris, of course!"},
    ]
    data.write_text(json.dumps({"messages": turns}) + "\n")
    needed = {
        "MODEL_DIR": str(run),
        "INITIAL_CHECKPOINT_PATH": str(smollm2),
        "DATA": str(data),
        "TRAIN_STEPS": 2,
    }
    # On two cores; a user with an accelerator leaves these out.
    small = {"BATCH_SIZE": 2, "TASK_FEATURE_LENGTHS": {"inputs": 48, "targets": 16}, "WARMUP_STEPS": 0}
    small |= {"LEARNING_RATE": 5e-5}
    lmirl("train", "--gin_file=gin/runs/finetune.gin", *bind(**needed, **small), "--gin.EVALUATIONS=[]")
    losses = [line["train/loss"] for line in read_metrics(epath.Path(run) / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    lmirl("convert", *bind(CHECKPOINT_PATH=str(run), OUTPUT_PATH=str(out), FORMAT="hf"))
    prompts, answers = tmp_path / "prompts.txt", tmp_path / "answers.jsonl"
    prompts.write_text(QUESTION + "\n")
    infer = bind(CHECKPOINT_PATH=str(run), PROMPTS=str(prompts), OUTPUT_PATH=str(answers), EVAL_BATCH_SIZE=1)
    lmirl("infer", "--gin_file=gin/runs/infer.gin", *infer, *bind(TEMPERATURE=0.0))
    (ours,) = json.loads(answers.read_text())["samples"]
    assert json.loads(transformers.run(GENERATE, out, json.dumps(turns[:1]), 16)) == ours
