"""What keeps a checkpoint from being written is one line, and leaves nothing behind."""

import errno
import pathlib

import pytest
from etils import epath

import lmirl_jax
from lmirl_jax import cli, exporting
from lmirl_jax.interop import gathered
from lmirl_jax.types import UserError
from tests.interop import refusals


@pytest.fixture(scope="module")
def model():
    return lmirl_jax.load(refusals.GOLDEN / "t5_1_0")


def names(folder: pathlib.Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("form", ["hf", "t5x", "orbax"])
def test_a_folder_that_is_not_empty_stays_as_it_is(model, tmp_path, form):
    for place in (tmp_path / "folder", tmp_path / "file"):
        if place.name == "folder":
            place.mkdir()
            (place / "mine").write_text("mine")
        else:
            place.write_text("mine")
        before = names(tmp_path)
        with pytest.raises(UserError, match="exists and is not empty: name a new folder") as caught:
            exporting.export(model.policy, str(place), form)
        assert "\n" not in str(caught.value) and names(tmp_path) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_an_empty_folder_is_filled(model, tmp_path):
    (tmp_path / "empty").mkdir()
    model.save_hf(str(tmp_path / "empty"))
    assert names(tmp_path) >= {"empty/config.json", "empty/model.safetensors"}


def test_a_place_where_the_user_may_not_write(model, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    # The tests may run as root, who may write anywhere.
    monkeypatch.setattr(type(epath.Path(tmp_path)), "touch", refuse)
    with pytest.raises(UserError, match=r"cannot write to .* \(Permission denied\)"):
        exporting.export(model.policy, str(tmp_path / "locked" / "out"), "hf")
    assert not names(tmp_path / "locked")


def test_a_place_below_a_file(model, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="cannot write to"):
        exporting.export(model.policy, str(tmp_path / "file/out"), "hf")
    with pytest.raises(UserError, match="is in a bucket: write to a disk"):
        exporting.export(model.policy, "gs://a-bucket/out", "hf")


@pytest.mark.parametrize("form", ["hf", "t5x", "orbax"])
@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(28, "No space left on device"), MemoryError])
def test_an_interruption_leaves_nothing(model, tmp_path, monkeypatch, form, fault):
    """Half of the parameters are written when it happens."""
    real, calls = gathered.Outgoing.value, []

    def value(tensor, params):
        calls.append(tensor)
        if len(calls) > 20:
            raise fault
        return real(tensor, params)

    def save(*arguments, **options):
        raise fault

    monkeypatch.setattr(gathered.Outgoing, "value", value)
    monkeypatch.setattr(exporting.checkpoints.Checkpoints, "save", save)
    with pytest.raises(fault if isinstance(fault, type) else OSError):
        exporting.export(model.policy, str(tmp_path / "new/parents/out"), form)
    assert not names(tmp_path)


def test_the_command_says_in_one_line_what_is_wrong(tmp_path, capsys, one_process):
    source = refusals.GOLDEN / "t5_1_0"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")

    def convert(**settings: str) -> list[str]:
        given = {
            "CHECKPOINT_PATH": str(source),
            "OUTPUT_PATH": str(tmp_path / "out"),
            "FORMAT": "hf",
        } | settings
        code = cli.main(["convert", *(f"--gin.{name}='{value}'" for name, value in given.items())])
        out, err = capsys.readouterr()
        assert code == 1 and not out and not (tmp_path / "out").exists()
        return [line for line in err.splitlines() if line.startswith("lmirl: ")]

    for settings, told in (
        ({"OUTPUT_PATH": str(tmp_path / "full")}, "is not empty"),
        ({"CHECKPOINT_PATH": str(tmp_path)}, "no checkpoint at"),
        ({"FORMAT": "onnx"}, "onnx"),
        (
            {"CHECKPOINT_PATH": str(refusals.GOLDEN / "umt5"), "FORMAT": "t5x"},
            "write this family with FORMAT='hf'",
        ),
    ):
        (line,) = convert(**settings)
        assert told in line
