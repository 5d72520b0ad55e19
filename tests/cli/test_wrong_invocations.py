"""What a user gets wrong is one line that names the cause and the remedy, with its exit code; nothing is left half-written."""

import os
import tracemalloc

import pytest

from lmirl_jax import configuration
from lmirl_jax.cli import main
from lmirl_jax.data.json_rows import read_lines
from lmirl_jax.types import UserError
from tests.cli import wrong_invocations as wrong

pytestmark = pytest.mark.eight_devices

INVOCATIONS = [*wrong.FLAGS, *wrong.GIN, *wrong.NUMBERS, *wrong.MESHES, *wrong.PATHS]
INVOCATIONS += [
    (f"{wrong.RUN} --gin.BATCH_SIZE=8 --gin.DATA={name!r}", 1, line)
    for name, (_, line) in wrong.FILES.items()
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The current folder of all these commands, with the files that they name."""
    folder = tmp_path_factory.mktemp("wrong")
    wrong.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LMIRL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield folder


def test_there_are_enough_of_them():
    assert len(INVOCATIONS) >= 120 and len({command for command, _, _ in INVOCATIONS}) == len(INVOCATIONS)


@pytest.mark.parametrize(("command", "code", "expected"), INVOCATIONS)
def test_a_wrong_invocation_is_one_line(folder, capfd, command, code, expected):
    before = contents(folder)
    with configuration.restore_afterwards():
        assert main(command.split(" ")) == code
    out, err = capfd.readouterr()
    warnings = ("WARNING: ", "INFO: ")
    lines = [line for line in err.splitlines() if not line.startswith(warnings)]
    assert out == "" and len(lines) == 1, err
    assert lines[0].startswith("lmirl: ") and expected in lines[0]
    assert contents(folder) == before


def contents(folder) -> dict[str, bytes | None]:
    return {
        os.path.relpath(path, folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_a_line_of_a_gigabyte_is_refused_before_it_is_in_memory(tmp_path):
    with open(tmp_path / "gigabyte.jsonl", "wb") as file:
        file.write(b'{"inputs": "')
        file.seek(2**30)  # A hole in the file, which is read as zeros and takes no place on the disk.
        file.write(b'"}')
    tracemalloc.start()
    with open(tmp_path / "gigabyte.jsonl", "rb") as file, pytest.raises(UserError) as refused:
        next(read_lines(file, "gigabyte.jsonl", ""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(refused.value) == (
        "gigabyte.jsonl, line 1: 67,108,864 characters and more; write every example in a line of its own"
    )
    assert peak < 2**29
