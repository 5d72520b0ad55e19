"""Hooks into the first import of TensorFlow and SeqIO, wherever it happens: TensorFlow writes no start-up lines and uses no GPU.

Neither is imported here, because a run on a file needs neither. Bundled tasks are registered when SeqIO is imported.
"""

import contextlib
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

# TensorFlow reads these when it is first imported. Without them it writes lines about CUDA and oneDNN in every process.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# The lines that TensorFlow writes before its log level counts, where there is no GPU.
_STARTUP_LINES = re.compile(
    rb"before absl::InitializeLog|\b(port|cudart_stub|cuda_platform|cpu_feature_guard)\.cc:"
)

_waiting: list[Callable[[], None]] = []


def register_with_seqio(register: Callable[[], None]) -> None:
    """Calls a function that registers tasks: now if SeqIO is imported, else when it is imported."""
    if "seqio" in sys.modules:
        register()
    else:
        _waiting.append(register)


class _Finder:
    """Finds both libraries in the usual way, and adds the hooks of this module to their loading."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        after = {"tensorflow": _hide_accelerators, "seqio": _register_waiting}.get(name)
        spec = None if after is None else importlib.machinery.PathFinder.find_spec(name, path, target)
        if after is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_quietly(module: Any) -> None:
            with _hide_startup_lines():
                execute(module)
                after(module)

        # The loader belongs to this one spec.
        spec.loader.exec_module = execute_quietly
        return spec


def install() -> None:
    """Installs the finder of both libraries, once."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def _hide_accelerators(tensorflow: Any) -> None:
    # JAX uses the accelerators alone. TensorFlow refuses this call if it has initialised its devices already; that is harmless.
    for kind in ("GPU", "TPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tensorflow.config.set_visible_devices([], kind)


def _register_waiting(seqio: Any) -> None:
    while _waiting:
        _waiting.pop(0)()


@contextlib.contextmanager
def _hide_startup_lines() -> Iterator[None]:
    """Captures what C++ code writes to standard error, and passes on all lines but TensorFlow's start-up lines."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not _STARTUP_LINES.search(line):
                    os.write(2, line)
