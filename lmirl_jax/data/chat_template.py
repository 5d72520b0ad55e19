"""The chat template of a checkpoint: how a conversation is written as one text, with the special tokens in it."""

import functools
import json
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from lmirl_jax.data.texts import has_surrogates
from lmirl_jax.data.tokenizer_files import CONFIG, TokenizerFiles, content_of, parse_object
from lmirl_jax.types import UserError

TEMPLATE, OLDER_TEMPLATE = "chat_template.jinja", "chat_template.json"
KEY = "chat_template"
# The tokens that a template knows by their roles.
ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
REMEDY = "correct the template, or set CHAT = False to read texts without it"

# The most characters of a template's error that are quoted.
_LONGEST = 300

# A message: its `role`, its `content`, and other keys that a template may read.
Message = Mapping[str, Any]


class ChatTemplate:
    """A template in jinja2, rendered as transformers' `apply_chat_template` renders it.

    It runs in a sandbox. `strftime_now` gives the present date, as there.

    Args:
        source: the text of the template.
        special_tokens: the texts of the special tokens by their roles, such as `bos_token`; templates read them as variables.
        where: the name of the template in errors.

    Raises:
        UserError: the text is no template.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str], where: str):
        self.source, self.where = source, where
        self.special_tokens = {role: token for role, token in special_tokens.items() if role in ROLES}
        try:
            _ = self._compiled
        except Exception as error:
            raise UserError(f"{self._place(error)}: {_describe(error)}; {REMEDY}") from None

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> str:
        """Writes a conversation as a text.

        Args:
            messages: the messages, in order; values of None are left out.
            add_generation_prompt: whether the text ends with what stands before the next assistant turn.

        Raises:
            UserError: the template refuses the conversation, fails, or does what the sandbox forbids.
        """
        from lmirl_jax.data.chat_environment import Refusal
        from lmirl_jax.data.chat_limits import BUDGET, Budget

        plain = [{key: value for key, value in each.items() if value is not None} for each in messages]
        budget = Budget()
        variables = {
            **self.special_tokens,
            "messages": plain,
            "tools": None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            "range": budget.range,
            BUDGET: budget,
        }
        try:
            text = "".join(map(budget.measure, self._compiled.generate(variables)))
        except Refusal as error:
            raise UserError(
                f"{self._place(error)} refuses the conversation ({_one_line(error)}): write its messages as this template "
                "takes them"
            ) from None
        except Exception as error:
            # A template is a program, which may fail in any way.
            raise UserError(f"{self._place(error)} fails ({_describe(error)}): {REMEDY}") from None
        if has_surrogates(text):
            raise UserError(f"{self.where} writes half of a surrogate pair: {REMEDY}")
        return text

    def names_role(self, role: str) -> bool:
        """Whether the template mentions a role, such as 'tool'."""
        return re.search(rf"""['"]{re.escape(role)}['"]""", self.source) is not None

    @functools.cached_property
    def _compiled(self) -> Any:
        # Runs without a chat template do without jinja2.
        from lmirl_jax.data.chat_environment import compile_template

        return compile_template(self.source)

    def _place(self, error: Exception) -> str:
        """The template and the line at which it was."""
        line = getattr(error, "lineno", None)
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"
        ]
        if line is None and frames:
            line = frames[-1].lineno
        return self.where if line is None else f"{self.where}, line {line}"

    def __getstate__(self) -> dict[str, Any]:
        # Compiled templates can be neither copied nor sent to another process.
        return {key: value for key, value in vars(self).items() if key != "_compiled"}


def find_template(files: TokenizerFiles) -> ChatTemplate | None:
    """The chat template among the files of a tokenizer, or None.

    chat_template.jinja comes first, then `chat_template` in tokenizer_config.json (a text, or a list of named ones, of which
    `default` is taken), then chat_template.json.

    Raises:
        UserError: a template that cannot be read, or a list without a default.
    """
    special_tokens = {role: content_of(token) for role, token in files.special_tokens.items()}
    if TEMPLATE in files.contents:
        where = files.folder / TEMPLATE
        try:
            source = files.contents[TEMPLATE].decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{where}: not UTF-8 ({error.reason}); copy it again from its checkpoint"
            ) from None
        # Text files are read with one sign for the end of a line.
        return ChatTemplate(source.replace("\r\n", "\n"), special_tokens, str(where))
    older = (
        parse_object(files.folder / OLDER_TEMPLATE, files.contents[OLDER_TEMPLATE])
        if OLDER_TEMPLATE in files.contents
        else {}
    )
    for name, found in ((CONFIG, files.config.get(KEY)), (OLDER_TEMPLATE, older.get(KEY))):
        if found is not None:
            where = f"{files.folder / name}, {KEY}"
            return ChatTemplate(_default(found, where), special_tokens, where)
    return None


def _default(found: Any, where: str) -> str:
    """The template itself, or the default one of several."""
    if isinstance(found, list):
        named = {each.get("name"): each.get("template") for each in found if isinstance(each, dict)}
        if "default" not in named:
            there = ", ".join(sorted(str(name) for name in named)) or "none"
            raise UserError(
                f"{where}: none of the templates ({there}) is named 'default'; rename the one to use, or set CHAT = False"
            )
        found = named["default"]
    if not isinstance(found, str):
        raise UserError(f"{where} is {type(found).__name__}, not a string; copy it again from its checkpoint")
    return found


def _describe(error: Exception) -> str:
    name = type(error).__name__
    if isinstance(error, RecursionError):
        return f"{name}: it calls itself without end"
    return f"{name}: {_one_line(error)}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST] or json.dumps(type(error).__name__)
