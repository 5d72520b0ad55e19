"""Names on the Hugging Face hub, with a cache that is prepared here: nothing is downloaded."""

import builtins
import importlib
import json
import os
import pathlib
import shutil
import socket
import sys
import time

import numpy as np
import pytest

import lmirl_jax
from lmirl_jax import checkpoints, cli, configuration
from lmirl_jax.cli import doctor, flags
from lmirl_jax.interop import hub
from lmirl_jax.types import UserError
from tests.interop import refusals

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = importlib.import_module("huggingface_hub.constants")

OLD, NEW = "0123456789" * 4, "abcdef0123" * 4
NAME = "an-org/tiny.t5-v1_1"


def add_revision(cache: pathlib.Path, commit: str, family: str, *names: str) -> None:
    """Adds a commit, and the branches or tags that lead to it, to a cache as huggingface_hub lays it out."""
    place = cache / f"models--{NAME.replace('/', '--')}"
    blobs, snapshot, refs = place / "blobs", place / "snapshots" / commit, place / "refs"
    for folder in (blobs, snapshot, refs):
        folder.mkdir(parents=True, exist_ok=True)
    for file in (refusals.GOLDEN / family).iterdir():
        if file.name != "expected.npz":
            shutil.copy(file, blobs / f"{commit[:4]}-{file.name}")
            (snapshot / file.name).symlink_to(f"../../blobs/{commit[:4]}-{file.name}")
    for name in names:
        (refs / name).parent.mkdir(parents=True, exist_ok=True)
        (refs / name).write_text(commit)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    """A cache with two commits of one checkpoint, and no network."""
    folder = tmp_path / "hub"
    add_revision(folder, NEW, "t5_1_1", "main", "refs/pr/1")
    add_revision(folder, OLD, "t5_1_0", "v1.0")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


@pytest.fixture
def unreachable(monkeypatch):
    """A hub that takes connections and never answers, as behind a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(hub, "TIMEOUT", 0.3)
        huggingface_hub.close_session()
        yield
    huggingface_hub.close_session()


@pytest.mark.parametrize(
    ("revision", "commit"),
    [("", NEW), ("@main", NEW), ("@refs/pr/1", NEW), ("@v1.0", OLD), (f"@{OLD}", OLD), (f"@{NEW}", NEW)],
)
def test_names_and_revisions(cache, revision, commit):
    found = checkpoints.find_checkpoint(NAME + revision)
    assert found.name == commit
    assert checkpoints.pinned(NAME + revision) == f"{NAME}@{commit}"
    family = "t5_1_1" if commit == NEW else "t5_1_0"
    here = lmirl_jax.load(NAME + revision)
    there = lmirl_jax.load(refusals.GOLDEN / family)
    np.testing.assert_array_equal(here.logits([[0, 5]], [[7, 8]]), there.logits([[0, 5]], [[7, 8]]))
    assert here.generate("add 3 and 4", max_new_tokens=4) == there.generate("add 3 and 4", max_new_tokens=4)


def test_the_doctor_knows_names(cache, capsys):
    assert doctor.main(flags.Flags(checkpoint=NAME)) == 0
    out = capsys.readouterr().out
    assert NEW in out and "Hugging Face" in out and out.endswith("it can be loaded\n")


def refused(name: str) -> str:
    with pytest.raises(UserError) as caught:
        lmirl_jax.load(name)
    line = str(caught.value)
    assert "\n" not in line and f"no folder {name} in {os.getcwd()}" in line
    return line


@pytest.mark.parametrize(
    "name", ["an-org/another", f"{NAME}@v2.0", f"{NAME}@{'9' * 40}", f"{NAME}@0123456", "numbers/mle"]
)
def test_what_is_not_in_the_cache(cache, name):
    line = refused(name)
    repository, _, revision = name.partition("@")
    command = f"`hf download {repository}{f' --revision {revision}' if revision else ''}`"
    assert command in line and "check the path or the name" in line


def test_a_folder_of_this_name_comes_first(cache):
    shutil.copytree(refusals.GOLDEN / "t5_1_0", NAME)
    assert checkpoints.find_checkpoint(NAME) == pathlib.Path.cwd() / NAME
    assert checkpoints.pinned(NAME) == str(pathlib.Path.cwd() / NAME)


@pytest.mark.parametrize(
    "path",
    ["../a", "./a", "a/b/c", "/a/b", "a", "a/..", "-a/b", "a /b", "a/ü", "~/a", "a/b@", "gs://a/b", ".a/b"],
)
def test_paths_that_are_no_names(cache, path):
    assert not hub.is_name(path)
    if "://" not in path:
        with pytest.raises(UserError, match="no checkpoint at"):
            checkpoints.find_checkpoint(path)


def test_a_snapshot_without_its_weights_is_one_line(cache, capsys):
    next(cache.glob(f"*/snapshots/{NEW}/model.safetensors")).unlink()
    with pytest.raises(UserError, match=r"has no safetensors in .*: run `hf download") as caught:
        lmirl_jax.load(NAME)
    assert "\n" not in str(caught.value)


def test_without_the_library(cache, monkeypatch):
    real = builtins.__import__

    def no_hub(name, *rest):
        if name.partition(".")[0] == "huggingface_hub":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_hub)
    monkeypatch.delitem(sys.modules, "huggingface_hub")
    assert "pip install 'lmirl_jax[hub]'" in refused(NAME)


def test_no_answer_from_the_hub(cache, unreachable):
    """The cache has the last word, and a typing error in a path is told soon."""
    start = time.monotonic()
    assert checkpoints.pinned(NAME) == f"{NAME}@{NEW}"
    assert "timed out" in refused("numbers/mle").lower()
    assert time.monotonic() - start < 5


def test_a_cached_commit_needs_no_answer(cache, unreachable, monkeypatch):
    def fail(*arguments, **options):
        pytest.fail("the hub is asked")

    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", fail)
    assert checkpoints.pinned(f"{NAME}@{OLD}") == f"{NAME}@{OLD}"


def test_no_network(cache, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert checkpoints.pinned(NAME) == f"{NAME}@{NEW}"
    assert "hf download" in refused("numbers/mle")


@pytest.mark.slow
def test_training_records_the_revision(cache, tmp_path, one_process):
    rows = [{"inputs": f"add {n} and 4", "targets": f"{n + 4}"} for n in range(16)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "MODEL_DIR": f"'{tmp_path / 'run'}'",
        "DATA": f"'{tmp_path / 'data.jsonl'}'",
        "INITIAL_CHECKPOINT_PATH": f"'{NAME}'",
        "TASK_FEATURE_LENGTHS": "{'inputs': 32, 'targets': 16}",
        "TRAIN_STEPS": "2",
        "BATCH_SIZE": "8",
    }
    given = [f"--gin.{name}={value}" for name, value in settings.items()]
    assert cli.main(["train", "--gin_file=gin/runs/finetune.gin", *given]) == 0
    text = (tmp_path / "run/config.gin").read_text()
    assert f"INITIAL_CHECKPOINT_PATH = '{NAME}@{NEW}'" in " ".join(text.split())
    # The run outlives the cache.
    shutil.rmtree(cache)
    with configuration.restore_afterwards():
        assert lmirl_jax.load(tmp_path / "run").generate("add 3 and 4", max_new_tokens=4) is not None
