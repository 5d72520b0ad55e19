"""A checkpoint of another library: which model it holds, and where each parameter lies."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from etils import epath

from lmirl_jax.interop import hf_config, hf_gemma, hf_llama, hf_qwen, hf_t5, hf_t5gemma, t5x_names
from lmirl_jax.interop.fit import check_fit, parameter_shapes
from lmirl_jax.interop.load_peft import MergedTensors, is_peft, open_peft
from lmirl_jax.interop.name_table import Entry, TensorInfo, TensorSource
from lmirl_jax.interop.safetensors_files import SafetensorsFiles
from lmirl_jax.interop.t5x_files import is_t5x, open_t5x
from lmirl_jax.types import ModelConfig, UserError

Kind = Literal["hf", "t5x"]

# Lengths that a tokenizer gives where it knows of none are larger.
LONGEST = 10**6


@runtime_checkable
class Family(Protocol):
    """What this library knows of a family of Hugging Face's models; a module."""

    EMBEDDING: str
    HEAD: str

    def read_config(
        self, config: hf_config.Config, tensors: Mapping[str, TensorInfo], tied: bool
    ) -> ModelConfig: ...

    def config_json(self, config: Any, model_type: str) -> dict[str, Any]: ...

    def table(self, config: Any) -> list[Entry]: ...


# By the `model_type` of a config.json. ByT5 and Flan-T5 say 't5'.
FAMILIES: Mapping[str, Any] = {
    "t5": hf_t5,
    "mt5": hf_t5,
    "umt5": hf_t5,
    "t5gemma": hf_t5gemma,
    "llama": hf_llama,
    "qwen2": hf_qwen,
    "qwen3": hf_qwen,
    "gemma2": hf_gemma,
    "gemma3_text": hf_gemma,
}
# The names of encoder-decoders end with these, and those of decoder-only models as their families say.
CLASSES = ("ForConditionalGeneration", "WithLMHeadModel")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint of another library, opened; none of its values are read yet.

    Args:
        path: its folder or file.
        kind: 'hf' for Hugging Face, 't5x' for T5X.
        model_type: Hugging Face's name of the family.
        model: the recipe of its network.
        entries: its name table.
        source: its tensors.
        ignored: the names of tensors that hold nothing of their own.
        lengths: the maximum numbers of tokens of `inputs` and `targets`; None where it states none.
    """

    path: epath.Path
    kind: Kind
    model_type: str
    model: ModelConfig
    entries: tuple[Entry, ...]
    source: TensorSource
    ignored: tuple[str, ...] = ()
    lengths: Mapping[str, int] | None = None

    @property
    def dtypes(self) -> list[str]:
        """The types of its tensors."""
        return sorted({tensor.dtype for tensor in self.source.tensors().values()})

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of our parameters, by its path."""
        return parameter_shapes(self.model)


def kind_of(path: epath.Path) -> Kind | None:
    """The kind of foreign checkpoint at a path; None where there is none."""
    if (path / hf_config.NAME).is_file() or is_peft(path):
        return "hf"
    return "t5x" if is_t5x(path) else None


def config_folder(path: epath.Path) -> epath.Path:
    """The folder that holds the config.json of a checkpoint: itself, or of a folder of PEFT that of its base."""
    is_alone = (path / hf_config.NAME).is_file() or not is_peft(path)
    return path if is_alone else epath.Path(open_peft(path).base)


def open_pretrained(path: epath.Path) -> Pretrained:
    """Opens a checkpoint of Hugging Face or T5X, and compares its tensors with its sizes.

    Args:
        path: a folder of Hugging Face, with config.json and safetensors; or a folder of PEFT's LoRA, which stands for the merged
            model; or a checkpoint of T5X, as `is_t5x` describes it.

    Raises:
        UserError: the architecture is not supported, a file is damaged, or tensors are missing, left over or of other shapes.
    """
    opened = _open_hf(config_folder(path)) if kind_of(path) == "hf" else _open_t5x(path)
    check_fit(opened)
    if config_folder(path) != path:
        merged = MergedTensors(open_peft(path), opened.source)
        merged.tensors()
        return dataclasses.replace(opened, path=path, source=merged)
    return opened


def _open_hf(path: epath.Path) -> Pretrained:
    if "://" in str(path):
        raise UserError(
            f"{path} is not on this machine: copy the Hugging Face folder to a disk and name the copy"
        )
    folder = pathlib.Path(os.fspath(path))
    config = hf_config.read(folder)
    family = _family(config)
    source = SafetensorsFiles(folder)
    tensors = source.tensors()
    if family.EMBEDDING in tensors:
        _check_copies(source, family, str(folder))
    tied = _is_tied(source, family, config)
    try:
        model = family.read_config(config, tensors, tied)
    except UserError as error:
        # The recipe of a network names its own settings; the user has the file before him.
        told = str(error)
        raise UserError(told if told.startswith(config.where) else f"{config.where}: {told}") from None
    ignored = (family.HEAD,) if tied else ()
    ignored += tuple(getattr(family, "COPIES", ())) + tuple(getattr(family, "UNUSED", ()))
    ignored += tuple(name for name in tensors if name.endswith(getattr(family, "UNUSED_ENDS", ())))
    return Pretrained(
        path,
        "hf",
        config.model_type,
        model,
        tuple(family.table(model)),
        source,
        ignored,
        _lengths(folder, config, family),
    )


def _family(config: hf_config.Config) -> Any:
    architectures = config.words("architectures") or ()
    if config.model_type == "gemma3":
        raise UserError(
            f"{config.where}: model_type 'gemma3' reads images too: save its part for texts, a Gemma3ForCausalLM, with "
            "transformers, and load that folder"
        )
    if config.model_type not in FAMILIES:
        raise UserError(
            f"{config.where}: model_type {config.model_type[:60]!r} is not supported; those that are: {', '.join(FAMILIES)}"
        )
    family = FAMILIES[config.model_type]
    classes = getattr(family, "CLASSES", CLASSES)
    for name in architectures:
        if not name.endswith(classes):
            raise UserError(
                f"{config.where}: a {name} is no language model: load a checkpoint of the class ...{classes[0]}"
            )
    return family


def _is_tied(source: TensorSource, family: Any, config: hf_config.Config) -> bool:
    """Whether the output embedding is the input's: it is not there, or is a copy of it (as old checkpoints hold).

    A copy that config.json calls separate stays separate: training may change one without the other.
    """
    head, embedding = (source.tensors().get(name) for name in (family.HEAD, family.EMBEDDING))
    says = getattr(family, "TIED", None)
    if head is None or embedding is None:
        return says is None or config.flag("tie_word_embeddings", says)
    tied = config.get("tie_word_embeddings") if says is None else config.flag("tie_word_embeddings", says)
    return tied is not False and _equal(source, family.HEAD, family.EMBEDDING)


def _check_copies(source: TensorSource, family: Any, where: str) -> None:
    """Raises a UserError where an embedding that this library takes for a copy of the shared one is another."""
    for name in getattr(family, "COPIES", ()):
        if name in source.tensors() and not _equal(source, name, family.EMBEDDING):
            raise UserError(
                f"{where}: {name} differs from {family.EMBEDDING}: embeddings of its own for encoder or decoder are not supported"
            )


def _equal(source: TensorSource, one: str, other: str) -> bool:
    """Whether two embeddings have the same bits; few of their rows are in memory at a time."""
    first, second = source.tensors()[one], source.tensors()[other]
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    rows = 4096
    for start in range(0, first.shape[0], rows):
        part = (slice(start, min(start + rows, first.shape[0])), slice(0, first.shape[1]))
        a, b = (source.read(name, part).view(np.uint8) for name in (one, other))
        if not np.array_equal(a, b):
            return False
    return True


def _lengths(folder: pathlib.Path, config: hf_config.Config, family: Any) -> dict[str, int] | None:
    """The lengths that the model was trained with, where its files state them: T5's positions are relative, and have no end.

    A decoder-only model reads prompt and answer in one row, which its positions bound: a third of them is for the answer.
    """
    if hasattr(family, "LONGEST"):
        longest = config.count("max_position_embeddings", family.LONGEST, least=3)
        return {"inputs": min(512, longest - longest // 3), "targets": min(256, longest // 3)}
    limits = [config.get("n_positions"), _tokenizer_limit(folder)]
    known = [int(limit) for limit in limits if type(limit) in (int, float) and 1 <= limit < LONGEST]
    if not known:
        return None
    return {"inputs": min(known), "targets": min(*known, 256)}


def _tokenizer_limit(folder: pathlib.Path) -> Any:
    try:
        return json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get(
            "model_max_length"
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return None


def _open_t5x(path: epath.Path) -> Pretrained:
    source = open_t5x(path)
    tensors = source.tensors()
    model = t5x_names.config_of(tensors, str(path))
    entries = tuple(t5x_names.table(model, t5x_names.is_scanned(tensors)))
    model_type = "umt5" if model.relpos_per_layer else "t5"
    return Pretrained(path, "t5x", model_type, model, entries, source)
