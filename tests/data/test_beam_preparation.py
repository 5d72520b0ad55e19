"""Apache Beam prepares the same files as one machine does."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import pytest

from lmirl_jax import configuration, data
from lmirl_jax.cli import main
from lmirl_jax.data import preparation, shards
from lmirl_jax.data.beam_preparation import beam_shards
from lmirl_jax.types import UserError


def test_without_beam_the_error_says_where_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"apache_beam is not installed: .*docs/data-pipeline\.md"):
        beam_shards([])


def test_the_command_prepares_what_training_reads(write_jsonl, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    path = write_jsonl([{"inputs": "a", "targets": "b"}] * 3)
    settings = {"MODEL_DIR": str(tmp_path / "run"), "TRAIN_STEPS": 1, "DATA": path, "VALIDATION_DATA": path}
    bindings = [f"--gin.{name}={value!r}" for name, value in settings.items()]
    with configuration.restore_afterwards():
        assert main(["prepare", "--gin_file=gin/runs/finetune.gin", *bindings]) == 0
    train, validation = capsys.readouterr().out.splitlines()
    folder = train.removeprefix("examples, train: 3 examples in ")
    assert validation.startswith("examples, validation: 3 examples in ")
    monkeypatch.setattr(preparation, "_make_parts", None)
    task = data.get_task(data=path, validation_data=path).tasks[0]
    assert str(data.tokenized_records(task, "train").folder) == folder


@pytest.fixture(scope="session")
def beam_python(repository) -> str:
    """A Python with Beam, which conflicts with the pinned set, and with this library's requirements."""
    found = os.environ.get("LMIRL_BEAM_PYTHON") or str(repository / ".venv-beam" / "bin" / "python")
    if not os.path.isfile(found):
        pytest.skip(f"no Python at {found}: LMIRL_BEAM_PYTHON must name one that has apache_beam")
    return found


BY_BEAM = """
    import logging, sys
    from lmirl_jax import data
    from lmirl_jax.data import shards
    from lmirl_jax.data.beam_preparation import beam_shards
    from lmirl_jax.types import UserError
    shards.ROWS = 20
    path, vocabulary, cache, *options = sys.argv[1:]
    task = data.get_task(data=path, vocabulary_path=vocabulary or None).tasks[0]
    try:
        print(data.tokenized_records(task, "train", cache, beam_shards(options)).folder)
    except UserError as error:
        sys.exit(f"UserError: {error}")
"""


@pytest.fixture
def by_beam(beam_python, repository):
    def run(path, vocabulary, cache):
        command = [beam_python, "-c", textwrap.dedent(BY_BEAM), path, vocabulary, str(cache)]
        command += [
            "--runner=DirectRunner",
            "--direct_num_workers=2",
            "--direct_running_mode=multi_threading",
        ]
        environment = os.environ | {"PYTHONPATH": str(repository)}
        return subprocess.run(command, capture_output=True, text=True, cwd=repository, env=environment)

    return run


def rows(count):
    return [{"inputs": f"compare {n}", "targets": "a" * (n % 9), "weight": n % 3} for n in range(count)]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.parametrize("with_model", [False, True])
def test_beam_writes_what_one_process_writes(
    by_beam, write_jsonl, tmp_path, words_model, monkeypatch, with_model
):
    monkeypatch.setattr(shards, "ROWS", 20)
    path = write_jsonl([*rows(150), json.dumps({"inputs": "a", "targets": "b", "note": 1})])
    model = str(words_model) if with_model else ""
    done = by_beam(path, model, tmp_path / "beam")
    assert done.returncode == 0, done.stderr
    task = data.get_task(data=path, vocabulary_path=model or None).tasks[0]
    here = data.tokenized_records(task, "train", str(tmp_path / "here"))
    there = pathlib.Path(done.stdout.splitlines()[-1])
    assert there.name == here.folder.name and len(list(there.parent.iterdir())) == 1
    names = {file.name for file in here.folder.iterdir()}
    assert names == {file.name for file in there.iterdir()}
    assert all((there / name).read_bytes() == (here.folder / name).read_bytes() for name in names)
    assert here.unread == {"note": 1}


@pytest.mark.slow
@pytest.mark.e2e
def test_the_first_row_that_cannot_be_used_is_named_by_beam_too(by_beam, write_jsonl, tmp_path):
    broken = {70: {"rewards": [1]}, 130: {"rewards": "a"}, 149: {"targets": 3}}
    path = write_jsonl([row | broken.get(n, {}) for n, row in enumerate(rows(150))])
    done = by_beam(path, "", tmp_path / "beam")
    assert done.returncode == 1
    assert "line 71: rewards has 1 numbers" in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "beam").iterdir())
