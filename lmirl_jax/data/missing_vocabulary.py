"""The vocabulary of a checkpoint that came without one: its tokens have no texts."""

from collections.abc import Sequence

from lmirl_jax.data.offsets import Offsets
from lmirl_jax.types import UserError


class MissingVocabulary:
    """Knows which tokens there are, but not what they mean.

    Args:
        where: the checkpoint, for errors.
        vocab_size: the number of ids.
        eos_ids: the tokens that end a text.
        start_id: the token that a decoder is fed first.
    """

    unk_id = None
    holds_every_text = False

    def __init__(self, where: str, vocab_size: int, eos_ids: tuple[int, ...] = (1,), start_id: int = 0):
        self.where, self.vocab_size, self.eos_ids, self.start_id = where, vocab_size, eos_ids, start_id

    def encode(self, text: str) -> list[int]:
        raise UserError(
            f"{self.where} came without a tokenizer: give its vocabulary_path, or token ids instead of texts"
        )

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return ""

    def fingerprint(self) -> str:
        return "missing"

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        return None

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        return None
