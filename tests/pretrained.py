"""Tiny checkpoints of every family of Hugging Face, and transformers as their oracle."""

import json
import pathlib
import subprocess

import numpy as np

FAMILIES = ("t5_1_0", "t5_1_1", "byt5", "mt5", "umt5", "t5gemma")
DECODER_ONLY = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
FAMILIES += DECODER_ONLY
# `transformers_models.py make` wrote them.
GOLDEN = pathlib.Path(__file__).resolve().parent / "interop" / "golden"
SCRIPT = GOLDEN.parent / "transformers_models.py"


def run_transformers(python: str, command: str, folder: pathlib.Path) -> str:
    """Runs the script with a Python that has transformers; returns what it prints."""
    done = subprocess.run(
        [python, str(SCRIPT), command, str(folder)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def load_in_transformers(python: str, folder: pathlib.Path) -> tuple[dict, dict]:
    """Loads a folder with transformers; returns what does not fit, and what it computes as arrays."""
    found = json.loads(run_transformers(python, "load", folder).splitlines()[-1])
    with np.load(folder.parent / f"{folder.name}-computed.npz") as computed:
        return found, dict(computed)
