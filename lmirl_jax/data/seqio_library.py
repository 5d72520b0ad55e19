"""SeqIO, imported quietly and kept off the accelerators: the rest of this room takes it from here."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# The lines with which TensorFlow greets, before its log level counts, whoever has no GPU.
_GREETING = re.compile(
    rb"before absl::InitializeLog|\b(port|cudart_stub|cuda_platform|cpu_feature_guard)\.cc:"
)


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


with _without_greeting():
    import seqio
    import tensorflow as tf

    # JAX owns the accelerators. TensorFlow refuses once it has touched a device: then it is too late, and harmless.
    for _kind in ("GPU", "TPU"):
        with contextlib.suppress(RuntimeError, ValueError):
            tf.config.set_visible_devices([], _kind)

__all__ = ["seqio", "tf"]
