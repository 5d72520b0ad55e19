"""The files of a Hugging Face tokenizer in a folder, and what its JSON files say."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from lmirl_jax.types import UserError

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
# SentencePiece models, as transformers and T5X name them.
MODELS = ("spiece.model", "sentencepiece.model", "tokenizer.model")
# They travel with the tokenizer; chat templates, whose names vary, come to them.
NAMES = (
    *(TOKENIZER, CONFIG, "special_tokens_map.json", "added_tokens.json", *MODELS),
    *("vocab.json", "merges.txt"),
)
TEMPLATES = ("chat_template.*", "additional_chat_templates/*")
# The classes of the models whose config.json may be all that names one; transformers keeps this table in its sources.
CLASSES = {
    **dict.fromkeys(("t5", "mt5", "umt5", "longt5", "switch_transformers"), "T5Tokenizer"),
    "byt5": "ByT5Tokenizer",
    "gpt2": "GPT2Tokenizer",
}
SENTINEL = re.compile(r"<extra_id_\d+>")


def has_tokenizer(folder: str) -> bool:
    """Whether a folder holds files of a Hugging Face tokenizer, which `vocabulary` may read."""
    return any((pathlib.Path(folder) / name).is_file() for name in NAMES)


@dataclasses.dataclass(frozen=True)
class TokenizerFiles:
    """The files of a tokenizer, and of its model's folder what concerns the tokenizer.

    Args:
        folder: where they lie, for errors.
        contents: the tokenizer's files by name.
        config: the object of tokenizer_config.json; empty where there is none.
        model_config: the object of config.json, in the same way.
        generation_config: the object of generation_config.json, in the same way.
    """

    folder: pathlib.Path
    contents: Mapping[str, bytes]
    config: Mapping[str, Any]
    model_config: Mapping[str, Any]
    generation_config: Mapping[str, Any]

    @property
    def class_name(self) -> str | None:
        """The name of the tokenizer's class in transformers, without `Fast`; None where no file says it."""
        name = self.config.get("tokenizer_class") or self.model_config.get("tokenizer_class")
        if not isinstance(name, str):
            return CLASSES.get(str(self.model_config.get("model_type")))
        name = name.removesuffix("Fast")
        return "T5Tokenizer" if name == "MT5Tokenizer" else name

    @property
    def special_tokens(self) -> dict[str, Any]:
        """The tokens with a role, such as `eos_token`: each a string, or an object with its `content`."""
        named = dict(self.config)
        # Since tokenizer_config.json lists the added tokens, transformers passes over the older file.
        if "added_tokens_decoder" not in named and "special_tokens_map.json" in self.contents:
            named |= self.parse("special_tokens_map.json")
        roles = {key: value for key, value in named.items() if key.endswith("_token")}
        return {key: value for key, value in roles.items() if isinstance(value, (str, dict))}

    def with_tokenizer(self, content: str) -> "TokenizerFiles":
        """The same files with another tokenizer.json."""
        return dataclasses.replace(self, contents={**self.contents, TOKENIZER: content.encode()})

    def parse(self, name: str) -> dict[str, Any]:
        """The object of one of the tokenizer's JSON files; empty where the file is not there."""
        return parse_object(self.folder / name, self.contents[name]) if name in self.contents else {}

    def extra_ids(self, default: int) -> int:
        """The number of sentinels that tokenizer_config.json adds to the vocabulary: as a number, or as their names.

        Raises:
            UserError: the number is none.
        """
        number = self.config.get("extra_ids", None if self.sentinels() else default)
        if number is not None and (type(number) is not int or number < 0):
            raise UserError(
                f"{self.folder / CONFIG}: extra_ids is {number!r}; write the number of ids after the vocabulary's own"
            )
        # ByT5's tokenizer is saved with the number 0 and the names of all of its sentinels.
        return max(number or 0, len(self.sentinels()))

    def sentinels(self) -> set[str]:
        """The sentinels that tokenizer_config.json names."""
        lists = [self.config.get(key) for key in ("additional_special_tokens", "extra_special_tokens")]
        named = [token for tokens in lists if isinstance(tokens, list) for token in tokens]
        added = self.config.get("added_tokens_decoder")
        named += added.values() if isinstance(added, dict) else []
        return {text for text in map(content_of, named) if SENTINEL.fullmatch(text)}


def read_files(folder: pathlib.Path, tokenizer: pathlib.Path | None = None) -> TokenizerFiles:
    """Reads the files of the tokenizer in a folder.

    Args:
        folder: the folder.
        tokenizer: the file that takes the place of the folder's tokenizer.json, which it is copied as.

    Raises:
        UserError: one cannot be read, or is no JSON object where it should be one.
    """
    paths = {name: folder / name for name in NAMES}
    for pattern in TEMPLATES:
        paths |= {path.relative_to(folder).as_posix(): path for path in sorted(folder.glob(pattern))}
    paths[TOKENIZER] = tokenizer or folder / TOKENIZER
    contents = {name: _read(path) for name, path in paths.items() if path.is_file()}
    return TokenizerFiles(
        folder,
        contents,
        *(_parse_file(folder / name) for name in (CONFIG, "config.json", "generation_config.json")),
    )


def parse_object(path: pathlib.Path, content: bytes) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        UserError: the content is none.
    """
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}): copy it again from its checkpoint") from None
    if not isinstance(parsed, dict):
        raise UserError(f"{path} holds no JSON object: copy it again from its checkpoint")
    return parsed


def content_of(token: Any) -> str:
    """The text of a token, which JSON has as a string or as an object; '' where it is neither."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else ""


def _parse_file(path: pathlib.Path) -> dict[str, Any]:
    return parse_object(path, _read(path)) if path.is_file() else {}


def _read(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): make it readable") from None
