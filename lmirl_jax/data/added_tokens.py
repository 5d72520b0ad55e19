"""Adds the tokens to a Hugging Face tokenizer that the files beside its tokenizer.json name, as transformers does."""

from collections.abc import Iterable
from typing import Any

from tokenizers import AddedToken, Tokenizer

from lmirl_jax.data.tokenizer_files import TokenizerFiles, content_of

OPTIONS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def add_missing_tokens(tokenizer: Tokenizer, files: TokenizerFiles) -> list[Any]:
    """Adds the tokens that the tokenizer lacks, in the order in which transformers numbers them.

    Args:
        tokenizer: the tokenizer, which is changed.
        files: its files.

    Returns:
        What was added, as JSON.
    """
    special = files.special_tokens
    roles = {content_of(token) for token in special.values()}
    extra = files.config.get("extra_special_tokens") or files.config.get("additional_special_tokens") or []
    extra = list(extra.values() if isinstance(extra, dict) else extra)
    there = {known.content for known in tokenizer.get_added_tokens_decoder().values()}
    added = []
    for token, is_special in (
        *((token, content_of(token) in roles) for token in _listed(files)),
        *((token, True) for token in (*special.values(), *extra)),
    ):
        text = content_of(token)
        if text and text not in there:
            options = {key: bool(token[key]) for key in OPTIONS if isinstance(token, dict) and key in token}
            options["special"] = is_special or options.get("special", False)
            tokenizer.add_tokens([AddedToken(text, **options)])
            there.add(text)
            added.append([text, options])
    return added


def _listed(files: TokenizerFiles) -> Iterable[Any]:
    """The added tokens by their ids; added_tokens.json is where older releases of transformers wrote them."""
    listed = files.config.get("added_tokens_decoder")
    if isinstance(listed, dict):
        return [token for _, token in sorted(listed.items(), key=lambda item: int(item[0]))]
    older = files.parse("added_tokens.json")
    return [text for text, _ in sorted(older.items(), key=lambda item: item[1])]
