"""Reads folders of PEFT: adapters of LoRA on a checkpoint of Hugging Face, as the merged model that they make of it."""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from lmirl_jax.interop import hub
from lmirl_jax.interop.name_table import TensorSource
from lmirl_jax.interop.safetensors_files import StoredTensor, read_file, tensors_of
from lmirl_jax.types import UserError

CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# What PEFT puts before the names of the base's tensors.
PREFIX = "base_model.model."
A, B = ".lora_A.weight", ".lora_B.weight"
# Settings of PEFT with another result than base + scale * B A, and the values with which they have none.
PLAIN = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "fan_in_fan_out": (False, None),
    "use_dora": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "lora_bias": (False, None),
}


@dataclasses.dataclass(frozen=True)
class PeftFolder:
    """A folder of PEFT, opened.

    Args:
        folder: the folder.
        base: the folder of its base.
        scale: the factor on its products.
    """

    folder: pathlib.Path
    base: pathlib.Path
    scale: float


def is_peft(path: epath.Path) -> bool:
    return (path / CONFIG).is_file()


def open_peft(path: epath.Path) -> PeftFolder:
    """Reads an adapter_config.json, and finds its base.

    Raises:
        UserError: the adapters are of a kind that is not supported, or there is no base.
    """
    folder = pathlib.Path(os.fspath(path))
    where = folder / CONFIG
    try:
        config = json.loads(where.read_text(encoding="utf-8"))
        rank, alpha = int(config["r"]), float(config["lora_alpha"])
        name = str(config["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{where} is no configuration of PEFT's LoRA: copy it again") from None
    for setting, plain in PLAIN.items():
        if config.get(setting) not in plain:
            raise UserError(
                f"{where}: {setting}={str(config[setting])[:60]} is not supported: merge the adapters with PEFT "
                "(merge_and_unload), and load the folder that it saves"
            )
    divisor = math.sqrt(rank) if config.get("use_rslora") else rank
    return PeftFolder(folder, _base(name, config, where), alpha / divisor)


def _base(name: str, config: Mapping[str, Any], where: pathlib.Path) -> pathlib.Path:
    if hub.is_name(name):
        revision = config.get("revision")
        return hub.snapshot(f"{name}@{revision}" if revision and "@" not in name else name).folder
    base = pathlib.Path(os.path.expanduser(name)).absolute()
    if not (base / "config.json").is_file():
        raise UserError(
            f"{where}: base_model_name_or_path={name!r} is no Hugging Face folder: write the path of the base there"
        )
    return base


@dataclasses.dataclass(frozen=True)
class MergedTensors:
    """The tensors of a base with adapters merged into them, a `TensorSource`; products are taken part by part.

    Args:
        opened: the folder of the adapters.
        base: the tensors of the base.
    """

    opened: PeftFolder
    base: TensorSource

    @functools.cached_property
    def _pairs(self) -> Mapping[str, tuple[StoredTensor, StoredTensor]]:
        file = self.opened.folder / ADAPTER_WEIGHTS
        if not file.is_file():
            raise UserError(f"no {file}: copy the folder of the adapters again, with its safetensors")
        stored, theirs = tensors_of(file), self.base.tensors()
        known = {key for key in stored if key.startswith(PREFIX) and key.endswith((A, B))}
        modules = sorted({key.removesuffix(A).removesuffix(B) for key in known})
        pairs = {}
        for module in modules:
            name = module.removeprefix(PREFIX) + ".weight"
            if name not in theirs or not {module + A, module + B} <= known:
                raise UserError(
                    f"{file}: the adapter of {module} has no matrix in the base, or one half only"
                )
            a, b = stored[module + A], stored[module + B]
            if a.shape[:1] != b.shape[1:] or (b.shape[0], a.shape[1]) != tuple(theirs[name].shape):
                raise UserError(
                    f"{file}: the adapter of {module} does not fit the matrix of the base: it is another model's"
                )
            pairs[name] = a, b
        rest = sorted(set(stored) - known)
        if rest or not pairs:
            what = rest[0] if rest else "nothing"
            raise UserError(
                f"{file} holds {what}, which is no adapter of a matrix: merge it with PEFT (merge_and_unload)"
            )
        return pairs

    def tensors(self) -> Mapping[str, StoredTensor]:
        """The description of each tensor; a merged one is of float32, which has room for the sum."""
        stored: dict[str, Any] = dict(self.base.tensors())
        for name in self._pairs:
            stored[name] = dataclasses.replace(stored[name], dtype="float32")
        return stored

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of a tensor."""
        value = self.base.read(name, index)
        if name not in self._pairs:
            return value
        a, b = self._pairs[name]
        module = PREFIX + name.removesuffix(".weight")
        left = read_file(b.file, module + B, (index[0], slice(0, b.shape[1]))).astype(np.float32)
        right = read_file(a.file, module + A, (slice(0, a.shape[0]), index[1])).astype(np.float32)
        return value.astype(np.float32) + np.float32(self.opened.scale) * (left @ right)
