"""Tokens are aligned to the characters that they stand for."""

import pytest
import seqio

from lmirl_jax import data
from lmirl_jax.data.pieces import decode_with_offsets, encode_with_offsets

BYTES = data.vocabulary()


@pytest.fixture(scope="module")
def t5(shared_data):
    return data.vocabulary(str(shared_data / "t5_vocab" / "spiece.model"))


def pieces(text, offsets):
    return [text[begin:end] for begin, end in offsets]


def test_bytes_by_hand():
    tokens, offsets = encode_with_offsets(BYTES, "aé漢!")
    assert tokens.tolist() == [b + 3 for b in "aé漢!".encode()]
    # The last byte of a character has it.
    assert offsets == ((0, 1), (1, 1), (1, 2), (2, 2), (2, 2), (2, 3), (3, 4))


def test_bytes_that_are_no_text_stand_for_nothing():
    broken = [0xC3 + 3, ord("a") + 3, 0xA9 + 3, 2, 400, 1]
    assert decode_with_offsets(BYTES, broken) == ("a", ((0, 0), (0, 1), (1, 1), (1, 1), (1, 1), (1, 1)))


TEXTS = [
    "Janet has 16 eggs a day.",
    "  two  spaces ",
    "Héllo wörld 12+3=15 ; ok <b> 漢字 end",
    "",
    "漢漢",
    "a\nb",
]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_cover_the_whole_text(text):
    tokens, offsets = encode_with_offsets(BYTES, text)
    assert "".join(pieces(text, offsets)) == text and len(tokens) == len(text.encode())
    assert decode_with_offsets(BYTES, [*tokens.tolist(), 1]) == (text, (*offsets, (len(text), len(text))))


@pytest.mark.parametrize("text", TEXTS)
def test_sentence_pieces_lie_in_order_and_cover_all_but_white_space_at_the_ends(t5, text):
    tokens, offsets = encode_with_offsets(t5, text)
    assert tokens.tolist() == t5.encode(text)
    assert len(offsets) == len(tokens) and sorted(offsets) == list(offsets)
    assert "".join(pieces(text, offsets)).strip() == text.strip()


def test_sentence_pieces_by_hand(t5):
    text = "wörld 12 漢字"
    # The first is the mark of a word's beginning, which stands for a space but at the start.
    assert pieces(text, encode_with_offsets(t5, text)[1]) == ["", "w", "ör", "l", "d", " 12", " ", "漢字"]
    text, offsets = decode_with_offsets(t5, [*t5.encode("12 + 3"), 1])
    assert (text, pieces(text, offsets)) == ("12 + 3", ["12", " +", " 3", ""])


class Words(seqio.PassThroughVocabulary):
    """Decodes as neither of the two: a word a token."""

    def _encode(self, s):
        return [int(word) for word in s.split()]

    def _decode(self, ids):
        return " ".join(str(i) for i in ids)


def test_any_other_vocabulary_is_decoded_token_by_token():
    text, offsets = decode_with_offsets(Words(100), [5, 66, 7])
    assert (text, pieces(text, offsets)) == ("5 66 7", ["5", " 66", " 7"])
