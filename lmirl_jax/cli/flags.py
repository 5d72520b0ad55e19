"""Reads the flags of T5X without a library: argparse has no options such as `--gin.NAME=VALUE`."""

# launch/tpu_vm.sh reads the table of commands with the Python of the user's machine, which may be 3.9.
from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any


class UsageError(Exception):
    """A command line that cannot be read. The program prints the error as one line and exits with code 2."""


@dataclasses.dataclass
class Flags:
    """The flags of a command line."""

    gin_file: list[str] = dataclasses.field(default_factory=list)
    gin_bindings: list[str] = dataclasses.field(default_factory=list)
    gin_search_paths: list[str] = dataclasses.field(default_factory=list)
    tfds_data_dir: str | None = None
    seqio_additional_cache_dirs: list[str] = dataclasses.field(default_factory=list)
    coordinator_address: str | None = None
    process_count: int | None = None
    process_index: int | None = None
    initialization_timeout: int | None = None
    checkpoint: str | None = None
    replay: str | None = None
    modules: list[str] = dataclasses.field(default_factory=list)
    split: list[str] = dataclasses.field(default_factory=list)
    num_examples: int | None = None
    words: list[str] = dataclasses.field(default_factory=list)
    beam: str | None = None
    show_batch: bool = False
    topology: str | None = None
    num_slices: int | None = None
    objectives: list[str] = dataclasses.field(default_factory=list)
    json: bool = False
    fit: bool = False


def _replace_by(read: Callable[[str], Any]) -> Callable[[Any, str], Any]:
    return lambda _, text: read(text)


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("a whole number")
    return int(text)


def _non_empty(text: str) -> str:
    if not text:
        raise ValueError("a value")
    return text


def _split_list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag.

    Args:
        value: the form of the value in help texts; empty for a flag that takes none.
        help: the explanation of the flag.
        add: the value after one more occurrence of the flag, from the value before and the text of the occurrence.
        attribute: the attribute of `Flags` that keeps it; None for the flag's own name.
    """

    value: str
    help: str
    add: Callable[[Any, str], Any]
    attribute: str | None = None


CONFIGURATION = {
    "gin_file": Flag(
        "FILE",
        "a gin file; repeat it to put files over one another. Looked for in the current folder, in "
        "--gin_search_paths and among the bundled files (gin/runs/finetune.gin)",
        lambda before, text: [*before, _non_empty(text)],
    ),
    "gin_bindings": Flag(
        "STATEMENT",
        'the long form of --gin.NAME=VALUE, as in T5X: "NAME = VALUE"',
        lambda before, text: [*before, _non_empty(text)],
    ),
    "gin_search_paths": Flag(
        "A,B", "more folders to look for gin files in", lambda before, text: [*before, *_split_list(text)]
    ),
    "tfds_data_dir": Flag(
        "DIR",
        "where TensorFlow Datasets keeps its data sets; files of tasks such as scitldr are in a folder of that name there",
        _replace_by(_non_empty),
    ),
    "seqio_additional_cache_dirs": Flag(
        "A,B", "more folders with SeqIO's cached tasks", lambda before, text: [*before, *_split_list(text)]
    ),
}
PROCESSES = {
    "coordinator_address": Flag(
        "HOST:PORT",
        "where process 0 of a run of several processes listens; 'auto' asks the cluster (Cloud TPU, SLURM, Kubernetes)",
        _replace_by(_non_empty),
    ),
    "process_count": Flag("N", "how many processes the run has", _replace_by(_whole_number)),
    "process_index": Flag("I", "which of them this is, from 0", _replace_by(_whole_number)),
    "initialization_timeout": Flag(
        "SECONDS",
        "how long the processes wait for one another at the start (300)",
        _replace_by(_whole_number),
    ),
}
CHECKPOINT = {
    "checkpoint": Flag(
        "PATH",
        "only say what this checkpoint is (a run's, Hugging Face's or T5X's), whether it would load, and whether it is damaged",
        _replace_by(_non_empty),
    )
}
SHOW_BATCH = {
    "show_batch": Flag(
        "",
        "print the first batch of the run that the gin files describe, token by token: text, weight, discount, TD weight, reward",
        lambda before, text: True,
    ),
    "num_examples": Flag("N", "how many rows of the batch to print (2)", _replace_by(_whole_number)),
}
REPLAY = {
    "replay": Flag(
        "FILE",
        "only compute the update of a batch again that a run saved, MODEL_DIR/nonfinite/step-STEP.npz, and that of each row",
        _replace_by(_non_empty),
    )
}
TASKS = {
    "import": Flag(
        "MODULE",
        "a module that registers tasks with SeqIO, as a gin file would import it; repeat it for more",
        lambda before, text: [*before, _non_empty(text)],
        attribute="modules",
    ),
    "split": Flag(
        "NAME",
        "show this split; repeat it for more (all)",
        lambda before, text: [*before, _non_empty(text)],
    ),
    "num_examples": Flag("N", "how many examples to print of each split (2)", _replace_by(_whole_number)),
}
BEAM = {
    "beam": Flag(
        "OPTIONS",
        "prepare by Apache Beam with these options of its pipeline, in one string: '--runner=DirectRunner'",
        _replace_by(_non_empty),
    )
}
COMPILATION = {
    "topology": Flag(
        "CHIP:SIDES",
        "the TPU slice to compile for, on a machine without one: v4:4x4x8, v5e:16x16, v5p:8x8x8 or v6e:16x16, and other sides",
        _replace_by(_non_empty),
    ),
    "num_slices": Flag(
        "N", "how many such slices, joined by the network of the data centre (1)", _replace_by(_whole_number)
    ),
    "objectives": Flag(
        "A,B",
        "compile the update of each of these, files of gin/objectives/ or online_iqlearn; by default that of the gin files",
        lambda before, text: [*before, *_split_list(text)],
    ),
    "json": Flag("", "print JSON in place of tables", lambda before, text: True),
    "fit": Flag(
        "",
        "search batch size, remat and mesh for the settings with the highest bound on MFU that fit; a minute or two for each",
        lambda before, text: True,
    ),
}
# T5X has these flags. Here they have no effect: logs go to standard error, and an address implies several processes.
_IGNORED = ("alsologtostderr", "logtostderr", "multiprocess_gpu")


def parse(arguments: Sequence[str], known: dict[str, Flag], most_words: int = 0) -> Flags:
    """Reads `--flag=value`, `--flag value` and flags without a value, and up to `most_words` words that are no flags.

    Raises:
        UsageError: one line with the nearest flag, for what is not among `known`.
    """
    flags = Flags()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if name in _IGNORED and word.startswith("--"):
            continue
        if not word.startswith("-") and len(flags.words) < most_words:
            flags.words.append(word)
            continue
        if not word.startswith("--") or not (
            name in known or (name.startswith("gin.") and "gin_bindings" in known)
        ):
            raise UsageError(_unknown(word, known))
        takes_value = name not in known or known[name].value
        if equals and not takes_value:
            raise UsageError(f"--{name} takes no value: write --{name}")
        if not equals and takes_value:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"--{name} needs a value: --{name}={_shape(name, known)}")
            value = rest.pop(0)
        _set(flags, name, value, known)
    return flags


def _set(flags: Flags, name: str, value: str, known: dict[str, Flag]) -> None:
    if name.startswith("gin."):
        binding = f"{name.removeprefix('gin.')} = {value}"
        if not value:
            raise UsageError(f"--{name} needs a value: --{name}=VALUE")
        flags.gin_bindings.append(binding)
        return
    attribute = known[name].attribute or name
    try:
        setattr(flags, attribute, known[name].add(getattr(flags, attribute), value))
    except ValueError as error:
        raise UsageError(f"--{name}={value}: needs {error}: --{name}={_shape(name, known)}") from None


def _shape(name: str, known: dict[str, Flag]) -> str:
    return known[name].value if name in known else "VALUE"


def _unknown(word: str, known: dict[str, Flag]) -> str:
    name = word.lstrip("-").partition("=")[0]
    if word == "--" or not word.startswith("-"):
        return f"unexpected argument {word!r}: flags begin with --"
    candidates = [*known, "help", *(["gin.NAME"] if "gin_bindings" in known else [])]
    if "gin_bindings" in known and name.isupper():
        return f"unknown flag {word!r}; did you mean --gin.{word.lstrip('-')}?"
    nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    return f"unknown flag {word!r}" + (
        f"; did you mean --{nearest[0]}?" if nearest else f"; there are --{', --'.join(candidates)}"
    )
