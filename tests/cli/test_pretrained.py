"""From a Hugging Face folder to a fine-tuned one, by the commands that a user types."""

import json
import shutil

import jax
import numpy as np
import pytest
from etils import epath

import lmirl_jax
from lmirl_jax import checkpoints
from lmirl_jax.cli import main
from lmirl_jax.training.metric_writers import read_metrics
from tests.pretrained import GOLDEN

# Steps large enough that the parameters move.
TRAIN = [
    "train",
    "--gin_file=gin/runs/finetune.gin",
    "--gin.TRAIN_STEPS=3",
    "--gin.BATCH_SIZE=8",
    "--gin.EVALUATIONS=[]",
    "--gin.WARMUP_STEPS=0",
    "--gin.LEARNING_RATE=1e-2",
    "--gin.DROPOUT_RATE=0.0",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 24, 'targets': 16}",
]
PROMPT, ANSWER = "add 3 and 4", "3+4=7"
# One of each network, and of each kind of output layer; tests/interop has all families, in and out.
FAMILIES = ("t5_1_0", "umt5", "t5gemma", "llama")

SMALL = {"TASK_FEATURE_LENGTHS": {"inputs": 24, "targets": 12}}
HF, OTHER = str(GOLDEN / "t5_1_1"), str(GOLDEN / "t5_1_0")


def bind(**macros: object) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """A single demonstration, so that each batch has the same loss, however its rows are packed."""
    file = tmp_path_factory.mktemp("data") / "sums.jsonl"
    file.write_text(json.dumps({"inputs": PROMPT, "targets": ANSWER}) + "\n")
    return str(file)


@pytest.fixture(scope="module", params=FAMILIES)
def tuned(request, data, tmp_path_factory):
    """A run that has started from a copy of a checkpoint, which is gone by now, and what was converted from it."""
    place = tmp_path_factory.mktemp(request.param)
    source, run, out = place / "source", place / "run", place / "out"
    shutil.copytree(GOLDEN / request.param, source)
    assert main([*TRAIN, *bind(MODEL_DIR=str(run), DATA=data, INITIAL_CHECKPOINT_PATH=str(source))]) == 0
    shutil.rmtree(source)
    macros = {"CHECKPOINT_PATH": str(run), "OUTPUT_PATH": str(out), "FORMAT": "hf"}
    assert main(["convert", *bind(**macros)]) == 0
    return GOLDEN / request.param, run, out


@pytest.mark.slow
def test_training_starts_from_the_checkpoint_and_moves_on(tuned):
    golden, run, _ = tuned
    losses = [line["train/loss_mle"] for line in read_metrics(epath.Path(run) / "metrics.jsonl")]
    assert losses[-1] < losses[0]
    scores = lmirl_jax.load(golden).score(PROMPT, [ANSWER])
    np.testing.assert_allclose(losses[0], -np.nanmean(scores.log_prob), rtol=1e-4)


@pytest.mark.slow
def test_the_run_stands_alone_and_its_export_is_the_same_model(tuned):
    _, run, out = tuned
    ours, exported = lmirl_jax.load(run), lmirl_jax.load(out)
    jax.tree.map(np.testing.assert_array_equal, ours.policy.params, exported.policy.params)
    assert ours.generate(PROMPT, max_new_tokens=16) == exported.generate(PROMPT, max_new_tokens=16)
    assert checkpoints.kind_of(epath.Path(out)) == "hf"


@pytest.mark.slow
@pytest.mark.parametrize(
    "start", ["golden/t5_1_1", "golden_t5x/t5_1_0/msgpack", "a run", "an-org/on-the-hub"]
)
def test_a_resumed_run_needs_its_start_no_longer(start, data, tmp_path, monkeypatch):
    source, run = tmp_path / "source", tmp_path / "run"
    given = str(source)
    if start == "a run":
        macros = {"CHECKPOINT_PATH": HF, "OUTPUT_PATH": given, "FORMAT": "orbax"}
        assert main(["convert", *bind(**macros)]) == 0
    elif start == "an-org/on-the-hub":
        given, commit = start, "0123456789" * 4
        folder = source / "models--an-org--on-the-hub"
        shutil.copytree(HF, folder / "snapshots" / commit)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(source))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        shutil.copytree(GOLDEN.parent / start, source)
    macros = {"MODEL_DIR": str(run), "DATA": data, "INITIAL_CHECKPOINT_PATH": given}
    if start.startswith("golden_t5x"):
        macros["VOCABULARY_PATH"] = HF
    assert main([*TRAIN, *bind(**macros)]) == 0
    shutil.rmtree(source)
    assert main([*TRAIN, *bind(**macros, TRAIN_STEPS=4)]) == 0
    assert [line["step"] for line in read_metrics(epath.Path(run) / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_start_from_hugging_face_equals_that_from_the_same_parameters_of_a_run(data, tmp_path):
    """Copies of a parameter on several devices would otherwise be one array, which each device updates."""
    orbax = tmp_path / "orbax"
    macros = {"CHECKPOINT_PATH": HF, "OUTPUT_PATH": str(orbax), "FORMAT": "orbax"}
    assert main(["convert", *bind(**macros)]) == 0
    metrics = []
    for name, start in {"hf_run": HF, "orbax_run": str(orbax)}.items():
        run = tmp_path / name
        assert main([*TRAIN, *bind(MODEL_DIR=str(run), DATA=data, INITIAL_CHECKPOINT_PATH=start)]) == 0
        metrics.append([line["train/loss"] for line in read_metrics(epath.Path(run) / "metrics.jsonl")])
    assert metrics[0] == metrics[1] and len(set(metrics[0])) == 3


@pytest.mark.slow
@pytest.mark.e2e
def test_transformers_generates_the_same_text_from_it(tuned, load_in_transformers):
    golden, run, out = tuned
    found, computed = load_in_transformers(out)
    assert not found["missing_keys"] + found["unexpected_keys"] + found["mismatched_keys"]
    prompts = ["add 3 and 4", "which is more: 12 or 7?", "say it"]
    texts = lmirl_jax.load(run).generate(prompts, max_new_tokens=32)
    # Transformers leaves the token of unknown text out, and with it the space behind one at the beginning.
    assert [text.replace("<unk>", "").strip() for text in texts] == [
        text.strip() for text in found["answers"]
    ]
    with np.load(golden / "expected.npz") as before:
        assert np.abs(computed["logits"] - before["logits"]).max() > 1e-3


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    file.write_text("add 3 and 4\nsay it\n")
    return str(file)


def read_lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_folder_of_hugging_face_answers_and_another_one_rewards(prompts, tmp_path):
    out = tmp_path / "answers.jsonl"
    macros = {"PROMPTS": prompts, "OUTPUT_PATH": str(out), "RERANK": True, "NUM_SAMPLES": 2, **SMALL}
    macros |= {"CHECKPOINT_PATH": HF, "REWARD_CHECKPOINT_PATH": OTHER}
    assert main(["infer", "--gin_file=gin/runs/infer.gin", *bind(**macros)]) == 0
    lines = read_lines(out)
    assert [line["inputs"] for line in lines] == ["add 3 and 4", "say it"]
    rewarding = lmirl_jax.load(OTHER)
    for line in lines:
        scores = rewarding.score(line["inputs"], line["samples"], batch_size=8)
        # A text may have other tokens than those that were sampled: only whole answers of the same tokens compare.
        for tokens, total, of_text in zip(line["tokens"], line["returns"], scores, strict=True):
            if tuple(tokens) == tuple(of_text.tokens):
                np.testing.assert_allclose(total, of_text.total, atol=1e-3)


@pytest.mark.slow
def test_a_folder_of_hugging_face_scores_and_is_a_reference(tmp_path):
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "scored.jsonl"
    pairs.write_text(json.dumps({"inputs": PROMPT, "targets": ANSWER}) + "\n")
    macros = {"CHECKPOINT_PATH": HF, "DATA": str(pairs), "OUTPUT_PATH": str(out), **SMALL}
    score = ["score", "--gin_file=gin/runs/score.gin", "--gin.SCORE_BATCH_SIZE=8"]
    assert main([*score, *bind(**macros, REFERENCE_PATH=OTHER, BETA=0.5)]) == 0
    (line,) = read_lines(out)
    own, reference = (lmirl_jax.load(path).score(PROMPT, [ANSWER]) for path in (HF, OTHER))
    np.testing.assert_allclose(line["reward"], (own.reward - 0.5 * reference.log_prob)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("command", "setting"), [("infer", "OUTPUT_PATH"), ("eval", "EVAL_OUTPUT_DIR"), ("score", "OUTPUT_PATH")]
)
def test_a_checkpoint_of_no_run_needs_a_place_for_the_output(command, setting, data, prompts, capsys):
    macros = {"CHECKPOINT_PATH": HF, "DATA": data, **SMALL}
    if command == "infer":
        macros = {"CHECKPOINT_PATH": HF, "PROMPTS": prompts, **SMALL}
    if command == "eval":
        macros |= {"EVAL_SPLIT": "train", "EVAL_BATCH_SIZE": 8}
    assert main([command, f"--gin_file=gin/runs/{command}.gin", *bind(**macros)]) == 1
    assert f"is in no run's folder: name the place of the output (--gin.{setting}=" in capsys.readouterr().err


def test_training_without_a_task_says_what_to_set(tmp_path, capsys):
    macros = {"INITIAL_CHECKPOINT_PATH": HF, "MODEL_DIR": str(tmp_path / "run")}
    assert main([*TRAIN, *bind(**macros)]) == 1
    assert "neither of MIXTURE_OR_TASK_NAME and DATA given" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_size_that_is_not_the_checkpoints_is_told(tmp_path, data, capsys):
    macros = {"INITIAL_CHECKPOINT_PATH": HF, "MODEL_DIR": str(tmp_path / "run"), "DATA": data}
    model = "--gin_file=gin/models/t5_1_1/tiny.gin"
    assert main([*TRAIN, model, *bind(**macros)]) == 1
    error = capsys.readouterr().err
    assert "is of another model" in error and "leave MODEL out, so that it is the checkpoint's" in error
    assert not (tmp_path / "run").exists()


def test_an_output_layer_that_the_checkpoint_lacks_begins_at_random_where_it_is_named(tmp_path, data, capsys):
    macros = {"INITIAL_CHECKPOINT_PATH": OTHER, "MODEL_DIR": str(tmp_path / "run"), "DATA": data}
    untied = [*TRAIN, "--gin.models.T5Config.logits_via_embedding=False", *bind(**macros)]
    assert main(untied) == 1
    assert "logits_dense/kernel is missing there" in capsys.readouterr().err
    assert main([*untied, "--gin.NEW_PARAMETERS=['logits_dense/.*']"]) == 0
    assert f"WARNING: begin at random, not from {OTHER}: logits_dense/kernel" in capsys.readouterr().err
