"""What `lmirl doctor --checkpoint=PATH` says: what a checkpoint is, and whether it would load."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from etils import epath

from lmirl_jax import checkpoints, configuration, configuration_pretrained, data, interop, run_files
from lmirl_jax.cli.checkpoint_damage import describe_files
from lmirl_jax.models.abstract import parameter_count, parameter_shapes
from lmirl_jax.types import UserError

KINDS = {"lmirl": "a run of lmirl", "hf": "Hugging Face", "t5x": "T5X"}
# Settings of a network that a run chooses, not its checkpoint.
NO_SIZES = ("dropout_rate", "dtype", "remat", "scan_unroll")


def describe_checkpoint(path: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Describes a checkpoint, and compares its files with what it says of them.

    Args:
        path: the checkpoint, as `checkpoints.find_checkpoint` finds it.

    Returns:
        The rows of a table, and what keeps the checkpoint from being loaded.
    """
    rows: list[tuple[str, str]] = []
    try:
        checkpoint = checkpoints.locate(path)
        rows.append(("checkpoint", str(checkpoint)))
        kind = checkpoints.kind_of(checkpoint)
        rows.append(("kind", KINDS[str(kind)]))
        for name, part in itertools.chain([("files", checkpoint)], _bases(checkpoint)):
            compared, problems = describe_files(part, str(checkpoints.kind_of(part)))
            rows.append((name, compared))
            if problems:
                return rows, problems
        rows += _of_run(checkpoint) if kind == "lmirl" else _of_pretrained(checkpoint)
    except UserError as error:
        return rows, [str(error)]
    return rows, []


def _bases(checkpoint: epath.Path) -> Iterator[tuple[str, epath.Path]]:
    """The checkpoint of the base of adapters of ours, after the name of its row; PEFT's is read with its adapters."""
    # This is asked for after the record was compared.
    record = checkpoints.read_record(checkpoint)
    if record is not None:
        yield "files of the base", checkpoints.base_of(record, checkpoint)


def _of_pretrained(checkpoint: epath.Path) -> Iterator[tuple[str, str]]:
    pretrained = interop.open_pretrained(checkpoint)
    yield "family", _family(pretrained.model_type, pretrained.model)
    yield from _network(pretrained.model)
    yield "weights", ", ".join(pretrained.dtypes)
    yield from _vocabulary(checkpoint, pretrained.model)
    lengths = pretrained.lengths
    yield "lengths", "none stated" if lengths is None else str(dict(lengths))


def _of_run(checkpoint: epath.Path) -> Iterator[tuple[str, str]]:
    yield "step", str(checkpoints.step_of(checkpoint))
    with configuration.restore_afterwards():
        configuration.load([run_files.config_of(checkpoint)])
        model, task = configuration.macro("NETWORK"), configuration.macro("TASK")
        lengths = dict(configuration.macro("TASK_FEATURE_LENGTHS"))
    checkpoints.check_params(checkpoint, parameter_shapes(model))
    yield from _network(model)
    yield "weights", "float32"
    yield "task", task.name
    yield "vocabulary", _describe(task.output_vocabulary)
    yield "lengths", str(lengths)


def _family(model_type: str, model: Any) -> str:
    """The name by which people know a family; several share the model_type 't5'."""
    known = {"mt5": "mT5", "umt5": "UMT5", "t5gemma": "T5Gemma"}
    known |= {"llama": "Llama", "qwen2": "Qwen 2 or 2.5", "qwen3": "Qwen 3"}
    known |= {"gemma2": "Gemma 2", "gemma3_text": "Gemma 3"}
    if model_type == "t5":
        is_first = len(model.mlp_activations) == 1
        has_bytes = model.vocab_size == configuration_pretrained.BYTE_ROWS
        return "T5 1.0" if is_first else "ByT5" if has_bytes else "T5 1.1 (LM-adapted and Flan-T5 are alike)"
    return known[model_type]


def _network(model: Any) -> Iterator[tuple[str, str]]:
    yield "network", type(model).__name__
    yield "sizes", _sizes(model)
    yield "parameters", f"{parameter_count(model):,}"


def _sizes(config: Any) -> str:
    fields = [field.name for field in dataclasses.fields(config) if field.name not in NO_SIZES]
    values = {name: getattr(config, name) for name in fields}
    return ", ".join(
        f"{name}=({_sizes(value)})" if dataclasses.is_dataclass(value) else f"{name}={value}"
        for name, value in values.items()
    )


def _vocabulary(checkpoint: epath.Path, model: Any) -> Iterator[tuple[str, str]]:
    path = run_files.own_vocabulary(checkpoint)
    if path is None:
        has_bytes = model.vocab_size == configuration_pretrained.BYTE_ROWS
        yield "vocabulary", "none beside it: " + ("that of bytes" if has_bytes else "set VOCABULARY_PATH")
        return
    own = data.vocabulary(path)
    yield "vocabulary", _describe(own)
    if own.vocab_size > model.vocab_size:
        raise UserError(
            f"the tokenizer has {own.vocab_size} words and the embedding {model.vocab_size} rows: it is another model's"
        )


def _describe(vocabulary: Any) -> str:
    ends = ", ".join(map(str, vocabulary.eos_ids))
    return f"{type(vocabulary).__name__}, {vocabulary.vocab_size:,} words, ended by {ends}"
