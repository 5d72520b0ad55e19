"""The configuration that a checkpoint of another library brings, as the text of a gin file."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from lmirl_jax import interop
from lmirl_jax.configuration import GinText
from lmirl_jax.models import DecoderOnlyConfig

# Settings of a network that a checkpoint does not decide, and the macros that do.
FREE = {"dropout_rate": "%DROPOUT_RATE", "dtype": "%DTYPE", "remat": "%REMAT", "vocab_size": "%VOCAB_SIZE"}
FREE["decoder_start_id"] = "%DECODER_START_ID"

# The rows of an embedding of bytes, as in ByT5.
BYTE_ROWS = 384

IMPORTS = """\
from __gin__ import dynamic_registration

from lmirl_jax import data
from lmirl_jax import evaluation
from lmirl_jax import models
"""


def settings(pretrained: interop.Pretrained, vocabulary_path: str | None) -> GinText:
    """The settings of a checkpoint that a run inherits which starts from it: its network, vocabulary and lengths.

    Args:
        pretrained: the checkpoint.
        vocabulary_path: the folder of its tokenizer; None where it brings none, so that the user has to set one.
    """
    is_known = vocabulary_path is not None or pretrained.model.vocab_size == BYTE_ROWS
    vocabulary = repr(vocabulary_path) if is_known else "%gin.REQUIRED"
    lines = [IMPORTS, f"VOCABULARY_PATH = {vocabulary}", *_model_lines(pretrained.model)]
    if pretrained.lengths is not None:
        lines.append(f"TASK_FEATURE_LENGTHS = {dict(pretrained.lengths)!r}")
    return GinText(f"the settings of {pretrained.path}", "\n".join([*lines, ""]))


def whole_configuration(
    pretrained: interop.Pretrained, vocabulary_path: str | None, model_dir: str | None = None
) -> GinText:
    """The configuration in place of a run's config.gin, for commands that use a checkpoint which no run of ours has made.

    Args:
        pretrained, vocabulary_path: as in `settings`.
        model_dir: the MODEL_DIR that the checkpoint is written to; None where it stays where it is.
    """
    own, folder = settings(pretrained, vocabulary_path), model_dir or str(pretrained.path)
    more = f"""
include 'gin/runs/finetune.gin'
MODEL_DIR = {folder!r}
TRAIN_STEPS = 1
TASK = @data.get_task_or_vocabulary()
data.get_task_or_vocabulary:
    mixture_or_task_name = %MIXTURE_OR_TASK_NAME
    data = %DATA
    validation_data = %VALIDATION_DATA
    vocabulary_path = %VOCABULARY_PATH
    chat = %CHAT
    columns = %COLUMNS
    validation_share = %VALIDATION_SHARE
    metrics = @evaluation.metric_functions()
"""
    return GinText(own.name, IMPORTS + more + own.text.removeprefix(IMPORTS))


def _model_lines(model: Any) -> list[str]:
    name = f"models.{type(model).__name__}"
    # Decoder-only models are trained, and fine-tuned, without dropout; T5's are fine-tuned with it.
    dropout = ["DROPOUT_RATE = 0.0"] if isinstance(model, DecoderOnlyConfig) else []
    return [
        *dropout,
        f"VOCAB_SIZE = {model.vocab_size}",
        f"DECODER_START_ID = {model.decoder_start_id}",
        f"MODEL = @{name}()",
        *_bindings(model, name, FREE),
    ]


def _bindings(config: Any, name: str, free: dict[str, str]) -> Iterator[str]:
    """The bindings that make a dataclass as it is; one within it has a scope of its field's name."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in free:
            yield f"{name}.{field.name} = {free[field.name]}"
        elif dataclasses.is_dataclass(value):
            inner = f"{field.name}/models.{type(value).__name__}"
            yield f"{name}.{field.name} = @{inner}()"
            yield from _bindings(value, inner, {})
        else:
            yield f"{name}.{field.name} = {value!r}"
