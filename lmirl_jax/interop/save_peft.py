"""Writes adapters in the form of PEFT: adapter_config.json and adapter_model.safetensors, for the base in transformers."""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from lmirl_jax.interop.load_peft import ADAPTER_WEIGHTS, CONFIG, PREFIX, A, B
from lmirl_jax.interop.name_table import Entry, axis_groups
from lmirl_jax.interop.safetensors_files import WEIGHTS
from lmirl_jax.interop.save_hf import write_weights
from lmirl_jax.models.trainable import ADAPTER
from lmirl_jax.types import UserError

KERNEL, WEIGHT = "/kernel", ".weight"
RANK = "rank"


def adapter_entries(entries: Sequence[Entry], adapters: Mapping[str, Any]) -> list[Entry]:
    """The name table of adapters in PEFT's form, from that of their base.

    Args:
        entries: the table of the base.
        adapters: the adapters' parameters, or their shapes, by their paths.

    Raises:
        UserError: a matrix with an adapter is not one matrix in transformers.
    """
    kernels = {entry.ours.removesuffix(KERNEL): entry for entry in entries if entry.ours.endswith(KERNEL)}
    places = [entry.theirs for entry in entries]
    made = []
    for path in sorted({path.rsplit(f"/{ADAPTER}/", 1)[0] for path in adapters}):
        entry = kernels.get(path)
        ndim = len(adapters[f"{path}/{ADAPTER}/lora_a"].shape)
        if entry is None or places.count(entry.theirs) > 1 or not _is_matrix(entry, ndim):
            raise UserError(
                f"FORMAT='peft': the adapter of {path} stands beside no matrix of its own in transformers: write the merged "
                "model with FORMAT='hf'"
            )
        made += _pair(entry, ndim)
    return made


def _split_axes(entry: Entry, ndim: int) -> tuple[list[str], list[str]]:
    """The names of the input and the output axes of our kernel, from the number of axes of its A."""
    axes = entry.our_axes.split()[1 if entry.is_stacked else 0 :]
    inputs = ndim - 1 - (1 if entry.is_stacked else 0)
    return axes[:inputs], axes[inputs:]


def _is_matrix(entry: Entry, ndim: int) -> bool:
    """Whether their tensor is [outputs, inputs], each with our axes in our order."""
    inputs, outputs = _split_axes(entry, ndim)
    return entry.theirs.endswith(WEIGHT) and axis_groups(entry.their_axes) == [outputs, inputs]


def _pair(entry: Entry, ndim: int) -> list[Entry]:
    inputs, outputs = _split_axes(entry, ndim)
    layers = "layers " if entry.is_stacked else ""
    ours = f"{entry.ours.removesuffix(KERNEL)}/{ADAPTER}"
    theirs = PREFIX + entry.theirs.removesuffix(WEIGHT)

    def merged(axes: list[str]) -> str:
        return f"({' '.join(axes)})" if len(axes) > 1 else axes[0]

    a = Entry(
        f"{ours}/lora_a",
        f"{layers}{' '.join(inputs)} {RANK}",
        f"{theirs}{A}",
        f"{RANK} {merged(inputs)}",
    )
    b = Entry(
        f"{ours}/lora_b",
        f"{layers}{RANK} {' '.join(outputs)}",
        f"{theirs}{B}",
        f"{merged(outputs)} {RANK}",
    )
    return [a, b]


def write_peft(
    folder: pathlib.Path,
    entries: Sequence[Entry],
    adapters: Mapping[str, Any],
    dtype_of: Callable[[str], str],
    config: Mapping[str, Any],
) -> None:
    """Writes a folder that `peft.PeftModel.from_pretrained(base, folder)` loads.

    Args:
        folder: where to write.
        entries: the name table of the base.
        adapters: the adapters' parameters by their paths; every process calls this, and the first one writes.
        dtype_of: gives the type of each parameter by our path.
        config: what adapter_config.json says beside the matrices: see `adapter_config`.
    """
    made = adapter_entries(entries, adapters)
    write_weights(folder, made, adapters, dtype_of, largest_file=2**62)
    if jax.process_index() != 0:
        return
    (folder / WEIGHTS).rename(folder / ADAPTER_WEIGHTS)
    targets = {"target_modules": _targets(entries, made, adapters)}
    text = json.dumps({**config, **targets}, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def _targets(entries: Sequence[Entry], made: Sequence[Entry], adapters: Mapping[str, Any]) -> list[str]:
    """PEFT's `target_modules`: the ends of names where these stand for the adapted modules alone, else whole names."""
    adapted = {
        name.removeprefix(PREFIX).removesuffix(A)
        for entry in made[::2]
        for name in entry.names(adapters[entry.ours].shape)
    }
    ends = {name.rsplit(".", 1)[-1] for name in adapted}
    weights = {entry.theirs.removesuffix(WEIGHT) for entry in entries}
    patterns = {entry.theirs.removeprefix(PREFIX).removesuffix(A) for entry in made[::2]}
    alone = all(name in patterns for name in weights if name.rsplit(".", 1)[-1] in ends)
    return sorted(ends if alone else adapted)


def adapter_config(
    *, rank: int, alpha: float, base: str, revision: str | None, is_encoder_decoder: bool
) -> dict[str, Any]:
    """What an adapter_config.json says beside `target_modules`.

    Args:
        rank, alpha: see `models.LoRAConfig`.
        base: the folder of the base, or its name on the hub.
        revision: its commit there; None for a folder.
        is_encoder_decoder: whether the base is one.
    """
    return {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "revision": revision,
        "task_type": "SEQ_2_SEQ_LM" if is_encoder_decoder else "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
