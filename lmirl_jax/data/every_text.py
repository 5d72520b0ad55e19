"""Finds out whether a Hugging Face tokenizer gives every text back as it was."""

from collections.abc import Callable

from tokenizers import Tokenizer

# Those that occur in UTF-8.
BYTES = tuple(byte for byte in range(0xF5) if byte not in (0xC0, 0xC1))
PRINTABLE = frozenset([*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)])
# What normalizers, prefixes and decoders change: white space, capitals, accents, compatibility characters, controls.
PROBES = (
    *(
        "a",
        " a",
        "a ",
        "  a  b  ",
        "a\nb\r\n\n\tc",
        "\n",
        " ",
        "Ab CD",
        "é e\u0301 ñ",
        "ﬁ ½ Å ａ １",
        "straße İ",
    ),
    *(
        "漢字 かな 한글",
        "\u00a0\u200b\u3000x",
        "🙂👩\u200d👩\u200d👧",
        "\x00\x01\x7f",
        "don 't , . ! ?",
        "“a”–b…",
        "1234567",
    ),
)


def keeps_every_text(tokenizer: Tokenizer, there_and_back: Callable[[str], str]) -> bool:
    """Whether the vocabulary has every byte, and decoding gives texts back that many a tokenizer changes.

    It is so apart from texts that spell out a special token, or SentencePiece's sign for a space.

    Args:
        tokenizer: the tokenizer.
        there_and_back: encodes a text and decodes its tokens.
    """
    known = tokenizer.get_vocab(with_added_tokens=False)
    if getattr(tokenizer.model, "byte_fallback", False):
        names = [f"<0x{byte:02X}>" for byte in BYTES]
    else:
        names = [byte_letter(byte) for byte in BYTES]
    return all(name in known for name in names) and all(there_and_back(text) == text for text in PROBES)


def byte_letter(byte: int) -> str:
    """The letter by which byte-level tokenizers write a byte, as GPT-2 chose them: itself, if it can be printed as Latin-1."""
    if byte in PRINTABLE:
        return chr(byte)
    return chr(256 + sum(1 for other in range(byte) if other not in PRINTABLE))
