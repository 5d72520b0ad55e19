"""Writes a folder that transformers loads: safetensors, config.json and generation_config.json."""

import json
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from lmirl_jax.interop.gathered import Outgoing, outgoing
from lmirl_jax.interop.name_table import Entry, numpy_dtype
from lmirl_jax.interop.pretrained import FAMILIES
from lmirl_jax.interop.safetensors_files import INDEX, WEIGHTS
from lmirl_jax.types import ModelConfig

# The bytes of a file of weights: as much is in memory while it is written.
LARGEST_FILE = 2 * 10**9
GENERATION = "generation_config.json"


def write_weights(
    folder: pathlib.Path,
    entries: Sequence[Entry],
    params: Mapping[str, Any],
    dtype_of: Callable[[str], str],
    largest_file: int = LARGEST_FILE,
) -> None:
    """Writes parameters as safetensors files, of which only one is in memory at a time.

    Args:
        folder: where to write.
        entries: the name table.
        params: our parameters by their paths, on any mesh; every process calls this, and the first one writes.
        dtype_of: gives the type of each parameter by our path, such as 'bfloat16'.
        largest_file: the number of bytes after which another file is begun.
    """
    files = _split(list(outgoing(entries, params)), dtype_of, largest_file)
    weight_map, total = {}, 0
    for number, tensors in enumerate(files, 1):
        name = WEIGHTS if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        values = {}
        for tensor in tensors:
            value = tensor.value(params).astype(numpy_dtype(dtype_of(tensor.entry.ours)), copy=False)
            values[tensor.name] = np.ascontiguousarray(value)
            weight_map[tensor.name], total = name, total + value.nbytes
        if jax.process_index() == 0:
            save_file(values, folder / name, metadata={"format": "pt"})
    if jax.process_index() == 0 and len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _split(
    tensors: list[Outgoing], dtype_of: Callable[[str], str], largest_file: int
) -> list[list[Outgoing]]:
    files: list[list[Outgoing]] = [[]]
    size = 0
    for tensor in tensors:
        added = int(np.prod(tensor.shape)) * numpy_dtype(dtype_of(tensor.entry.ours)).itemsize
        if files[-1] and size + added > largest_file:
            files.append([])
            size = 0
        files[-1].append(tensor)
        size += added
    return files


def write_config(
    folder: pathlib.Path,
    model: ModelConfig,
    model_type: str,
    dtype: str,
    template: pathlib.Path | None,
    eos_ids: Sequence[int],
    pad_id: int,
) -> None:
    """Writes config.json and generation_config.json.

    Args:
        folder: where to write.
        model: the recipe of the network.
        model_type: Hugging Face's name of the family.
        dtype: the type of the weights.
        template: the folder of the Hugging Face checkpoint from which training started; its settings stay as they are,
            but for the size of the vocabulary and the type. None where there was none.
        eos_ids: the tokens that end an answer.
        pad_id: the token that fills up rows.
    """
    ours = FAMILIES[model_type].config_json(model, model_type)
    special = {"eos_token_id": eos_ids[0] if len(eos_ids) == 1 else list(eos_ids), "pad_token_id": pad_id}
    if template is None:
        _write_json(folder / "config.json", ours | special | {"dtype": dtype})
        names = ("decoder_start_token_id",) if "decoder_start_token_id" in ours else ("bos_token_id",)
        start = {name: ours[name] for name in names}
        _write_json(folder / GENERATION, start | special)
        return
    before = json.loads((template / "config.json").read_text(encoding="utf-8"))
    after = _adapted(before, {"vocab_size": ours["vocab_size"], "torch_dtype": dtype, "dtype": dtype})
    if after == before:
        shutil.copyfile(template / "config.json", folder / "config.json")
    else:
        _write_json(folder / "config.json", after)
    if (template / GENERATION).is_file():
        shutil.copyfile(template / GENERATION, folder / GENERATION)


def _adapted(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json with other values of the settings that it has, also in the parts of its model."""
    after = {**config, **{name: value for name, value in values.items() if name in config}}
    parts = {name: after[name] for name in ("encoder", "decoder") if isinstance(after.get(name), Mapping)}
    return after | {name: _adapted(part, values) for name, part in parts.items()}


def _write_json(path: pathlib.Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
