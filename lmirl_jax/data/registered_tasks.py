"""The tasks and mixtures in SeqIO's registry, as one line each."""

import inspect
import sys
from typing import Any

from lmirl_jax.data.seqio_library import seqio

# Libraries that users take functions of a task from; their documentation does not describe the task.
_LIBRARIES = ("seqio", "t5", "lmirl_jax", "functools", "builtins")


def registered_tasks() -> dict[str, tuple[tuple[str, ...], str, str]]:
    """For each registered name the splits, the source, and the first line of the module that defines the task.

    The splits are empty where only a TFDS data set that is not here would tell them.
    """
    names = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
    return {name: _describe(seqio.get_mixture_or_task(name)) for name in names}


def _describe(provider: seqio.Task | seqio.Mixture) -> tuple[tuple[str, ...], str, str]:
    if isinstance(provider, seqio.Mixture):
        rates = ", ".join(f"{task.name} ({float(provider.get_rate(task)):g})" for task in provider.tasks)
        return _splits(provider), f"mixture of {rates}", ""
    return _splits(provider), _source(provider.source), _first_line(provider)


def _splits(provider: Any) -> tuple[str, ...]:
    try:
        return tuple(provider.splits)
    # TFDS raises errors of several kinds where it cannot read a data set.
    except Exception:
        return ()


def _source(source: Any) -> str:
    if isinstance(source, seqio.TfdsDataSource):
        return f"TFDS {source.tfds_dataset.name}"
    return type(source).__name__


def _first_line(task: seqio.Task) -> str:
    candidates = (task.postprocess_fn, *task.metric_fns, getattr(task.source, "_dataset_fn", None))
    functions: list[Any] = [*task.preprocessors, *candidates]
    for function in functions:
        plain = getattr(function, "func", function)
        module = getattr(plain, "__module__", None) or "builtins"
        if module.partition(".")[0] not in _LIBRARIES:
            return (inspect.getdoc(sys.modules[module]) or "").partition("\n")[0]
    return ""
