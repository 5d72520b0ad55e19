"""What setup.py declares against what the sources import, and against the pinned set."""

import ast
import pathlib
import re
import runpy
import sys
from importlib.metadata import packages_distributions

import pytest
import setuptools
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
LIBRARY = ("lmirl_jax", "launch", "tasks")
# Required and imported by none of ours.
NOT_IMPORTED = {
    "importlib-resources": "tensorflow-datasets needs it and does not say so",
    "tensorflow-text": "SeqIO takes any version, and an older one would bring an older TensorFlow",
    "build": "a tool",
    "pyrefly": "a tool",
    "ruff": "a tool",
    "beartype": "named to jaxtyping in pyproject.toml",
    "pytest-xdist": "a plugin of pytest",
}
# What lmirl_jax.integrations.t5x imports, where T5X is installed: on no registry, it can be in no extra; clu comes with it.
WITH_T5X = {"t5x", "clu"}
# What lmirl_jax.data.beam_preparation imports, in an environment of its own: it allows neither SentencePiece's protobuf nor our
# pins, so that it can be in no extra.
WITH_BEAM = {"apache_beam"}
# Modules that tests write, and that benchmarks and scripts of the tests find beside them.
SCRIPTS = {"transformers_decoder_only", *(path.stem for path in (ROOT / "benchmarks").glob("*.py"))}
OURS = {"lmirl_jax", "tests", "user_tasks", *SCRIPTS}


@pytest.fixture(scope="module")
def arguments() -> dict:
    """Those of setup.py's call of `setuptools.setup`."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        runpy.run_path(str(ROOT / "setup.py"))
    return given


def requirements(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def imported(*folders: str) -> dict[str, str]:
    """The distributions whose modules the sources in these folders import, with a place where they do."""
    distributions = packages_distributions()
    found = {}
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            else:
                continue
            for top in (
                {name.split(".")[0] for name in names} - OURS - WITH_T5X - WITH_BEAM - sys.stdlib_module_names
            ):
                # One that is not installed has its module's name.
                owners = {canonicalize_name(name) for name in distributions.get(top, [top])}
                assert len(owners) == 1, f"{path}: {top} is of {owners}"
                found.setdefault(owners.pop(), f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_what_the_library_imports_is_required_and_the_reverse(arguments):
    base, extras = requirements(arguments["install_requires"]), arguments["extras_require"]
    optional = requirements(extras["wandb"]) | requirements(extras["hub"])
    used = imported(*LIBRARY)
    missing = {name: place for name, place in used.items() if name not in base | optional}
    assert not missing, "imported, and not in install_requires"
    idle = set(base) - set(used) - set(NOT_IMPORTED)
    assert not idle, "in install_requires, and not imported"


def test_what_tests_and_benchmarks_import_is_in_their_extras(arguments):
    base, extras = requirements(arguments["install_requires"]), arguments["extras_require"]
    tests, parity = requirements(extras["test"]), requirements(extras["parity"])
    by_tests, by_benchmarks = imported("tests"), imported("benchmarks")
    # Scripts of the tests run where the extra parity is.
    optional = parity | requirements(extras["hub"])
    assert not {name: place for name, place in by_tests.items() if name not in base | tests | optional}
    assert not {name: place for name, place in by_benchmarks.items() if name not in base | parity}
    assert not set(tests) - set(by_tests) - set(NOT_IMPORTED), "in the extra test, and not imported"
    assert not set(parity) - set(by_benchmarks) - set(by_tests) - set(NOT_IMPORTED), (
        "in the extra parity, and not imported"
    )


def pins() -> list[tuple[str, str, Marker | None]]:
    found = []
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            pin = Requirement(line)
            found.append((canonicalize_name(pin.name), str(pin.specifier).removeprefix("=="), pin.marker))
    return found


@pytest.mark.parametrize("python", ["3.11", "3.13"])
def test_the_pinned_set_has_a_version_for_each_requirement(arguments, python):
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    versions = {name: version for name, version, m in pins() if m is None or m.evaluate(environment)}
    extras = arguments["extras_require"]
    pinned = [line for lines in extras.values() for line in lines]
    for line in [*arguments["install_requires"], *pinned]:
        asked = Requirement(line)
        version = versions.get(canonicalize_name(asked.name))
        assert version is not None and asked.specifier.contains(version), f"{line}: pinned is {version}"


def test_gin_is_capped_and_each_private_name_of_it_is_listed(arguments):
    """Whoever raises the cap has the list of what to look at."""
    gin = requirements(arguments["install_requires"])["gin-config"]
    assert not gin.specifier.contains("0.6")
    used = set()
    for path in (ROOT / "lmirl_jax").rglob("*.py"):
        used |= set(re.findall(r"\bgin\.config\.(_\w+)", path.read_text(encoding="utf-8")))
    told = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert used and all(name in told for name in used), used
