"""launch/docker/Dockerfile: it takes what an installation needs, and no more."""

import pathlib
import re


def instructions(repository) -> list[tuple[str, str]]:
    text = (repository / "launch/docker/Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_all_that_is_copied_exists_and_is_let_through(repository):
    ignored = (repository / "launch/docker/Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {name for kind, rest in instructions(repository) if kind == "COPY" for name in rest.split()[:-1]}
    assert copied == kept
    assert all((repository / name).exists() for name in copied)
    # The wheel's own files: setup.py reads them.
    named = re.findall(r'ROOT / "([\w.]+)"', (repository / "setup.py").read_text())
    assert set(named) <= copied and {"gin", "tasks", "constraints.txt"} <= copied


def test_the_extras_are_those_of_the_package(repository):
    (install,) = [rest for kind, rest in instructions(repository) if kind == "RUN"]
    assert install == 'pip install --no-cache-dir --constraint constraints.txt ".[${EXTRA},hub]"'
    text = (repository / "setup.py").read_text()
    for extra in ("tpu", "cuda", "hub"):
        assert f'"{extra}": [' in text
    python = dict(instructions(repository))["FROM"].removeprefix("python:").removesuffix("-slim")
    assert tuple(map(int, python.split("."))) >= (3, 11)


def test_what_runs_is_lmirl(repository):
    assert ("ENTRYPOINT", '["lmirl"]') in instructions(repository)
    assert pathlib.PurePosixPath(dict(instructions(repository))["WORKDIR"]) == pathlib.PurePosixPath("/work")
