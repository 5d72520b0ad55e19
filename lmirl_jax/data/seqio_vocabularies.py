"""SeqIO's vocabularies as ours, for SeqIO tasks, and one of ours as SeqIO's."""

import hashlib
from collections.abc import Sequence

from lmirl_jax.data import vocabularies
from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.sentence_pieces import EXTRA_IDS, SentencePieceVocabulary
from lmirl_jax.data.seqio_library import seqio


def seqio_vocabulary(path: str | None = None) -> seqio.Vocabulary:
    """The vocabulary of `vocabulary(path)` in SeqIO's type, for the features of a SeqIO task.

    Args:
        path: a SentencePiece model, or None for bytes.

    Raises:
        UserError: what `vocabulary` raises.
    """
    found = vocabularies.vocabulary(path)
    if isinstance(found, SentencePieceVocabulary):
        return seqio.SentencePieceVocabulary(str(found.file), extra_ids=EXTRA_IDS)
    return seqio.ByteVocabulary()


def from_seqio(vocabulary: seqio.Vocabulary) -> vocabularies.Vocabulary:
    """The `Vocabulary` that does what one of SeqIO's does. A subclass may do anything, so that it is asked itself."""
    if type(vocabulary) is seqio.ByteVocabulary:
        return ByteVocabulary(vocabulary.extra_ids)
    if type(vocabulary) is seqio.SentencePieceVocabulary:
        return _pieces(vocabulary)
    return SeqioVocabulary(vocabulary)


class SeqioVocabulary:
    """Any `seqio.Vocabulary`. One with several ids that end a text has them as its attribute `eos_ids`.

    Args:
        vocabulary: the vocabulary of SeqIO; its `eos_id` is the first of `eos_ids`.
    """

    def __init__(self, vocabulary: seqio.Vocabulary):
        self.wrapped = vocabulary
        ids = (vocabulary.eos_id, *getattr(vocabulary, "eos_ids", ()))
        self.eos_ids = tuple(dict.fromkeys(int(i) for i in ids if i is not None and i >= 0))
        self.start_id = _start_id(vocabulary, self.eos_ids)
        self.unk_id = vocabulary.unk_id
        self.vocab_size = vocabulary.vocab_size
        kinds = (seqio.ByteVocabulary, seqio.PassThroughVocabulary)
        self.holds_every_text = isinstance(vocabulary, kinds)

    def encode(self, text: str) -> list[int]:
        return list(self.wrapped.encode(text))

    def encode_prompt(self, text: str) -> list[int]:
        return [*self.encode(text), *self.eos_ids[:1]]

    def decode(self, ids: Sequence[int]) -> str:
        # SeqIO's own decoding stops after `eos_id`, and knows of no other.
        ids = list(ids)
        others = [ids.index(eos) for eos in self.eos_ids if eos != self.wrapped.eos_id and eos in ids]
        return self.wrapped.decode(ids[: min(others, default=len(ids))])

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{type(self.wrapped).__name__} {self.wrapped.extra_ids}".encode())
        if isinstance(self.wrapped, seqio.SentencePieceVocabulary):
            digest.update(_pieces(self.wrapped).model)
        elif not isinstance(self.wrapped, seqio.ByteVocabulary):
            # Tables and lookups of TensorFlow have addresses, not contents: plain attributes must do.
            kinds = (str, int, float, bool, list, tuple)
            plain = {key: value for key, value in vars(self.wrapped).items() if isinstance(value, kinds)}
            digest.update(repr(sorted(plain.items())).encode())
        return digest.hexdigest()

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        if isinstance(self.wrapped, seqio.SentencePieceVocabulary):
            return _pieces(self.wrapped).text_offsets(text, ids)
        return None

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        if isinstance(self.wrapped, seqio.SentencePieceVocabulary):
            return _pieces(self.wrapped).token_offsets(ids, text)
        if isinstance(self.wrapped, seqio.ByteVocabulary):
            return ByteVocabulary().token_offsets(ids, text)
        return None


def _start_id(vocabulary: seqio.Vocabulary, eos_ids: Sequence[int]) -> int:
    if isinstance(vocabulary, seqio.SentencePieceVocabulary):
        # SeqIO says that padding is 0, whatever the model holds there.
        return _pieces(vocabulary).start_id
    pad_id = vocabulary.pad_id
    return pad_id if pad_id is not None and pad_id >= 0 else next(iter(eos_ids), 0)


def _pieces(vocabulary: seqio.SentencePieceVocabulary) -> SentencePieceVocabulary:
    model = vocabulary.sp_model
    # SeqIO loads the model when the property is read.
    assert model is not None
    return SentencePieceVocabulary(vocabulary.tokenizer, model, vocabulary.extra_ids)
