"""A language model for notebooks: logits, texts and token rewards of any checkpoint, in a few lines."""

import functools
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from lmirl_jax import decoding, exporting, rewards, runs, sharding
from lmirl_jax.arguments import Count, NonNegative, Path, Seed, check_arguments
from lmirl_jax.evaluation import Generator, TokenPrompts
from lmirl_jax.models import DecoderOnlyConfig, HeadsConfig
from lmirl_jax.rows import length_mask
from lmirl_jax.types import UserError

# The number of prompts that are answered at a time.
LARGEST_BATCH = 32

# Rows of tokens, also of unlike lengths, or one row.
Ids = Sequence[Any] | np.ndarray | jax.Array


def load(
    path: Path | os.PathLike[str],
    *,
    mesh: Mesh | None = None,
    vocabulary_path: Path | None = None,
    chat: bool | None = None,
) -> "LanguageModel":
    """Loads a checkpoint of any kind.

    Args:
        path: a run's MODEL_DIR or one of its checkpoints, a Hugging Face folder, a name on the hub such as
            'google/flan-t5-base', or a checkpoint of T5X.
        mesh: the devices; None for all of them, with a copy of the parameters on each.
        vocabulary_path: the vocabulary of a checkpoint that comes without one, such as those of T5X; see `data.vocabulary`.
        chat: whether prompts are written with the chat template of a checkpoint of another library; None where it has one.

    Returns:
        The model. Without a vocabulary it takes and gives token ids only.

    Raises:
        UserError: there is no such checkpoint, or it cannot be read.
    """
    return LanguageModel(runs.load(path, mesh, vocabulary_path=vocabulary_path, chat=chat))


class LanguageModel:
    """A policy with methods for notebooks.

    Args:
        policy: the policy, from `runs.load`.
    """

    def __init__(self, policy: runs.Policy):
        self.policy = policy

    def __repr__(self) -> str:
        return f"LanguageModel({self.policy.checkpoint}, {type(self.policy.model).__name__})"

    def logits(self, ids: Ids, encoder_ids: Ids | None = None) -> Float[np.ndarray, "batch length vocab"]:
        """The logits of the next token after each token, as transformers gives them.

        Args:
            ids: the tokens that the decoder is fed, an encoder-decoder's with its start token first, [batch, length]: position
                t predicts the token after `ids[:, : t + 1]`. Lists of unlike lengths are filled up at their end.
            encoder_ids: the tokens of the prompts, [batch, inputs], for an encoder-decoder alone. In an array every one is
                read; lists may be of unlike lengths.

        Returns:
            float32, [batch, length, vocab].
        """
        tokens, _ = _padded(ids, "ids")
        self._check_ids(tokens, "ids")
        model = self.policy.model
        if isinstance(model.base if isinstance(model, HeadsConfig) else model, DecoderOnlyConfig):
            if encoder_ids is not None:
                raise UserError(
                    "LanguageModel.logits: a decoder-only model has no encoder: leave encoder_ids out, and put prompts into ids"
                )
            with sharding.use(self.policy.mesh):
                return np.asarray(_row_logits(self.policy.graph, self.policy.params, tokens))
        if encoder_ids is None:
            raise UserError(
                "LanguageModel.logits: an encoder-decoder needs encoder_ids, the tokens of the prompts"
            )
        prompts, lengths = _padded(encoder_ids, "encoder_ids")
        if len(tokens) != len(prompts):
            raise UserError(
                f"LanguageModel.logits: {len(tokens)} rows of ids and {len(prompts)} of encoder_ids; give one for each"
            )
        self._check_ids(prompts, "encoder_ids")
        with sharding.use(self.policy.mesh):
            made = _logits(self.policy.graph, self.policy.params, tokens, prompts, lengths)
        return np.asarray(made)

    @check_arguments
    def generate(
        self,
        text_or_ids: str | Sequence[str] | Ids,
        *,
        max_new_tokens: Count = 128,
        temperature: NonNegative = 0.0,
        num_samples: Count = 1,
        seed: Seed = 0,
    ) -> Any:
        """Answers prompts: with the likeliest tokens, or at a temperature above 0 with samples.

        Args:
            text_or_ids: a prompt or several, as texts or as token ids; of a chat model also as conversations, each a list of
                {"role": .., "content": ..}.
            max_new_tokens: the maximum number of tokens of an answer.
            temperature: the sampling temperature; 0 takes the likeliest token.
            num_samples: the number of answers to each prompt.
            seed: the seed of the sampling.

        Returns:
            An answer of the kind of the prompt: a text (also to a conversation), or ids up to EOS; a list of `num_samples`
            answers where there is more than one; for several prompts a list with the answers to each.
        """
        is_text, several, prompts = self._prompts(text_or_ids)
        data = TokenPrompts(prompts, max_new_tokens, self.policy.task)
        generator = Generator(self._batch_size(len(prompts)), num_samples, seed=seed)
        generator.check_samples(temperature)
        made = generator(self.policy.graph, self.policy.params, self.policy.mesh, data, temperature)
        answers: list[Any] = [list(each.texts if is_text else map(list, each.tokens)) for each in made]
        if num_samples == 1:
            answers = [of_prompt[0] for of_prompt in answers]
        return answers if several else answers[0]

    def score(self, inputs: str | Sequence[Any], targets: Sequence[str], **options: Any) -> rewards.Scores:
        """The reward of every token of answers; see `rewards.score`."""
        return rewards.score(self.policy, inputs, targets, **options)

    def save_hf(self, path: str, dtype: exporting.Dtype | None = None) -> None:
        """Writes a folder that transformers loads.

        Args:
            path: a new folder.
            dtype: the type of the weights; None for that of the checkpoint.
        """
        exporting.export(self.policy, path, "hf", dtype, "path")

    def _prompts(self, given: Any) -> tuple[bool, bool, list[np.ndarray]]:
        """Whether prompts are texts or conversations, whether there are several, and the tokens of each."""
        from lmirl_jax.data.messages import encode_given, is_conversation

        if isinstance(given, str) or is_conversation(given):
            is_text, several, given = True, False, [given]
        elif not len(given):
            raise UserError("LanguageModel.generate: no prompt is given; give a text or token ids")
        else:
            is_text = isinstance(given[0], str) or is_conversation(given[0])
            several = is_text or np.ndim(given[0]) > 0
            given = given if several else [given]
        if not is_text:
            for row in given:
                self._check_ids(np.asarray(row), "text_or_ids")
            return is_text, several, [np.asarray(row, np.int32) for row in given]
        vocabulary = self.policy.task.input_vocabulary
        return (
            is_text,
            several,
            [encode_given(each, vocabulary, "LanguageModel.generate")[0] for each in given],
        )

    def _check_ids(self, ids: np.ndarray, name: str) -> None:
        size = self.policy.model.vocab_size
        if ids.size and not (np.issubdtype(ids.dtype, np.integer) and ids.min() >= 0 and ids.max() < size):
            raise UserError(
                f"LanguageModel: {name} must be whole numbers from 0 to {size - 1}, the tokens of the model"
            )

    def _batch_size(self, prompts: int) -> int:
        """The number of prompts that are answered at a time: a multiple of what the mesh splits rows into."""
        parts = math.prod(self.policy.mesh.shape[axis] for axis in sharding.BATCH_AXES)
        return -(-min(prompts, LARGEST_BATCH) // parts) * parts


def _padded(ids: Any, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of tokens as one array, padded with 0 at their ends, and the length of each."""
    rows = [np.asarray(row) for row in ids]
    if not rows or any(row.ndim != 1 or not len(row) for row in rows):
        raise UserError(
            f"LanguageModel.logits: {name} must be rows of tokens, [batch, length], and none of them empty"
        )
    lengths = np.array([len(row) for row in rows], np.int32)
    padded = np.zeros((len(rows), max(lengths)), np.result_type(*rows))
    for place, row in zip(padded, rows):
        place[: len(row)] = row
    return padded, lengths


@functools.partial(jax.jit, static_argnums=0)
def _logits(
    graph: nnx.GraphDef,
    params: Any,
    ids: Int[Array, "batch length"],
    encoder_ids: Int[Array, "batch inputs"],
    encoder_lengths: Int[Array, " batch"],
) -> Float[Array, "batch length vocab"]:
    model = nnx.merge(graph, params)
    real = jnp.asarray(length_mask(encoder_lengths, encoder_ids.shape[1]), jnp.int32)
    encoded = model.encode(encoder_ids, real)
    return decoding.logits_of(model, model.decoder_hidden(ids, encoded, real))


@functools.partial(jax.jit, static_argnums=0)
def _row_logits(
    graph: nnx.GraphDef, params: Any, ids: Int[Array, "batch length"]
) -> Float[Array, "batch length vocab"]:
    model = nnx.merge(graph, params)
    return decoding.logits_of(model, model.read(ids))
