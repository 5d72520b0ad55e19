"""Writes a vocabulary as the files from which transformers' AutoTokenizer loads it."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.chat_vocabulary import ChatVocabulary
from lmirl_jax.data.hf_tokenizer import HuggingFaceVocabulary
from lmirl_jax.data.piece_conversion import convert_pieces, is_like_t5, plain_model
from lmirl_jax.data.sentence_pieces import SentencePieceVocabulary
from lmirl_jax.data.tokenizer_files import CONFIG, TOKENIZER
from lmirl_jax.data.tokenizer_folder import BYTES, PAIRS, PIECES
from lmirl_jax.data.vocabularies import as_vocabulary
from lmirl_jax.types import UserError

# Those of T5 and ByT5.
SPECIAL_TOKENS = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def write_tokenizer(vocabulary: Any, folder: epath.PathLike) -> None:
    """Writes the files of a tokenizer into a folder, which transformers' AutoTokenizer and `vocabulary` then read.

    A vocabulary of a Hugging Face folder has its files as they were, bit for bit; its chat template is one of them.

    Args:
        vocabulary: a `Vocabulary`, or SeqIO's.
        folder: a folder, which may be there already.

    Raises:
        UserError: transformers has no tokenizer of this kind.
    """
    files = _files(as_vocabulary(vocabulary))
    for name, content in files.items():
        path = epath.Path(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _files(vocabulary: Any) -> Mapping[str, bytes]:
    if isinstance(vocabulary, ChatVocabulary):
        vocabulary = vocabulary.wrapped
    if isinstance(vocabulary, HuggingFaceVocabulary):
        name = "PreTrainedTokenizerFast" if TOKENIZER in vocabulary.files else PAIRS
        # Without a configuration, AutoTokenizer would ask for the model's.
        return {CONFIG: _config(name, vocabulary.special_tokens)} | vocabulary.files
    if isinstance(vocabulary, ByteVocabulary):
        return vocabulary.files or {CONFIG: _config(BYTES, SPECIAL_TOKENS, vocabulary.extra_ids)}
    if not isinstance(vocabulary, SentencePieceVocabulary):
        raise UserError(
            f"transformers has no tokenizer of the kind {type(getattr(vocabulary, 'wrapped', vocabulary)).__name__}: use the "
            "vocabulary of a Hugging Face folder or a SentencePiece model, or bytes"
        )
    if vocabulary.files:
        return vocabulary.files
    if is_like_t5(vocabulary):
        config = _config(PIECES, SPECIAL_TOKENS, vocabulary.extra_ids)
        return {"spiece.model": plain_model(vocabulary), CONFIG: config}
    tokenizer, special_tokens = convert_pieces(vocabulary)
    return {TOKENIZER: tokenizer, CONFIG: _config("PreTrainedTokenizerFast", special_tokens)}


def _config(name: str, special_tokens: Mapping[str, str], extra_ids: int | None = None) -> bytes:
    config: dict[str, Any] = {
        "tokenizer_class": name,
        "clean_up_tokenization_spaces": False,
        **special_tokens,
    }
    if extra_ids is not None:
        sentinels = [f"<extra_id_{number}>" for number in range(extra_ids)]
        config |= {"extra_ids": extra_ids, "additional_special_tokens": sentinels}
    return (json.dumps(config, indent=2) + "\n").encode()
