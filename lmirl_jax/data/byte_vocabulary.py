"""The vocabulary of bytes, with ByT5's ids (https://arxiv.org/abs/2105.13626)."""

import codecs
import hashlib
from collections.abc import Mapping, Sequence

from lmirl_jax.data.offsets import Offsets

PAD, EOS, UNKNOWN = 0, 1, 2
# Ids below this one are not bytes.
SPECIAL = 3


class ByteVocabulary:
    """The bytes of UTF-8 from id 3 on; 1 ends a text.

    Args:
        extra_ids: the number of ids after the bytes; they stand for no text.
        files: the files of the Hugging Face tokenizer that it was read from, by name; empty if there was none.
    """

    eos_ids = (EOS,)
    start_id = PAD
    unk_id = UNKNOWN
    holds_every_text = True

    def __init__(self, extra_ids: int = 0, files: Mapping[str, bytes] | None = None):
        self.extra_ids = extra_ids
        self.files = dict(files or {})
        self.vocab_size = SPECIAL + 256 + extra_ids

    def encode(self, text: str) -> list[int]:
        return [byte + SPECIAL for byte in text.encode("utf-8")]

    def encode_prompt(self, text: str) -> list[int]:
        return [*self.encode(text), EOS]

    def decode(self, ids: Sequence[int]) -> str:
        """The text up to the first EOS, without ids that are not bytes and bytes that are not UTF-8."""
        ids = list(ids)
        end = ids.index(EOS) if EOS in ids else len(ids)
        return bytes(i - SPECIAL for i in ids[:end] if _is_byte(i)).decode("utf-8", errors="ignore")

    def fingerprint(self) -> str:
        # The name of SeqIO's class, as checkpoints record it.
        return hashlib.sha256(f"ByteVocabulary {self.extra_ids}".encode()).hexdigest()

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        return self.token_offsets(ids, text)

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        """The offsets of bytes: the last byte of a character stands for it, and those before it for nothing."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        offsets, end = [], 0
        for i in ids:
            begin = end
            end += len(decoder.decode(bytes([i - SPECIAL]))) if _is_byte(i) else 0
            offsets.append((min(begin, len(text)), min(end, len(text))))
        return tuple(offsets)


def _is_byte(token: int) -> bool:
    return SPECIAL <= token < SPECIAL + 256
