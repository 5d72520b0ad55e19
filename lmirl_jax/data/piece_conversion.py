"""Converts SentencePiece's unigram models to the form of Hugging Face's tokenizers."""

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lmirl_jax.data.every_text import PROBES
from lmirl_jax.data.sentence_pieces import ModelProto, SentencePieceVocabulary
from lmirl_jax.data.tokenizer_files import SENTINEL
from lmirl_jax.types import UserError

SPACE = "▁"
SPECIAL_NAMES = ("<pad>", "</s>", "<unk>")


def plain_model(vocabulary: SentencePieceVocabulary) -> bytes:
    """The model without the extra ids that were added to it; the content of its file, where it is still there."""
    proto = ModelProto.FromString(vocabulary.model)
    if vocabulary.extra_ids:
        del proto.pieces[-vocabulary.extra_ids :]
    if vocabulary.file is not None and vocabulary.file.is_file():
        content = vocabulary.file.read_bytes()
        # Its fields may be in another order.
        if ModelProto.FromString(content) == proto:
            return content
    return proto.SerializeToString()


def is_like_t5(vocabulary: SentencePieceVocabulary) -> bool:
    """Whether transformers' T5Tokenizer does what the model does: it fixes the model's kind, special ids and white space."""
    proto = ModelProto.FromString(vocabulary.model)
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    return (
        trainer.model_type == trainer.UNIGRAM
        and not trainer.byte_fallback
        and not trainer.treat_whitespace_as_suffix
        and tuple(piece.piece for piece in proto.pieces[:3]) == SPECIAL_NAMES
        and vocabulary.eos_ids == (1,)
        and vocabulary.unk_id == 2
        and normalizer.name in ("nmt_nfkc", "nmt_nfkc_cf")
        and normalizer.add_dummy_prefix
        and normalizer.remove_extra_whitespaces
        and normalizer.escape_whitespaces
        and not _symbols(proto)
    )


def convert_pieces(vocabulary: SentencePieceVocabulary) -> tuple[bytes, dict[str, str]]:
    """The content of a tokenizer.json that does what a unigram model does, and its special tokens by their roles.

    Raises:
        UserError: the model is of another kind, or the result does something else on any of a few texts.
    """
    proto = ModelProto.FromString(vocabulary.model)
    tokenizer, special_tokens = Tokenizer(_unigram(vocabulary, proto)), _special_tokens(vocabulary)
    charsmap = proto.normalizer_spec.precompiled_charsmap
    parts: list[normalizers.Normalizer] = [normalizers.Precompiled(charsmap)] if charsmap else []
    if proto.normalizer_spec.remove_extra_whitespaces:
        parts += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(parts)
    scheme = "always" if proto.normalizer_spec.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    metaspace = decoders.Metaspace(SPACE, prepend_scheme=scheme, split=False)
    fallback = [decoders.ByteFallback()] if proto.trainer_spec.byte_fallback else []
    tokenizer.decoder = decoders.Sequence([*fallback, metaspace])
    eos = special_tokens["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", eos], pair=["$A", eos, "$B", eos], special_tokens=[(eos, vocabulary.processor.eos_id())]
    )
    names = [*special_tokens.values(), *(f"<extra_id_{number}>" for number in range(vocabulary.extra_ids))]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    if any(tokenizer.encode(text).ids != vocabulary.encode_prompt(text) for text in PROBES):
        raise _refusal(vocabulary, "splits some texts as no tokenizer of transformers does")
    return tokenizer.to_str(pretty=True).encode(), special_tokens


def _unigram(vocabulary: SentencePieceVocabulary, proto: Any) -> models.Unigram:
    trainer = proto.trainer_spec
    if trainer.model_type != trainer.UNIGRAM:
        raise _refusal(vocabulary, "is no unigram model")
    if _symbols(proto):
        raise _refusal(vocabulary, f"has symbols of its own ({_symbols(proto)[0]})")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    count = len(pieces) - vocabulary.extra_ids
    # SeqIO writes the sentinels with a space before them.
    pieces[count:] = [(name.removeprefix(SPACE), score) for name, score in pieces[count:]]
    return models.Unigram(pieces, unk_id=vocabulary.unk_id, byte_fallback=trainer.byte_fallback)


def _symbols(proto: Any) -> list[str]:
    """The symbols that the model takes out of a text whole, other than T5's sentinels."""
    kind = ModelProto.SentencePiece.USER_DEFINED
    names = [piece.piece.removeprefix(SPACE) for piece in proto.pieces if piece.type == kind]
    return [name for name in names if not SENTINEL.fullmatch(name)]


def _special_tokens(vocabulary: SentencePieceVocabulary) -> dict[str, str]:
    processor = vocabulary.processor
    ids = {
        "eos_token": processor.eos_id(),
        "pad_token": processor.pad_id(),
        "unk_token": processor.unk_id(),
        "bos_token": processor.bos_id(),
    }
    return {role: processor.IdToPiece(i) for role, i in ids.items() if i >= 0}


def _refusal(vocabulary: SentencePieceVocabulary, why: str) -> UserError:
    name = "the SentencePiece model" if vocabulary.file is None else str(vocabulary.file)
    return UserError(
        f"{name} {why}: transformers gets a vocabulary of a Hugging Face folder, or a unigram model trained with "
        "--pad_id=0 --eos_id=1 --unk_id=2 --pad_piece=<pad>"
    )
