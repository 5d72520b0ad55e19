"""Files that grow: what a kill leaves is gone on with, and never by another run or with other settings."""

import json

import pytest
from etils import epath

from lmirl_jax import files
from lmirl_jax.types import UserError

SETTINGS = {"TEMPERATURE": 1.0, "TOP_K": None}


@pytest.fixture
def path(tmp_path):
    return epath.Path(tmp_path) / "out" / "answers.jsonl"


def partial(path):
    return path.parent / "answers.jsonl.partial"


def grow(path, *texts, settings=SETTINGS, fail=False) -> int:
    with files.open_resumable(path, settings) as (file, lines):
        for text in texts:
            file.write(text)
        if fail:
            raise KeyboardInterrupt
    return lines


def test_a_file_takes_its_name_when_it_is_complete(path):
    with files.open_resumable(path, SETTINGS) as (file, lines):
        file.write("é\n")
        assert lines == 0 and not path.exists()
    assert path.read_text(encoding="utf-8") == "é\n"
    assert [p.name for p in path.parent.iterdir()] == ["answers.jsonl"]


def test_an_interrupted_one_is_gone_on_with_without_its_torn_line(path):
    with pytest.raises(KeyboardInterrupt):
        grow(path, "a\n", "b\n", '{"c": 1', fail=True)
    assert partial(path).read_text() == 'a\nb\n{"c": 1' and not path.exists()
    assert grow(path, "c\n") == 2
    assert path.read_text() == "a\nb\nc\n"


def test_the_complete_file_of_before_stays_until_the_new_one_is(path):
    grow(path, "old\n")
    with pytest.raises(KeyboardInterrupt):
        grow(path, "new\n", fail=True)
    assert path.read_text() == "old\n"
    assert grow(path) == 1
    assert path.read_text() == "new\n"


def test_other_settings_are_refused_by_name(path):
    with pytest.raises(KeyboardInterrupt):
        grow(path, "a\n", fail=True)
    with pytest.raises(UserError, match=r"begun with TEMPERATURE=1.0, not 0.5: .* delete it") as caught:
        grow(path, settings=SETTINGS | {"TEMPERATURE": 0.5})
    assert "\n" not in str(caught.value)
    (path.parent / "answers.jsonl.partial.json").unlink()
    with pytest.raises(UserError, match="begun with TEMPERATURE=None"):
        grow(path)
    assert partial(path).read_text() == "a\n"


def test_nothing_but_a_torn_line_is_no_beginning(path):
    """Killed before the first line was whole: any settings may follow."""
    path.parent.mkdir()
    partial(path).write_text('{"a')
    assert grow(path, "b\n") == 0
    assert path.read_text() == "b\n"


def test_a_failure_before_the_first_line_leaves_nothing(path):
    with pytest.raises(KeyboardInterrupt):
        grow(path, fail=True)
    assert list(path.parent.iterdir()) == []


def test_two_runs_do_not_write_one_file(path):
    with files.open_resumable(path, SETTINGS), pytest.raises(UserError, match="another run is writing"):
        grow(path, json.dumps({}))


@pytest.mark.parametrize(
    "spelling", ["p.jsonl", "./p.jsonl", "folder/../p.jsonl", "symlink.jsonl", "hardlink.jsonl"]
)
@pytest.mark.parametrize("read", ["p.jsonl", "symlink.jsonl"])
def test_an_input_is_no_output(tmp_path, monkeypatch, spelling, read):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    given = tmp_path / "p.jsonl"
    given.write_text("a\n")
    (tmp_path / "symlink.jsonl").symlink_to(given)
    (tmp_path / "hardlink.jsonl").hardlink_to(given)
    with pytest.raises(
        UserError, match=f"OUTPUT_PATH='.*' would overwrite PROMPTS {read}, which is read: name another"
    ):
        files.check_no_input([spelling], {"DATA": None, "PROMPTS": read}, "OUTPUT_PATH")


@pytest.mark.parametrize("read", ["*.jsonl", {"a.csv": 1, "[p].jsonl": 2}])
def test_an_output_is_none_of_the_files_that_a_pattern_matches(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.jsonl").write_text("a\n")
    with pytest.raises(UserError, match=r"would overwrite DATA p\.jsonl, which is read"):
        files.check_no_input(["p.jsonl"], {"DATA": read}, "OUTPUT_PATH")
    files.check_no_input(["q.txt"], {"DATA": read}, "OUTPUT_PATH")


@pytest.mark.parametrize("name", ["out.jsonl.partial", "out.jsonl.partial.json", ".out.jsonl.tmp"])
def test_what_grows_beside_an_output_is_no_input_either(tmp_path, name):
    with pytest.raises(UserError, match="would overwrite DATA"):
        files.check_no_input([tmp_path / "out.jsonl"], {"DATA": str(tmp_path / name)}, "OUTPUT_PATH")


def test_a_checkpoint_is_not_written_into(tmp_path):
    (tmp_path / "checkpoints/3/state").mkdir(parents=True)
    (tmp_path / "checkpoints/3/_CHECKPOINT_METADATA").write_text("{}")
    with pytest.raises(UserError, match=r"lies in the checkpoint .*checkpoints/3"):
        files.check_no_input([tmp_path / "checkpoints/3/state/out.jsonl"], {}, "OUTPUT_PATH")
    files.check_no_input([tmp_path / "infer/out.jsonl"], {"DATA": "gs://bucket/out.jsonl"}, "OUTPUT_PATH")


def damage_line(path, change):
    lines = partial(path).read_bytes().splitlines(keepends=True)
    partial(path).write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize(
    ("change", "kept", "said"),
    [
        (lambda lines: [*lines[:1], b"B\n", *lines[2:]], 1, "line 2 of {} is not as it was written"),
        (lambda lines: [lines[0], *lines[2:]], 1, "line 2 of {} is not as it was written"),
        (lambda lines: [lines[1], lines[0], lines[2]], 0, "line 1 of {} is not as it was written"),
        (lambda lines: [*lines[:2], b"c"], 2, "line 3 of {} is not as it was written"),
        (lambda lines: lines[:2], 2, "{} has lost its lines after line 2"),
        (lambda lines: [*lines, b"d\n", b"e\n"], 3, "line 4 of {} is not as it was written"),
        (lambda lines: [*lines, b"d\n"], 3, None),
    ],
    ids=["changed", "deleted", "swapped", "cut", "lost", "added", "killed before the hash"],
)
def test_a_damaged_one_goes_on_before_the_damage_and_says_so(path, caplog, change, kept, said):
    with pytest.raises(KeyboardInterrupt):
        grow(path, "a\n", "b\n", "c\n", fail=True)
    damage_line(path, change)
    assert grow(path, "x\n") == kept
    assert path.read_text() == "abc"[:kept].replace("", "\n")[1:] + "x\n"
    assert [p.name for p in path.parent.iterdir()] == ["answers.jsonl"]
    told = (
        said
        and f"{said.format(partial(path))}: it goes on after line {kept}, and the lines after it are made again"
    )
    assert caplog.messages == ([told] if said else [])


def test_without_its_hashes_nothing_of_it_is_trusted(path, caplog):
    with pytest.raises(KeyboardInterrupt):
        grow(path, "a\n", "b\n", fail=True)
    (path.parent / "answers.jsonl.partial.hashes").unlink()
    assert grow(path, "a\n") == 0 and path.read_text() == "a\n"
    assert "line 1 of" in caplog.text
