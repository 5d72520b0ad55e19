"""The wheel as a user gets it: built from the sources, installed elsewhere, run from an empty folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

pytestmark = pytest.mark.e2e

SOURCES = ("setup.py", "pyproject.toml", "LICENSE", "README.md", "lmirl_jax", "gin", "tasks")


@pytest.fixture(scope="module")
def wheel(repository, tmp_path_factory) -> pathlib.Path:
    """Built from a copy: setuptools leaves folders behind where it builds."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (repository / name).is_dir():
            shutil.copytree(repository / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (repository / name).is_file():
            shutil.copy(repository / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, "-w", str(out), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(out.glob("lmirl_jax-*-py3-none-any.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def python(installed: pathlib.Path, empty: pathlib.Path, *arguments: str) -> str:
    """Runs Python in an empty folder with the installed wheel before anything else on its path."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=empty, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_what_the_checkout_holds_and_nothing_at_the_top(repository, wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"lmirl_jax"}
    assert "lmirl_jax/gin/__init__.py" not in names
    held = {name for name in names if name.startswith("lmirl_jax/gin/") and not name.endswith("/")}
    assert held == {
        f"lmirl_jax/{path.relative_to(repository)}" for path in (repository / "gin").rglob("*.gin")
    }
    for folder in ("lmirl_jax", "tasks"):
        for path in (repository / folder).rglob("*.py"):
            name = path.relative_to(repository).as_posix()
            # In a wheel the tasks lie in their package: it needs no file that points to them.
            if name != "lmirl_jax/tasks/__init__.py":
                assert (f"lmirl_jax/{name}" if folder == "tasks" else name) in names
    assert any(name.endswith("LICENSE") for name in names)
    model = repository / "tasks" / "number_paths_model"
    shipped = {f"lmirl_jax/{path.relative_to(repository)}" for path in model.rglob("*") if path.is_file()}
    assert len(shipped) > 10 and shipped <= set(names)


def test_it_runs_from_an_empty_folder(installed, tmp_path):
    assert "usage: lmirl" in python(installed, tmp_path, "-m", "lmirl_jax", "--help")
    assert "\nxsum  " in python(installed, tmp_path, "-m", "lmirl_jax", "tasks")
    script = (installed / "bin" / "lmirl").read_text()
    assert "from lmirl_jax.cli import run" in script


def test_it_finds_its_own_gin_files_and_tasks(installed, tmp_path):
    code = (
        "import importlib.util, lmirl_jax\nfrom lmirl_jax import configuration\n"
        "print(lmirl_jax.__file__, configuration.find_gin_root(), len(configuration.bundled_files()))\n"
        "print(importlib.util.find_spec('lmirl_jax.tasks.number_paths').origin)\n"
        "import gin; print(gin.__file__)"
    )
    first, tasks, gin = python(installed, tmp_path, "-c", code).splitlines()
    package = installed / "lmirl_jax"
    assert first.split()[:2] == [str(package / "__init__.py"), str(package)]
    assert int(first.split()[2]) > 0
    assert tasks == str(package / "tasks" / "number_paths.py")
    assert not gin.startswith(str(installed))


@pytest.mark.slow
def test_its_tasks_import(installed, tmp_path):
    code = "from lmirl_jax.tasks import gsm8k, number_paths, wmt22_en_de; print(gsm8k.__file__)"
    assert str(installed) in python(installed, tmp_path, "-c", code)
