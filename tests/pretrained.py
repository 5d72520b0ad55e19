"""Tiny checkpoints of every family of Hugging Face, and transformers as their oracle."""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lmirl_jax import decoding, sharding
from lmirl_jax.models import DecoderOnlyConfig
from lmirl_jax.rows import answer_rows
from lmirl_jax.types import AnswerBatch, PromptBatch
from tests.other_python import OtherPython

FAMILIES = ("t5_1_0", "t5_1_1", "byt5", "mt5", "umt5", "t5gemma")
DECODER_ONLY = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")
FAMILIES += DECODER_ONLY
# `transformers_models.py make` wrote them.
GOLDEN = pathlib.Path(__file__).resolve().parent / "interop" / "golden"
SCRIPT = GOLDEN.parent / "transformers_models.py"


def logits(model: Any, expected: Mapping[str, np.ndarray]) -> np.ndarray:
    """The logits of a `LanguageModel` that an `expected.npz` holds: those of each token of the answers.

    A decoder-only model reads prompt and answer in one row, in which the last token of a prompt is the first of
    `decoder_ids`; both as rows that are given, and with the prompts beside the answers, as in training.
    """
    prompts = [row[:length] for row, length in zip(expected["inputs"], expected["lengths"])]
    ids = expected["decoder_ids"]
    if not isinstance(model.policy.model, DecoderOnlyConfig):
        return model.logits(ids, prompts)
    of_rows = model.logits([[*prompt, *row[1:]] for prompt, row in zip(prompts, ids)])
    firsts = expected["lengths"] - 1
    of_rows = np.stack([row[first : first + ids.shape[1]] for row, first in zip(of_rows, firsts)])
    with sharding.use(model.policy.mesh):
        policy = model.policy
        beside = _trained_logits(policy.graph, policy.params, expected["inputs"], expected["lengths"], ids)
    np.testing.assert_allclose(beside, of_rows, atol=2e-5, rtol=0)
    return np.asarray(beside)


@functools.partial(jax.jit, static_argnums=0)
def _trained_logits(graph, params, inputs, lengths, ids):
    # Each token of an answer is predicted from those before it, so that the last one may be any.
    answers = AnswerBatch(
        jnp.roll(ids, -1, axis=1), jnp.full(len(ids), ids.shape[1]), jnp.ones(len(ids), bool)
    )
    rows = answer_rows(PromptBatch(inputs, lengths), answers, discount=1.0)
    model = nnx.merge(graph, params)
    return decoding.logits_of(model, model.hidden(rows))


def load_in_transformers(transformers: OtherPython, folder: pathlib.Path) -> tuple[dict, dict]:
    """Loads a folder with transformers; returns what does not fit, and what it computes as arrays."""
    found = json.loads(transformers.run(SCRIPT, "load", folder).splitlines()[-1])
    with np.load(folder.parent / f"{folder.name}-computed.npz") as computed:
        return found, dict(computed)
