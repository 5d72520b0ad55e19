"""`lmirl train` with BUCKETS: a resumed run equals an uninterrupted one, and what is refused is one line."""

import json

import pytest

from lmirl_jax import cli

SETTINGS = [
    "--gin_file=gin/runs/finetune.gin",
    "--gin_file=gin/models/t5_1_1/tiny.gin",
    "--gin.DATA='sums.jsonl'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 40}",
    "--gin.models.T5Config.emb_dim=16",
    "--gin.models.T5Config.mlp_dim=32",
    "--gin.models.T5Config.num_encoder_layers=1",
    "--gin.models.T5Config.num_decoder_layers=1",
    "--gin.EVALUATIONS=[]",
    "--gin.CHECKPOINT_PERIOD=3",
]


def train(run, steps, *more, buckets=2, batch=8):
    macros = {"MODEL_DIR": repr(run), "TRAIN_STEPS": steps, "BUCKETS": buckets, "BATCH_SIZE": batch}
    return cli.main(["train", *SETTINGS, *(f"--gin.{name}={value}" for name, value in macros.items()), *more])


def metrics(folder):
    """The lines of metrics.jsonl, without times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in lines]


@pytest.mark.slow
def test_a_run_resumes_with_the_next_batch_and_its_shape(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    rows = [{"inputs": "i" * (1 + n * 7 % 31), "targets": "t" * (n * 11 % 39)} for n in range(64)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert train("whole", 5) == 0
    said = capfd.readouterr().err
    assert "batches of 2 shapes: " in said and "in rows of 32+40 it were" in said
    whole = metrics(tmp_path / "whole")
    assert len({line["train/padding_share"] for line in whole}) > 3
    assert train("parts", 3) == 0 and train("parts", 5) == 0
    assert metrics(tmp_path / "parts") == whole
    capfd.readouterr()
    for settings in ({"batch": 16}, {"buckets": 3}, {"buckets": 1}):
        assert train("parts", 6, **settings) == 1
        line = capfd.readouterr().err.splitlines()[-1]
        assert line.startswith("lmirl: the checkpoint was trained on other data, or in another order")
        assert "BUCKETS" in line and "BATCH_SIZE" in line
    assert train("other", 1, "--gin.PACK=True") == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert (
        line == "lmirl: PACK=True and BUCKETS=2: packed rows are of one length; set PACK=False or BUCKETS=1"
    )
    assert not (tmp_path / "other").exists()
