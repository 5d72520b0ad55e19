"""The sources pass the tools that pre-commit runs, and functions stay small."""

import ast
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.e2e

ROOT = pathlib.Path(__file__).resolve().parents[1]
MOST_LINES = 60
MOST_PARAMETERS = 8
# Functions that are over a limit, and why they may be. Functions that gin files set (`@check_arguments`, or the constructor of
# such a class) may have any number of parameters, and need no place here.
EXEMPT = {
    # The primitive of every objective: a keyword for each quantity that can be read off the logits.
    "lmirl_jax/soft_q.py: from_hidden": "11 parameters",
}


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "--no-cache"], ["ruff", "format", "--check", "--no-cache"], ["pyrefly", "check"]],
    ids=["ruff check", "ruff format", "pyrefly check"],
)
def test_tool(repository, command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def functions(node: ast.AST, gin_sets: bool = False) -> Iterator[tuple[ast.FunctionDef, bool]]:
    """Every function below a node, and whether gin files set its arguments."""
    for child in ast.iter_child_nodes(node):
        checked = any(
            isinstance(each, ast.Name) and each.id == "check_arguments"
            for each in getattr(child, "decorator_list", [])
        )
        if isinstance(child, ast.FunctionDef):
            yield child, checked or (gin_sets and child.name == "__init__")
        yield from functions(child, checked and isinstance(child, ast.ClassDef))


def excess(function: ast.FunctionDef, gin_sets: bool) -> str | None:
    """By how much a function is over a limit, in words; its docstring counts, its decorators do not."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if lines > MOST_LINES:
        return f"{lines} lines, at most {MOST_LINES}"
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    count = len([name for name in names if name not in ("self", "cls")])
    if count > MOST_PARAMETERS and not gin_sets:
        return f"{count} parameters, at most {MOST_PARAMETERS}"
    return None


def test_functions_are_small():
    """An exemption that is no longer needed fails too."""
    excesses = {}
    for folder in ("lmirl_jax", "tasks", "launch", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for function, gin_sets in functions(ast.parse(path.read_text(encoding="utf-8"))):
                what = excess(function, gin_sets)
                if what is not None:
                    excesses[f"{path.relative_to(ROOT).as_posix()}: {function.name}"] = what
    assert {name: what for name, what in excesses.items() if name not in EXEMPT} == {}
    assert set(EXEMPT) <= set(excesses)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("def f(a, b, c, d, e, f, g, h): pass", None),
        ("def f(a, b, c, d, e, f, g, h, *, i): pass", "9 parameters, at most 8"),
        ("@check_arguments\ndef f(a, b, c, d, e, f, g, h, i): pass", None),
        ("@check_arguments\nclass C:\n    def __init__(self, a, b, c, d, e, f, g, h, i): pass", None),
        ("class C:\n    def __init__(self, a, b, c, d, e, f, g, h): pass", None),
        ("def f():\n" + "    pass\n" * 60, "61 lines, at most 60"),
    ],
)
def test_the_limits_by_hand(source, what):
    ((function, gin_sets),) = functions(ast.parse(source))
    assert excess(function, gin_sets) == what
