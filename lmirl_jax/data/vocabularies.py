"""Vocabularies: bytes by default, a SentencePiece model by path."""

import hashlib
import pathlib

from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.types import UserError

# T5 reserves 100 sentinels above its pieces: 32,000 + 100.
EXTRA_IDS = 100


def vocabulary(path: str | None = None) -> seqio.Vocabulary:
    """The vocabulary of a SentencePiece model with T5's 100 extra ids, or bytes (ByT5's ids) without a path.

    Args:
        path: a `.model` file as SentencePiece writes it, or None.

    Returns:
        A SeqIO vocabulary with pad 0.

    Raises:
        UserError: the file is missing, is no SentencePiece model, or has no end-of-sequence piece.
    """
    if path is None:
        return seqio.ByteVocabulary()
    if "://" in str(path):
        raise UserError(
            f"VOCABULARY_PATH={path!r} is not on this machine: copy it to a disk here and name the copy"
        )
    file = pathlib.Path(path).expanduser()
    if not file.is_file():
        what = "a folder" if file.is_dir() else "no vocabulary"
        raise UserError(
            f"{what} at {path}: VOCABULARY_PATH must be a SentencePiece .model file, or None for bytes"
        )
    loaded = seqio.SentencePieceVocabulary(str(file), extra_ids=EXTRA_IDS)
    try:
        loaded.load_model()
        usable = loaded.tokenizer.GetPieceSize() > EXTRA_IDS
    except Exception:  # Protobuf and SentencePiece each raise their own.
        usable = False
    if not usable:
        raise UserError(
            f"{path} is no SentencePiece model: VOCABULARY_PATH must name a .model file, or be None for bytes"
        )
    if loaded.eos_id < 0:
        raise UserError(
            f"the vocabulary at {path} has no end-of-sequence piece: train it with --pad_id=0 --eos_id=1 --unk_id=2"
        )
    return loaded


def padded_vocab_size(*vocabularies: seqio.Vocabulary, multiple: int = 128) -> int:
    """The size of an embedding table for the vocabularies: the largest, rounded up to a multiple.

    Bytes take 384 rows and T5's vocabulary 32,128, as in ByT5 and T5.
    """
    largest = max(vocabulary.vocab_size for vocabulary in vocabularies)
    return -(-largest // multiple) * multiple


def vocabulary_fingerprint(vocabulary: seqio.Vocabulary) -> str:
    """A hash of what the vocabulary does, wherever its file lies."""
    digest = hashlib.sha256(f"{type(vocabulary).__name__} {vocabulary.extra_ids}".encode())
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        digest.update(vocabulary.sp_model)
    elif not isinstance(vocabulary, seqio.ByteVocabulary):
        # Tables and lookups of TensorFlow have addresses, not contents: plain attributes must do.
        plain = {
            k: v for k, v in vars(vocabulary).items() if isinstance(v, (str, int, float, bool, list, tuple))
        }
        digest.update(repr(sorted(plain.items())).encode())
    return digest.hexdigest()
