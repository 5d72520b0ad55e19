"""The sources pass the tools that pre-commit runs."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "--no-cache"], ["ruff", "format", "--check", "--no-cache"], ["pyrefly", "check"]],
    ids=["ruff check", "ruff format", "pyrefly check"],
)
def test_tool(repository, command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
