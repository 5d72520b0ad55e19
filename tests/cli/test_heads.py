"""Models with heads through the commands: ILQL, whose heads guide sampling, and reward models, wherever a checkpoint rewards."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from lmirl_jax import runs
from lmirl_jax.cli import main
from lmirl_jax.language_model import LanguageModel
from lmirl_jax.models import reward_values
from lmirl_jax.rows import example_row, stack_rows

SIZES = ["--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}", "--gin.EVALUATIONS=[]"]
SIZES += ["--gin.BATCH_SIZE=8", "--gin.WARMUP_STEPS=0", "--gin.EVAL_BATCH_SIZE=8", "--gin.LEARNING_RATE=1e-2"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def train(name, folder, data, *more, steps):
    files = [f"--gin_file=gin/runs/{name}.gin", "--gin_file=gin/models/t5_1_1/tiny.gin"]
    flags = [f"--gin.DATA='{data}'", f"--gin.MODEL_DIR='{folder}'", f"--gin.TRAIN_STEPS={steps}"]
    return main(["train", *files, *SIZES, "--gin.MIXTURE_OR_TASK_NAME=None", *more, *flags])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Labelled answers, and a run of maximum likelihood on them."""
    folder = tmp_path_factory.mktemp("heads")
    samples = [
        {"inputs": f"{n}+1", "targets": str(n + 1 + wrong), "label": not wrong}
        for n in range(4)
        for wrong in (0, 3)
    ]
    write(folder / "samples.jsonl", samples)
    pairs = [{"prompt": f"{n}+1", "chosen": str(n + 1), "rejected": str(n + 4)} for n in range(4)]
    write(folder / "pairs.jsonl", pairs)
    write(folder / "prompts.jsonl", [{"inputs": f"{n}+1", "targets": str(n + 1)} for n in range(4)])
    mle = "--gin_file=gin/objectives/mle.gin"
    assert train("finetune", folder / "sft", folder / "samples.jsonl", mle, steps=2) == 0
    return folder


def answers(folder, run, name, *more):
    path = folder / f"{name}.jsonl"
    flags = [f"--gin.CHECKPOINT_PATH='{folder / run}'", f"--gin.PROMPTS='{folder / 'prompts.jsonl'}'"]
    flags += [f"--gin.OUTPUT_PATH='{path}'", "--gin.TEMPERATURE=0.0", "--gin.EVAL_BATCH_SIZE=8", *more]
    assert main(["infer", "--gin_file=gin/runs/infer.gin", *flags]) == 0
    return [row["samples"][0] for row in rows_of(path)]


def test_the_heads_of_ilql_guide_what_is_sampled(folder, capfd):
    start = f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'sft'}'"
    data = folder / "samples.jsonl"
    assert train("ilql", folder / "ilql", data, start, steps=20) == 0
    assert "begin at random, not from" in capfd.readouterr().err
    guided = answers(folder, "ilql", "guided", "--gin.GUIDE_WEIGHT=1000.0")
    alone = answers(folder, "ilql", "alone", "--gin.GUIDE_WEIGHT=0.0")
    without = answers(folder, "ilql", "without", "--gin.NETWORK=%MODEL")
    assert alone == without != guided
    # Another run may start from its policy, whose heads it leaves out; and the same run goes on.
    mle = "--gin_file=gin/objectives/mle.gin"
    more = f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'ilql'}'"
    assert train("finetune", folder / "after", data, mle, more, steps=1) == 0
    assert train("ilql", folder / "ilql", data, start, steps=21) == 0


def test_a_run_of_ilql_goes_on_as_ilql_alone(folder, capfd):
    start = f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'sft'}'"
    assert train("ilql", folder / "resumed", folder / "samples.jsonl", start, steps=1) == 0
    capfd.readouterr()
    mle = "--gin_file=gin/objectives/mle.gin"
    assert train("finetune", folder / "resumed", folder / "samples.jsonl", mle, steps=2) == 1
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert "heads/q_1/kernel is 128x384 there and missing here; set NETWORK" in line


def test_ilql_needs_rewards(folder, capfd):
    start = f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'sft'}'"
    assert train("ilql", folder / "none", folder / "prompts.jsonl", start, steps=1) == 1
    assert "the data give none" in capfd.readouterr().err.strip().splitlines()[-1]
    assert not (folder / "none").exists()


@pytest.fixture(scope="module")
def rewarding(folder):
    start = f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'sft'}'"
    more = start, "--gin.FROM_PREFERENCES=False"
    assert train("reward_model", folder / "rewarding", folder / "samples.jsonl", *more, steps=20) == 0
    return folder / "rewarding"


def test_a_reward_model_rewards_answers_in_files(folder, rewarding):
    """`lmirl label` and `lmirl score` say what the heads say of the state after the answer, less the state before it."""
    candidates = [{"inputs": f"{n}+1", "candidates": [str(n + 1), str(n + 4)]} for n in range(4)]
    write(folder / "candidates.jsonl", candidates)
    labelled = folder / "rewarded.jsonl"
    flags = [f"--gin.ANSWERS='{folder / 'candidates.jsonl'}'", f"--gin.OUTPUT_PATH='{labelled}'"]
    flags += [f"--gin.REWARD_CHECKPOINT_PATH='{rewarding}'", "--gin.FORM='rewards'"]
    assert main(["label", "--gin_file=gin/runs/label.gin", *flags]) == 0
    rewards = [row["reward"] for row in rows_of(labelled)]

    scored = folder / "scored.jsonl"
    flags = [f"--gin.CHECKPOINT_PATH='{rewarding}'", f"--gin.DATA='{folder / 'samples.jsonl'}'"]
    assert main(["score", "--gin_file=gin/runs/score.gin", *flags, f"--gin.OUTPUT_PATH='{scored}'"]) == 0
    lines = rows_of(scored)
    np.testing.assert_allclose([sum(line["reward"]) for line in lines], rewards, atol=1e-5)

    policy = runs.load(rewarding)
    encode = policy.task.input_vocabulary.encode
    rows = [
        example_row(
            np.array([*encode(line["inputs"]), 1], np.int32),
            np.array(line["tokens"], np.int32),
            lengths={"inputs": 8, "targets": 8},
            eos_ids=(1,),
            discount=1.0,
        )
        for line in lines
    ]
    batch = jax.tree.map(jax.numpy.asarray, stack_rows(rows))
    values = np.asarray(reward_values(nnx.merge(policy.graph, policy.params), batch)).mean(0)
    ends = [len(line["tokens"]) for line in lines]
    expected = [value[end] - value[0] for value, end in zip(values, ends, strict=True)]
    np.testing.assert_allclose(rewards, expected, atol=1e-4)
    assert len(set(rewards)) == 8


def test_a_reward_model_learns_from_preferences_and_rewards_rollouts(folder, capfd):
    start = f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'sft'}'"
    assert train("reward_model", folder / "bt", folder / "pairs.jsonl", start, steps=2) == 0
    more = start, f"--gin.REWARD_CHECKPOINT_PATH='{folder / 'bt'}'", "--gin.SAMPLES_PER_PROMPT=2"
    sizes = "--gin.SAMPLE_BATCH_SIZE=8", "--gin.SAMPLE_EVERY=1"
    data = folder / "prompts.jsonl"
    assert train("rl_from_reward", folder / "rl", data, *more, *sizes, steps=2) == 0
    capfd.readouterr()
    assert train("rl_from_reward", folder / "no", data, *more, *sizes, "--gin.SHAPING='value'", steps=2) == 1
    assert "REWARD_CHECKPOINT_PATH is a reward model" in capfd.readouterr().err.strip().splitlines()[-1]


def test_a_reward_model_needs_labels_or_preferences(folder, capfd):
    more = f"--gin.INITIAL_CHECKPOINT_PATH='{folder / 'sft'}'", "--gin.FROM_PREFERENCES=False"
    assert train("reward_model", folder / "none", folder / "prompts.jsonl", *more, steps=1) == 1
    assert "the data have neither" in capfd.readouterr().err.strip().splitlines()[-1]


def test_other_libraries_get_the_policy_without_heads(folder, rewarding):
    """The exported model answers as the run's policy does."""
    path = folder / "exported"
    flags = [f"--gin.CHECKPOINT_PATH='{rewarding}'", f"--gin.OUTPUT_PATH='{path}'", "--gin.FORMAT='hf'"]
    assert main(["convert", *flags]) == 0
    ids, encoder_ids = np.array([[0, 53, 54]]), np.array([[52, 46, 52, 1]])
    expected = LanguageModel(runs.load(rewarding)).logits(ids, encoder_ids)
    found = LanguageModel(runs.load(path)).logits(ids, encoder_ids)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_reward_of_an_answer_that_does_not_fit_is_said(folder, rewarding, capfd):
    write(folder / "long.jsonl", [{"inputs": "1+1", "candidates": ["2", "23456789012"]}])
    flags = [f"--gin.ANSWERS='{folder / 'long.jsonl'}'", f"--gin.OUTPUT_PATH='{folder / 'long_out.jsonl'}'"]
    flags += [f"--gin.REWARD_CHECKPOINT_PATH='{rewarding}'", "--gin.FORM='rewards'"]
    assert main(["label", "--gin_file=gin/runs/label.gin", *flags]) == 0
    assert "some answers are longer than the 8 tokens" in capfd.readouterr().err
