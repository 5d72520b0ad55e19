"""What happens when TensorFlow and SeqIO are first imported, by whomever: TensorFlow keeps silent and off the accelerators.

Neither is imported here, as a run on a file needs neither. Bundled tasks register themselves once SeqIO is there.
"""

import contextlib
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

# Read when TensorFlow is first imported: without them it writes lines about CUDA and oneDNN in every process.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# The lines that TensorFlow writes before its log level counts, where there is no GPU.
_GREETING = re.compile(
    rb"before absl::InitializeLog|\b(port|cudart_stub|cuda_platform|cpu_feature_guard)\.cc:"
)

_waiting: list[Callable[[], None]] = []


def register_with_seqio(register: Callable[[], None]) -> None:
    """Calls a function that registers tasks: now where SeqIO is loaded, else as soon as anyone imports it."""
    if "seqio" in sys.modules:
        register()
    else:
        _waiting.append(register)


class _Finder:
    """Finds both libraries where they are, and adds to their loading what this module promises."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        after = {"tensorflow": _hide_accelerators, "seqio": _register_waiting}.get(name)
        spec = None if after is None else importlib.machinery.PathFinder.find_spec(name, path, target)
        if after is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_quietly(module: Any) -> None:
            with _without_greeting():
                execute(module)
                after(module)

        # The loader belongs to this one spec.
        spec.loader.exec_module = execute_quietly
        return spec


def install() -> None:
    """Makes Python ask this module for both libraries; once."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def _hide_accelerators(tensorflow: Any) -> None:
    # JAX owns the accelerators. TensorFlow refuses once it has touched a device: then it is too late, and harmless.
    for kind in ("GPU", "TPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tensorflow.config.set_visible_devices([], kind)


def _register_waiting(seqio: Any) -> None:
    while _waiting:
        _waiting.pop(0)()


@contextlib.contextmanager
def _without_greeting() -> Iterator[None]:
    """Holds back what is written to standard error from below Python, and passes on all but the greeting."""
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
                if not _GREETING.search(line):
                    os.write(2, line)
