"""Vocabularies of unusual ids train, sample, search and score: SentencePiece with EOS 2 and a word 0, and ids as in GPT-2."""

import json
import pathlib

import numpy as np
import pytest

from lmirl_jax import cli

pytestmark = pytest.mark.slow

# A tiny model learns these by heart; `!` is the word with id 0 where a vocabulary has such a word.
EXAMPLES = [(f"!{n}+1!", f"!{n + 1}!") for n in range(4)]
LENGTHS = "{'inputs': 16, 'targets': 12}"
SMALL = [
    "--gin.models.T5Config.emb_dim=32",
    "--gin.models.T5Config.mlp_dim=64",
    "--gin.DROPOUT_RATE=0.0",
    "--gin.EVALUATIONS=[]",
    "--gin.BATCH_SIZE=8",
    "--gin.REMAT='none'",
    "--gin.SHUFFLE_TRAIN_EXAMPLES=False",  # Grain shuffles a few rows slowly.
]


def lmirl(command: str, *arguments: str) -> None:
    assert cli.main([command, *arguments]) == 0


@pytest.fixture
def examples(tmp_path) -> pathlib.Path:
    path = tmp_path / "sums.jsonl"
    rows = [{"inputs": inputs, "targets": targets} for inputs, targets in EXAMPLES * 2]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def learn(run: pathlib.Path, run_file: str, source: list[str], *more: str) -> list[dict]:
    """The metrics of a run on the examples."""
    settings = [f"--gin.MODEL_DIR='{run}'", f"--gin.TASK_FEATURE_LENGTHS={LENGTHS}", *SMALL, *source, *more]
    lmirl("train", f"--gin_file=gin/runs/{run_file}.gin", "--gin_file=gin/models/t5_1_1/tiny.gin", *settings)
    return lines(run / "metrics.jsonl")


def check_training_sampling_and_scoring(folder, source, prompts, eos_id) -> None:
    offline = [
        "--gin_file=gin/objectives/iqlearn.gin",
        "--gin.LOG_PERIOD=100",
        "--gin.LEARNING_RATE=5e-3",
        "--gin.WARMUP_STEPS=10",
    ]
    learn(folder / "run", "finetune", source, *offline, "--gin.TRAIN_STEPS=350", "--gin.TD_WEIGHT=0.01")
    policy = f"--gin.CHECKPOINT_PATH='{folder / 'run'}'"
    for name, form in {"greedy": ["--gin.TEMPERATURE=0"], "beams": ["--gin.NUM_BEAMS=2"]}.items():
        answers = folder / f"{name}.jsonl"
        more = [f"--gin.PROMPTS='{prompts}'", f"--gin.OUTPUT_PATH='{answers}'", *form]
        lmirl("infer", "--gin_file=gin/runs/infer.gin", policy, *more)
        for answer, (_, target) in zip(lines(answers), EXAMPLES, strict=False):
            assert answer["samples"] == [target]
            assert answer["tokens"][0].count(eos_id) == 1 and answer["tokens"][0][-1] == eos_id
    scores = folder / "scores.jsonl"
    lmirl(
        "score",
        "--gin_file=gin/runs/score.gin",
        policy,
        f"--gin.DATA='{prompts}'",
        f"--gin.OUTPUT_PATH='{scores}'",
    )
    for answer, (_, target) in zip(lines(scores), EXAMPLES, strict=False):
        assert not answer["truncated"] and answer["targets"] == target
        # The rewards of a whole answer add up to its value and its likelihood.
        np.testing.assert_allclose(sum(answer["reward"]), answer["v"][0] + sum(answer["log_prob"]), atol=1e-4)
    start = [f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'run'}'", "--gin.TRAIN_STEPS=2"]
    for metrics in learn(folder / "online", "online_iqlearn", source, *start):
        # A policy that knows the examples by heart ends its answers, and samples their 4 or more tokens.
        assert metrics["train/samples/truncated"] < 0.3
        assert 3 < metrics["train/samples/length"] < 9
        assert metrics["train/samples/log_prob_gap"] < 1e-3


def test_files(spiece_word_0, examples, tmp_path):
    source = [
        "--gin.MIXTURE_OR_TASK_NAME=None",
        f"--gin.DATA='{examples}'",
        f"--gin.VOCABULARY_PATH='{spiece_word_0}'",
    ]
    check_training_sampling_and_scoring(tmp_path, source, examples, eos_id=2)


def test_a_task_with_ids_as_in_gpt2(gpt2_like_task, examples, tmp_path):
    source = [f"--gin.MIXTURE_OR_TASK_NAME='{gpt2_like_task}'"]
    check_training_sampling_and_scoring(tmp_path, source, examples, eos_id=256)
