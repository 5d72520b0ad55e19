"""SeqIO's vocabularies as ours, for SeqIO tasks, and one of ours as SeqIO's."""

import hashlib
from collections.abc import Sequence

import numpy as np

from lmirl_jax.data import vocabularies
from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.sentence_pieces import SentencePieceVocabulary
from lmirl_jax.data.seqio_library import seqio, tf


def seqio_vocabulary(
    path: str | None = None, for_prompts: bool = False, chat: bool | None = None
) -> seqio.Vocabulary:
    """The vocabulary of `vocabulary(path)` in SeqIO's type, for the features of a SeqIO task.

    Args:
        path: a folder with a Hugging Face tokenizer, a tokenizer.json, a SentencePiece model, or None for bytes.
        for_prompts: whether its tokens include the special ones around a prompt; its feature then has add_eos=False.
        chat: see `vocabulary`.

    Raises:
        UserError: what `vocabulary` raises.
    """
    found = vocabularies.vocabulary(path, chat)
    if for_prompts:
        return WrappedVocabulary(found, for_prompts)
    if isinstance(found, SentencePieceVocabulary):
        return seqio.SentencePieceVocabulary(str(found.file), extra_ids=found.extra_ids)
    if isinstance(found, ByteVocabulary):
        return seqio.ByteVocabulary(found.extra_ids)
    return WrappedVocabulary(found)


def from_seqio(vocabulary: seqio.Vocabulary) -> vocabularies.Vocabulary:
    """The `Vocabulary` that does what one of SeqIO's does. A subclass may do anything, so that it is asked itself."""
    if isinstance(vocabulary, WrappedVocabulary):
        return vocabulary.wrapped
    if type(vocabulary) is seqio.ByteVocabulary:
        return ByteVocabulary(vocabulary.extra_ids)
    if type(vocabulary) is seqio.SentencePieceVocabulary:
        return _pieces(vocabulary)
    return SeqioVocabulary(vocabulary)


class WrappedVocabulary(seqio.Vocabulary):
    """One of our vocabularies in SeqIO's type.

    Args:
        wrapped: the vocabulary.
        for_prompts: whether texts are encoded as prompts, with the special tokens around them.
    """

    def __init__(self, wrapped: vocabularies.Vocabulary, for_prompts: bool = False):
        super().__init__(extra_ids=0)
        self.wrapped, self.for_prompts = wrapped, for_prompts

    @property
    def eos_id(self) -> int:
        return self.wrapped.eos_ids[0]

    @property
    def pad_id(self) -> int:
        return self.wrapped.start_id

    @property
    def unk_id(self) -> int | None:
        return self.wrapped.unk_id

    @property
    def _base_vocab_size(self) -> int:
        return self.wrapped.vocab_size

    def _encode(self, s: str) -> list[int]:
        return self.wrapped.encode_prompt(s) if self.for_prompts else self.wrapped.encode(s)

    def _decode(self, ids: Sequence[int]) -> str:
        return self.wrapped.decode([int(i) for i in ids])

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor | tf.RaggedTensor:
        """Encodes a text, or a list of texts, by Python code, which TensorFlow can neither save nor run elsewhere."""
        texts, kinds = tf.reshape(s, [-1]), (tf.int32, tf.bool)
        rows, mask = tf.numpy_function(self._encode_array, [texts], kinds, stateful=False)
        rows, mask = tf.ensure_shape(rows, [None, None]), tf.ensure_shape(mask, [None, None])
        return rows[0] if s.shape.rank in (0, None) else tf.ragged.boolean_mask(rows, mask)

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        text = tf.numpy_function(self._decode_array, [ids], tf.string, stateful=False)
        return tf.ensure_shape(text, [])

    def _encode_array(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A row of tokens for each text, filled up with zeros, and which of them are tokens."""
        encoded = [self._encode(text.decode("utf-8", errors="replace")) for text in texts]
        mask = np.arange(max(map(len, encoded), default=0)) < np.array([len(ids) for ids in encoded])[:, None]
        rows = np.zeros(mask.shape, np.int32)
        rows[mask] = [i for ids in encoded for i in ids]
        return rows, mask

    def _decode_array(self, ids: np.ndarray) -> bytes:
        return self._decode(ids.tolist()).encode("utf-8")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WrappedVocabulary) or self.for_prompts != other.for_prompts:
            return False
        return self.wrapped.fingerprint() == other.wrapped.fingerprint()

    def __hash__(self) -> int:
        return hash((self.wrapped.fingerprint(), self.for_prompts))


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
