"""Every command that help texts, README, docs/ and gin headers show is one that `lmirl` takes: command, flags, bindings."""

import pathlib
import re
import shlex
import sys
from collections.abc import Iterator

import pytest

from lmirl_jax import configuration
from lmirl_jax.cli import commands, flags
from lmirl_jax.types import UserError
from tests.documents import PAGES, ROOT, write_files

LAUNCHER_FLAGS = r"(?:--\S+ )*"
LAUNCHERS = r"lmirl|launch/local\.sh|launch/tpu_vm\.sh|launch/gke/jobset\.py|sbatch .*launch/slurm\.sbatch"
COMMAND = re.compile(rf"(?:{LAUNCHERS})\s+{LAUNCHER_FLAGS}(?=\w)")
# Launched beside the commands of lmirl.
NO_COMMANDS = ("test", "python")
# What the files of a command leave to the run that it reads, which this run's configuration stands for.
OVER_A_RUN = ("eval", "infer", "score", "sweep", "report")


def documents() -> list[pathlib.Path]:
    return [*PAGES, *sorted((ROOT / "gin").rglob("*.gin"))]


def lines_of(path: pathlib.Path) -> Iterator[str]:
    """The lines of a document without the marks of a comment, with continued lines joined."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".gin":
        text = "\n".join(line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    yield from re.sub(r"\\\n\s*", "", text).splitlines()


def commands_of(path: pathlib.Path) -> list[str]:
    """Each command line of a document, as a line of its own or as inline code; those that leave something out (...) are not."""
    found = []
    for line in lines_of(path):
        places = [line.strip(), *re.findall(r"`([^`]+)`", line)]
        found += [place for place in places if COMMAND.match(place) and "..." not in place]
    return [line for line in dict.fromkeys(found) if is_command(line)]


def is_command(line: str) -> bool:
    """Prose may begin with the program's name too: a command has a flag, or stands alone."""
    words = COMMAND.sub("", line, count=1).split()
    return words[0] not in NO_COMMANDS and (
        len(words) == 1 or words[1].startswith("--") or words[:2] == ["tasks", "show"]
    )


def words_of(line: str) -> list[str]:
    return shlex.split(COMMAND.sub("", line, count=1), comments=True)


def parse(arguments: list[str]) -> None:
    """Reads a command line as `lmirl` does, up to the configuration; the files that it reads or writes need not be there."""
    name, *rest = arguments
    command = commands.COMMANDS[name]
    read = flags.parse(rest, command.flags, len(command.words))
    gin_files = list(read.gin_file)
    if name in OVER_A_RUN or name == "quickstart":
        # Runs of ILQL have settings of their own.
        run = "ilql" if any("GUIDE_WEIGHT" in word for word in rest) else "number_paths"
        gin_files = [f"gin/runs/{run}.gin", *gin_files]
    if name == "tasks":
        gin_files = ["gin/runs/finetune.gin", *gin_files]
    if name == "convert":
        gin_files = ["gin/runs/convert.gin", *gin_files]
    configuration.load(gin_files, read.gin_bindings, read.gin_search_paths, complete=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Holds the files that code blocks of the documents define."""
    folder = tmp_path_factory.mktemp("documented")
    write_files(folder)
    return folder


@pytest.fixture(autouse=True)
def _in_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])


@pytest.mark.parametrize(
    ("path", "line"),
    [
        pytest.param(path, line, id=f"{path.name}: {line}")
        for path in documents()
        for line in commands_of(path)
    ],
)
def test_a_documented_command_is_one(path, line):
    parse(words_of(line))


def test_a_parameter_that_does_not_exist_is_noticed():
    with pytest.raises(UserError, match=r"training\.train has no parameter 'total_steps'"):
        parse(["train", "--gin_file=gin/runs/finetune.gin", "--gin.training.train.total_steps=1000"])


def test_commands_are_found_in_each_kind_of_document():
    counts = {path.relative_to(ROOT).as_posix(): len(commands_of(path)) for path in documents()}
    assert counts["README.md"] >= 3 and counts["docs/fine-tuning.md"] >= 5
    assert counts["docs/rewards.md"] >= 2 and counts["gin/runs/finetune.gin"] == 1


EXAMPLES = [(name, line) for name, command in commands.COMMANDS.items() for line in command.examples]


@pytest.mark.parametrize(("name", "line"), EXAMPLES)
def test_an_example_of_the_help_is_a_command(name, line):
    assert line in commands.explanation(name)
    words = words_of(line)
    assert words[0] == name
    parse(words)


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_binding_that_a_help_text_shows_exists(name):
    """Also within its prose: a macro, a parameter and a text."""
    text = " ".join(commands.explanation(name).split("examples:")[0].split())
    shown = [word for word in re.findall(r"--gin\.[\w./]+=[^ ,)]+", text) if word != "--gin.NAME=VALUE"]
    files = [word for word in words_of(commands.COMMANDS[name].examples[-1]) if word.startswith("--gin_file")]
    assert len(shown) == 3
    for word in shown:
        parse([name, *files, *shlex.split(word.rstrip(".:;"))])


HEADERS = [path for path in documents() if path.suffix == ".gin"]


@pytest.mark.parametrize("path", HEADERS, ids=lambda path: path.name)
def test_the_flags_that_a_gin_header_shows_exist(path):
    """Those on lines of their own, such as another schedule of an objective's weight."""
    name = path.relative_to(ROOT).as_posix()
    shown: list[str] = []
    for line in lines_of(path):
        if line.startswith("--gin."):
            shown += re.match(r"(?:--\S+\s*)+", line)[0].split()
    bindings = flags.parse(shlex.split(" ".join(shown)), commands.COMMANDS["train"].flags).gin_bindings
    configuration.load(["gin/runs/finetune.gin", name], bindings, complete=False)
