"""The vocabulary of a Hugging Face tokenizer (https://github.com/huggingface/tokenizers), as its tokenizer.json defines it."""

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from lmirl_jax.data.added_tokens import add_missing_tokens
from lmirl_jax.data.every_text import keeps_every_text
from lmirl_jax.data.offsets import Offsets
from lmirl_jax.data.token_lengths import contiguous, stream_ends
from lmirl_jax.data.tokenizer_files import CONFIG, TOKENIZER, TokenizerFiles, content_of, parse_object
from lmirl_jax.types import UserError

# Parts of tokenizer.json that do not decide which tokens a text has.
IRRELEVANT = ("version", "truncation", "padding")


class HuggingFaceVocabulary:
    """The tokens of a `tokenizers.Tokenizer`, with the special tokens that the files beside it name.

    A text that spells out a special token, such as `<|im_end|>`, gets this token, as in transformers; decoding leaves special
    tokens out, except for the one of unknown text.

    Args:
        files: the files of the tokenizer, tokenizer.json among them.

    Raises:
        UserError: tokenizer.json holds no tokenizer, or no file names a token that ends a text.
    """

    def __init__(self, files: TokenizerFiles):
        described = parse_object(files.folder / TOKENIZER, files.contents[TOKENIZER])
        self.files = dict(files.contents)
        self.special_tokens = {role: content_of(token) for role, token in files.special_tokens.items()}
        self._tokenizer = tokenizer = _make(files)
        added = add_missing_tokens(tokenizer, files)
        self.eos_ids = _eos_ids(tokenizer, files)
        self.start_id = _pad_id(tokenizer, files, described, self.eos_ids[0])
        self.unk_id = _unknown_id(tokenizer, described["model"])
        self.vocab_size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        added_tokens = tokenizer.get_added_tokens_decoder().items()
        # The texts of the special tokens by their ids.
        self.special_ids = {i: token.content for i, token in added_tokens if token.special}
        self._unread = {*self.special_ids, *self.eos_ids} - {self.unk_id}
        self._described = [_canonical(described), added, self.eos_ids, tokenizer.encode_special_tokens]
        self.holds_every_text = keeps_every_text(tokenizer, lambda text: self.decode(self.encode(text)))

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_prompt(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=True).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text up to the first EOS, without special tokens; ids that stand for no token are read as unknown."""
        read = [i for i in self._readable(ids) if i is not None]
        return self._tokenizer.decode(read, skip_special_tokens=False)

    def token_text(self, token: int) -> str:
        """The text that one token stands for in the tokenizer's own spelling; '' for an id that stands for none."""
        return self._tokenizer.id_to_token(token) or ""

    @functools.cached_property
    def _fingerprint(self) -> str:
        described = json.dumps(self._described, sort_keys=True)
        return hashlib.sha256(f"HuggingFaceVocabulary {described}".encode()).hexdigest()

    def fingerprint(self) -> str:
        return self._fingerprint

    def text_offsets(self, text: str, ids: Sequence[int]) -> Offsets | None:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        if encoding.ids != list(ids):
            return None
        # Tokens that share a character each have all of it: the last one is to have it alone.
        ends = [end for _, end in encoding.offsets]
        for place in reversed(range(len(ends) - 1)):
            ends[place] = min(ends[place], encoding.offsets[place + 1][0], ends[place + 1])
        return contiguous(ends)

    def token_offsets(self, ids: Sequence[int], text: str) -> Offsets | None:
        read = self._readable(ids)
        kept = [i for i in read if i is not None]
        if self._tokenizer.decode(kept, skip_special_tokens=False) != text:
            return None
        ends = stream_ends(self._tokenizer, kept, text)
        if ends is None:
            return None
        counts = itertools.accumulate(i is not None for i in read)
        ends = [0, *ends]
        return contiguous([ends[count] for count in counts])

    def _readable(self, ids: Sequence[int]) -> list[int | None]:
        """For each token the id to decode in its place; None for one that stands for no text, as after the end."""
        read: list[int | None] = []
        for i in ids:
            if i in self.eos_ids:
                break
            known = i >= 0 and self._tokenizer.id_to_token(i) is not None
            read.append(None if i in self._unread else i if known else self.unk_id)
        return read + [None] * (len(ids) - len(read))


def _make(files: TokenizerFiles) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(files.contents[TOKENIZER].decode("utf-8"))
    except Exception as error:
        # The library raises Exception itself.
        raise UserError(
            f"{files.folder / TOKENIZER} is no tokenizer that the library tokenizers reads ({error}): copy it again from "
            "its checkpoint, or update tokenizers"
        ) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if getattr(tokenizer.model, "dropout", None):
        # It would draw other tokens each time.
        tokenizer.model.dropout = None
    tokenizer.encode_special_tokens = bool(files.config.get("split_special_tokens", False))
    return tokenizer


def _eos_ids(tokenizer: Tokenizer, files: TokenizerFiles) -> tuple[int, ...]:
    """The token that is named as EOS, and all that end the model's generation."""
    named = tokenizer.token_to_id(content_of(files.special_tokens.get("eos_token")))
    generation = files.generation_config.get("eos_token_id")
    if named is None and generation is None:
        generation = files.model_config.get("eos_token_id")
    more = generation if isinstance(generation, list) else [generation]
    found = tuple(dict.fromkeys(i for i in (named, *more) if type(i) is int and i >= 0))
    if not found:
        raise UserError(
            f'the tokenizer at {files.folder} names no token that ends a text: write "eos_token": "..." into '
            f"{files.folder / CONFIG}"
        )
    return found


def _pad_id(tokenizer: Tokenizer, files: TokenizerFiles, described: dict[str, Any], eos_id: int) -> int:
    padding = described.get("padding") or {}
    named = content_of(files.special_tokens.get("pad_token") or padding.get("pad_token"))
    candidates = (
        tokenizer.token_to_id(named),
        files.generation_config.get("pad_token_id"),
        files.model_config.get("pad_token_id"),
    )
    return next((i for i in candidates if type(i) is int and i >= 0), eos_id)


def _unknown_id(tokenizer: Tokenizer, model: dict[str, Any]) -> int | None:
    """The token that the model gives to text that it lacks; transformers may name one where a model has none."""
    if "unk_id" in model:
        return model["unk_id"]
    return tokenizer.token_to_id(model.get("unk_token") or "")


def _canonical(described: dict[str, Any]) -> dict[str, Any]:
    """The content of tokenizer.json in one form, whichever release of tokenizers wrote it."""
    parts = {key: value for key, value in described.items() if key not in IRRELEVANT and value is not None}
    # The options of models are off where they are left out.
    off = {key for key, value in described["model"].items() if value is None or value is False or value == ""}
    model = {key: value for key, value in described["model"].items() if key not in off | {"dropout"}}
    if "merges" in model:
        merges = model["merges"]
        model["merges"] = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in merges]
    return parts | {"model": model}
