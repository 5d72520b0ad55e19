"""Fine-tune language models by inverse reinforcement learning, in JAX and Flax.

Importing this package imports nothing heavy: `lmirl --help` answers at once. Its rooms load when they are first named.
"""

import importlib

__version__ = "0.1.0"

_ROOMS = (
    "checkpoints",
    "configuration",
    "data",
    "decoding",
    "evaluation",
    "exporting",
    "interop",
    "labelled",
    "language_model",
    "models",
    "objectives",
    "online",
    "reports",
    "rewards",
    "runs",
    "sharding",
    "soft_q",
    "training",
    "types",
)


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "load":
        return importlib.import_module(f"{__name__}.language_model").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_ROOMS, "load"])
