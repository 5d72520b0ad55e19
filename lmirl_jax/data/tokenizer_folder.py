"""Reads the vocabulary of a folder, or of a tokenizer.json, as Hugging Face's checkpoints have them."""

import json
import pathlib

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.chat_template import TEMPLATE, find_template
from lmirl_jax.data.chat_vocabulary import ChatVocabulary
from lmirl_jax.data.hf_tokenizer import HuggingFaceVocabulary
from lmirl_jax.data.sentence_pieces import EXTRA_IDS, SentencePieceVocabulary
from lmirl_jax.data.tokenizer_files import CONFIG, MODELS, TOKENIZER, TokenizerFiles, read_files
from lmirl_jax.types import UserError

# ByT5's sentinels: 384 ids in all.
BYTE_EXTRA_IDS = 125
BYTES, PIECES, PAIRS = "ByT5Tokenizer", "T5Tokenizer", "GPT2Tokenizer"


# The vocabularies of folders, without a chat template.
FolderVocabulary = HuggingFaceVocabulary | SentencePieceVocabulary | ByteVocabulary


def read_tokenizer(path: pathlib.Path, chat: bool | None = None) -> FolderVocabulary | ChatVocabulary:
    """The vocabulary of a folder with a Hugging Face tokenizer, or of a tokenizer.json and the files beside it.

    A folder's tokenizer.json comes first, then the SentencePiece model of T5, then ByT5's configuration, then GPT-2's vocab.json
    and merges.txt.

    Args:
        path: the folder or the file.
        chat: whether prompts are written with the chat template of the folder; None where it has one.

    Raises:
        UserError: there is no tokenizer, or one that cannot be read; or no chat template, and `chat` is True.
    """
    files = read_files(path) if path.is_dir() else read_files(path.parent, path)
    found = _read_vocabulary(files) if path.is_dir() else HuggingFaceVocabulary(files)
    template = None if chat is False else find_template(files)
    if isinstance(found, HuggingFaceVocabulary) and template is not None:
        return ChatVocabulary(found, template)
    if chat:
        why = "has no chat template" if template is None else f"is no {TOKENIZER}, which chat templates need"
        raise UserError(
            f"CHAT=True, and the tokenizer at {path} {why}: copy {TEMPLATE} from its checkpoint into {files.folder}, or set "
            "CHAT=None"
        )
    return found


def _read_vocabulary(files: TokenizerFiles) -> FolderVocabulary:
    if TOKENIZER in files.contents:
        return HuggingFaceVocabulary(files)
    name = files.class_name
    model = next((each for each in MODELS if each in files.contents), None)
    if name == BYTES:
        return ByteVocabulary(files.extra_ids(BYTE_EXTRA_IDS), files.contents)
    if model is not None and name in (None, PIECES):
        return _read_pieces(files, model)
    if {"vocab.json", "merges.txt"} <= files.contents.keys() and name in (None, PAIRS):
        return _read_pairs(files)
    raise UserError(_what_is_missing(files, model))


def read_pieces(
    file: pathlib.Path, extra_ids: int = EXTRA_IDS, files: TokenizerFiles | None = None
) -> SentencePieceVocabulary:
    """The vocabulary of a SentencePiece model.

    Raises:
        UserError: the file is no such model, or the model has no end-of-sequence piece.
    """
    try:
        loaded = SentencePieceVocabulary.load(file, extra_ids, None if files is None else files.contents)
    except Exception as error:
        # Protobuf and SentencePiece raise exceptions of different classes.
        raise UserError(
            f"{file} is no SentencePiece model: VOCABULARY_PATH must name a .model file or a folder with a Hugging Face "
            "tokenizer, or be None for bytes"
        ) from error
    if not loaded.eos_ids:
        raise UserError(
            f"the vocabulary at {file} has no end-of-sequence piece: train it with --pad_id=0 --eos_id=1 --unk_id=2"
        )
    return loaded


def _read_pieces(files: TokenizerFiles, model: str) -> SentencePieceVocabulary:
    return read_pieces(files.folder / model, files.extra_ids(EXTRA_IDS), files)


def _read_pairs(files: TokenizerFiles) -> HuggingFaceVocabulary:
    """GPT-2's byte pairs, from the files of the time before tokenizer.json."""
    try:
        vocabulary = json.loads(files.contents["vocab.json"])
        lines = files.contents["merges.txt"].decode("utf-8").splitlines()
        pairs = (line.split() for line in lines if line.strip() and not line.startswith("#version"))
        merges = [(left, right) for left, right in pairs]
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:
        # The library raises Exception itself.
        raise UserError(
            f"vocab.json and merges.txt in {files.folder} do not fit together ({error}): copy both again from their checkpoint"
        ) from None
    prefix = bool(files.config.get("add_prefix_space", False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    made = HuggingFaceVocabulary(files.with_tokenizer(tokenizer.to_str()))
    made.files = dict(files.contents)
    return made


def _what_is_missing(files: TokenizerFiles, model: str | None) -> str:
    name, folder = files.class_name, files.folder
    there = model or ("vocab.json" if "vocab.json" in files.contents else None)
    conversion = f"A.from_pretrained('{folder}').save_pretrained('{folder}')"
    command = f'python -c "from transformers import AutoTokenizer as A; {conversion}"'
    if there is not None and name is not None:
        return f"{folder} has {there} of a {name} and no {TOKENIZER}: make this one with {command}"
    if there is not None:
        return (
            f"{folder} has vocab.json without merges.txt and no {TOKENIZER}: copy either from its checkpoint"
        )
    if name is not None:
        needed = f"{MODELS[0]} or {TOKENIZER}" if name == PIECES else TOKENIZER
        by = CONFIG if "tokenizer_class" in files.config else "config.json"
        return f"{folder / by} names a {name}, whose files are not there: copy {needed} beside it"
    return (
        f"no tokenizer in the folder {folder}: VOCABULARY_PATH must name one with {TOKENIZER}, {' or '.join(MODELS[:2])}, or the "
        f"{CONFIG} of a {BYTES}; or a .model file, or be None for bytes"
    )
