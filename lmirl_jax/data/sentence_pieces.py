"""The vocabulary of a SentencePiece model (https://github.com/google/sentencepiece)."""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from lmirl_jax.data.offsets import Offsets, in_characters

# Protobuf makes the classes of this module when it is imported.
ModelProto = sentencepiece_model_pb2.ModelProto  # pyrefly: ignore[missing-attribute]

# T5 reserves 100 sentinels above its pieces: 32,000 + 100.
EXTRA_IDS = 100


class SentencePieceVocabulary:
    """The pieces of a model, with the ids that it was trained with; `load` reads one from its file.

    Args:
        processor: a `SentencePieceProcessor`.
        model: the serialised model that it has loaded, extra ids included.
        extra_ids: the number of sentinels that were added at the end of the model's pieces.
        file: the file of the model, if it was read from one.
        files: the files of the Hugging Face tokenizer that it was read from, by name; empty if there was none.
    """

    holds_every_text = False

    def __init__(
        self,
        processor: Any,
        model: bytes,
        extra_ids: int,
        file: pathlib.Path | None = None,
        files: Mapping[str, bytes] | None = None,
    ):
        self.processor = processor
        self.model = model
        self.extra_ids = extra_ids
        self.file = file
        self.files = dict(files or {})
        eos_id = processor.eos_id()
        # A model without such a piece says -1.
        self.eos_ids = (eos_id,) if eos_id >= 0 else ()
        self.start_id = processor.pad_id() if processor.pad_id() >= 0 else max(eos_id, 0)
        self.unk_id = processor.unk_id()
        self.vocab_size = processor.GetPieceSize()

    @classmethod
    def load(
        cls,
        file: pathlib.Path,
        extra_ids: int = EXTRA_IDS,
        files: Mapping[str, bytes] | None = None,
    ) -> "SentencePieceVocabulary":
        """Reads a model and adds T5's sentinels to it, as SeqIO does: `<extra_id_0>` has the last id.

        Raises:
            Exception: the file holds no model; protobuf and SentencePiece each raise their own.
        """
        proto = ModelProto.FromString(file.read_bytes())
        if not proto.pieces:
            raise ValueError(f"{file} holds no pieces")
        kind = ModelProto.SentencePiece.USER_DEFINED
        for number in reversed(range(extra_ids)):
            proto.pieces.add(piece=f"▁<extra_id_{number}>", score=0.0, type=kind)
        model = proto.SerializeToString()
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(model)
        return cls(processor, model, extra_ids, file, files)

    def encode(self, text: str) -> list[int]:
        return list(self.processor.EncodeAsIds(text))

    def encode_prompt(self, text: str) -> list[int]:
        return [*self.encode(text), *self.eos_ids[:1]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text up to the first EOS; ids outside of the vocabulary are read as unknown."""
        return self.processor.DecodeIds(self._until_eos(ids))

    def fingerprint(self) -> str:
        # The name of SeqIO's class, as checkpoints record it.
        return hashlib.sha256(f"SentencePieceVocabulary {self.extra_ids}".encode() + self.model).hexdigest()

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        pieces = self.processor.encode(text, return_type="proto").pieces
        if [piece.id for piece in pieces] != list(ids):
            return None
        return in_characters(text, [(piece.begin, piece.end) for piece in pieces])

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        read = self._until_eos(ids)
        decoded = self.processor.decode(read, return_type="proto")
        if decoded.text != text or len(decoded.pieces) != len(read):
            return None
        offsets = in_characters(text, [(piece.begin, piece.end) for piece in decoded.pieces])
        return offsets + ((len(text), len(text)),) * (len(ids) - len(read))

    def _until_eos(self, ids: Sequence[int]) -> list[int]:
        known = [i if i < self.vocab_size else self.unk_id for i in ids]
        ends = [known.index(eos) + 1 for eos in self.eos_ids if eos in known]
        return known[: min(ends, default=len(known))]
