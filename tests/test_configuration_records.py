"""What a run takes from the record of the run that it starts from, and what a resume says it changes."""

import pathlib

import gin
import pytest

from lmirl_jax import configuration, configuration_records
from lmirl_jax.cli import main

RECORD = """
from __gin__ import dynamic_registration
from lmirl_jax import data
from lmirl_jax import models

BATCH_SIZE = 4
DATA = '/data/mine.jsonl'
DISCOUNT = 0.9
LEARNING_RATE = 0.001
MIXTURE_OR_TASK_NAME = None
MODEL = @models.T5Config()
TASK_FEATURE_LENGTHS = {'inputs': 16, 'targets': 12}
VALIDATION_DATA = None
VOCABULARY_PATH = '/data/mine.model'
VOCAB_SIZE = @data.vocab_size()

data.get_task.data = %DATA
models.T5Config.dropout_rate = %DROPOUT_RATE
models.T5Config.emb_dim = 64
"""
TASK = ["MIXTURE_OR_TASK_NAME", "DATA", "VALIDATION_DATA"]
SIZES = ["MODEL", "VOCAB_SIZE", "models.T5Config.dropout_rate", "models.T5Config.emb_dim"]
REST = ["VOCABULARY_PATH", "TASK_FEATURE_LENGTHS", "BATCH_SIZE", "DISCOUNT"]


@pytest.fixture(autouse=True)
def _cleared():
    yield
    gin.clear_config()


@pytest.mark.parametrize(
    ("explicit", "keys"),
    [
        (set(), [*TASK, *REST, *SIZES]),
        ({"DATA"}, [*REST, *SIZES]),
        ({"BATCH_SIZE", "LEARNING_RATE"}, [*TASK, *REST[:2], "DISCOUNT", *SIZES]),
        ({"MODEL"}, [*TASK, *REST]),
        ({"models.T5Config.emb_dim"}, [*TASK, *REST, *SIZES[:3]]),
    ],
)
def test_settings_are_inherited_unless_they_are_explicit(explicit, keys):
    record = configuration_records.read(RECORD)
    assert configuration_records.inherited_keys(record, explicit) == keys


def test_the_same_demonstrations_are_drawn_whatever_the_seed_and_only_of_the_same_task():
    drawn = {"TRAIN_NUM_EXAMPLES": "300", "TRAIN_EXAMPLES_SEED": "%RANDOM_SEED", "RANDOM_SEED": "7"}
    text = RECORD + "".join(f"{name} = {value}\n" for name, value in drawn.items())
    record = configuration_records.with_own_draw(configuration_records.read(text))
    keys = configuration_records.inherited_keys(record, {"RANDOM_SEED"})
    assert {name: record.values[name] for name in keys if name in drawn} == {
        "TRAIN_NUM_EXAMPLES": "300",
        "TRAIN_EXAMPLES_SEED": "7",
    }
    for explicit in ({"DATA"}, {"TRAIN_NUM_EXAMPLES"}):
        assert not drawn.keys() & set(configuration_records.inherited_keys(record, explicit))
    assert "MIXTURE_OR_TASK_NAME" in configuration_records.inherited_keys(record, {"TRAIN_NUM_EXAMPLES"})


def test_a_vocabulary_is_inherited_with_the_use_of_its_chat_template():
    """A user may set the template alone; that of another vocabulary is another template."""
    record = configuration_records.read("VOCABULARY_PATH = '/data/chat'\nCHAT = False\nMODEL_DIR = '/run'\n")
    names = {"VOCABULARY_PATH", "CHAT"}
    for explicit, inherited in (
        (set(), names),
        ({"CHAT"}, {"VOCABULARY_PATH"}),
        ({"VOCABULARY_PATH"}, set()),
    ):
        assert names & set(configuration_records.inherited_keys(record, explicit)) == inherited
    assert "a resume is refused" in configuration_records.effect("CHAT")
    for name in ("PACK", "BUCKETS", "BATCH_SIZE"):
        assert "a resume is refused" in configuration_records.effect(name)


def test_how_files_are_read_is_inherited_with_them_alone():
    text = RECORD + "COLUMNS = {'inputs': 'ask'}\nVALIDATION_SHARE = 0.1\n"
    record, names = configuration_records.read(text), {"COLUMNS", "VALIDATION_SHARE"}
    for explicit, inherited in ((set(), names), ({"COLUMNS"}, {"VALIDATION_SHARE"}), ({"DATA"}, set())):
        assert names & set(configuration_records.inherited_keys(record, explicit)) == inherited
    for name in names:
        assert "a resume is refused" in configuration_records.effect(name)
    # A record from before there were these settings has none of them.
    assert not names & set(configuration_records.inherited_keys(configuration_records.read(RECORD), set()))


def test_paths_of_a_mixture_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = [
        "MODEL_DIR = '/run'",
        "TRAIN_STEPS = 1",
        "DATA = {'a.jsonl': 2, 'b/*.csv': 1, 'gs://c/d.jsonl': 3}",
    ]
    configuration.load(["gin/runs/finetune.gin"], given, complete=False)
    configuration.make_absolute(["DATA"])
    paths = {str(tmp_path / "a.jsonl"): 2, str(tmp_path / "b/*.csv"): 1, "gs://c/d.jsonl": 3}
    assert configuration.macro("DATA") == paths and list(configuration.macro("DATA")) == list(paths)


def test_bundled_runs_of_a_checkpoint_of_their_own_hold_explicit_settings():
    keys = configuration.explicit_keys(["gin/runs/quickstart.gin"], [])
    assert {"MIXTURE_OR_TASK_NAME", "TRAIN_NUM_EXAMPLES", "BATCH_SIZE"} <= keys and "MODEL" not in keys


def test_inherited_settings_are_a_complete_gin_text():
    record = configuration_records.read(RECORD)
    text = record.text(["DATA", "MODEL", "VALIDATION_DATA"])
    assert configuration_records.read(text).values == {
        "DATA": "'/data/mine.jsonl'",
        "MODEL": "@models.T5Config()",
        "VALIDATION_DATA": "None",
    }
    assert text.startswith("from __gin__ import dynamic_registration\nfrom lmirl_jax import")


def test_bundled_runs_hold_defaults_and_users_files_explicit_settings(tmp_path):
    own = tmp_path / "mine.gin"
    own.write_text(
        "include 'gin/runs/online_iqlearn.gin'\ninclude 'gin/models/t5_1_1/tiny.gin'\nTD_PEAK = 0.5\n"
    )
    keys = configuration.explicit_keys([str(own)], ["BATCH_SIZE = 8", "training.adamw.b1 = 0.5"])
    assert {"TD_PEAK", "BATCH_SIZE", "training.adamw.b1", "MODEL", "models.T5Config.emb_dim"} <= keys
    assert not keys & {"MIXTURE_OR_TASK_NAME", "TASK_FEATURE_LENGTHS", "TRAIN_STEPS"}


def test_inherited_settings_override_files_and_flags_override_them():
    record = configuration_records.read(RECORD)
    given = ["MODEL_DIR = '/run'", "BATCH_SIZE = 8"]
    explicit = configuration.explicit_keys(["gin/runs/online_iqlearn.gin"], given)
    inherited = record.text(configuration_records.inherited_keys(record, explicit))
    configuration.load(["gin/runs/online_iqlearn.gin"], given, inherited=inherited)
    assert configuration.macro("DATA") == "/data/mine.jsonl"
    assert configuration.macro("MIXTURE_OR_TASK_NAME") is None
    assert configuration.macro("BATCH_SIZE") == 8
    assert configuration.macro("DISCOUNT") == 0.9
    assert configuration.macro("LEARNING_RATE") == 1e-3  # The quickstart's own, by chance the same.
    # Sizes are the run's; what the size files leave to a run, such as dropout, is that of this one.
    assert gin.query_parameter("models.T5Config.emb_dim") == 64


def test_each_changed_setting_is_one_line_with_its_effect():
    before = configuration_records.read(RECORD).values
    now = {
        **before,
        "BATCH_SIZE": "8",
        "DISCOUNT": "1.0",
        "LEARNING_RATE": "0.01",
        "TASK_FEATURE_LENGTHS": "{'inputs': 16, 'targets': 16}",
        "training.adamw.b1": "0.5",
        "OBJECTIVE": "@objectives.mle",
        # These change nothing of what is learnt.
        "TRAIN_STEPS": "100",
        "sharding.make_mesh.data": "2",
    }
    lines = configuration_records.changes(before, now)
    assert len(lines) == 6 and not [line for line in lines if "\n" in line]
    assert (
        "BATCH_SIZE was 4 and is 8: the position in the data counts examples (rows, if packed) and is kept"
        in lines[0]
    )
    assert "DISCOUNT was 0.9 and is 1.0: rewards mean another discounted sum" in lines[1]
    assert "LEARNING_RATE was 0.001 and is 0.01: the schedule" in lines[2]
    assert "OBJECTIVE was unset and is @objectives.mle: the loss is another from here on" in lines[3]
    assert "examples are cut elsewhere" in lines[4]
    assert "training.adamw.b1 was its default and is 0.5: it holds from here on" in lines[5]
    assert configuration_records.changes(before, before) == []
    # The number of steps alone has no effect on those made, unless a schedule has that length.
    schedule = {
        "training.warmup_cosine.decay_steps": "%TRAIN_STEPS",
        "training.train.train_steps": "%TRAIN_STEPS",
    }
    before, now = ({**before, **schedule, "TRAIN_STEPS": steps} for steps in ("50", "100"))
    assert configuration_records.changes(before, before) == []
    (line,) = configuration_records.changes(before, now)
    assert line.startswith(
        "TRAIN_STEPS was 50 and is 100, and with it training.warmup_cosine.decay_steps: the schedule is a function"
    )


SMALL = [
    "--gin.TRAIN_STEPS=1",
    "--gin.EVALUATIONS=[]",
    "--gin.models.T5Config.emb_dim=16",
    "--gin.models.T5Config.mlp_dim=32",
]


@pytest.mark.slow
def test_online_from_a_run_on_a_users_file(tmp_path, monkeypatch, capfd):
    """The command names the start alone; and its resume with another batch says what that does."""
    monkeypatch.chdir(tmp_path)
    lines = [f'{{"inputs": "{n}+1", "targets": "{n + 1}"}}' for n in range(40)]
    pathlib.Path("mine.jsonl").write_text("\n".join(lines))
    first = ["train", "--gin_file=gin/runs/finetune.gin", "--gin_file=gin/models/t5_1_1/tiny.gin", *SMALL]
    first += ["--gin.MODEL_DIR='first'", "--gin.DATA='mine.jsonl'", "--gin.BATCH_SIZE=8"]
    assert main([*first, "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 6}"]) == 0
    online = ["train", "--gin_file=gin/runs/online_iqlearn.gin", "--gin.MODEL_DIR='online'", *SMALL[:2]]
    online += ["--gin.INITIAL_CHECKPOINT_PATH='first'"]
    capfd.readouterr()
    assert main(online) == 0
    said = capfd.readouterr().err
    assert "DATA='" in said and "BATCH_SIZE=8" in said and "MODEL=@models.T5Config()" in said
    assert main([*online, "--gin.TRAIN_STEPS=2", "--gin.LEARNING_RATE=0.01"]) == 0
    assert "resumed with another setting: LEARNING_RATE was 0.001 and is 0.01" in capfd.readouterr().err
    record = configuration_records.read(pathlib.Path("online/config.gin").read_text())
    assert record.values["TASK_FEATURE_LENGTHS"] == "{'inputs': 8, 'targets': 6}"
