"""The mistakes that a user can make in gin files and bindings, each as one line that names the remedy."""

import contextlib
import difflib
import importlib
import inspect
import os
import re
import shlex
import tokenize
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

from gin import config_parser

from lmirl_jax.types import UserError

_PLACE = re.compile(r'\n  In (?:file "(?P<file>.*?)",|bindings string) line (?P<line>\d+)\n    (?P<text>.*)')
_KEY = re.compile(r"[A-Za-z_][\w/]*(?:\.[A-Za-z_]\w*)*")
_EXAMPLES = {
    "MODEL_DIR": "'/tmp/run'",
    "TRAIN_STEPS": "1000",
    "MIXTURE_OR_TASK_NAME": "'number_paths'",
    "NETWORK": "%MODEL",
    "DATA": "'my.jsonl'",
    "COLUMNS": "{'inputs': 'question', 'targets': 'answer'}",
    "VALIDATION_SHARE": "0.05",
    "VOCABULARY_PATH": "'spiece.model'",
    "INITIAL_CHECKPOINT_PATH": "'/tmp/run/checkpoints/1000'",
    "CHECKPOINT_PATH": "'/tmp/run/checkpoints/1000'",
    "FORMAT": "'hf'",
    "OUTPUT_PATH": "'/tmp/out'",
    "EVAL_OUTPUT_DIR": "'/tmp/run/eval'",
    "INFER_OUTPUT_DIR": "'/tmp/run/infer'",
    "TASK_FEATURE_LENGTHS": "{'inputs': 512, 'targets': 256}",
    "DROPOUT_RATE": "0.1",
    "RUNS": "{'MLE': ['/tmp/a'], 'IQLearn': ['/tmp/b', '/tmp/c']}",
    "OUTPUT_DIR": "'/tmp/front'",
}
_CONSTANTS = {"true": "True", "false": "False", "none": "None", "null": "None"}


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the most similar name, or an empty text where none is similar."""
    names = sorted(set(names))
    lower = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name.lower(), list(lower), n=1, cutoff=0.5)
    return f"; did you mean {lower[matches[0]]!r}?" if matches else ""


def flag(name: str, value: str) -> str:
    """A binding for a shell: `--gin.NAME=VALUE`, quoted where the shell needs quotes."""
    if value == shlex.quote(value):
        return f"--gin.{name}={value}"
    plain = not set(value) & set('"$`\\!')
    return f'--gin.{name}="{value}"' if plain else f"--gin.{name}={shlex.quote(value)}"


def missing_file(name: str, bundled: Iterable[str], where: str = "") -> UserError:
    bundled = list(bundled)
    hint = nearest(name, bundled) or f"; bundled are {', '.join(bundled)}"
    return UserError(f"{where}no gin file {name!r} in this folder, in --gin_search_paths or bundled{hint}")


def not_utf8(path: str, error: UnicodeDecodeError) -> UserError:
    line = error.object[: error.start].count(b"\n") + 1
    return UserError(f"{display_path(path)}:{line}: not UTF-8 ({error.reason}): save the file as UTF-8")


def unset(names: list[str]) -> UserError:
    """An error for all macros without a value, with flags to copy."""
    flags = " ".join(flag(name, _EXAMPLES.get(name, "VALUE")) for name in names)
    return UserError(f"the configuration leaves {', '.join(names)} unset: add for example {flags}")


def unknown_macro(name: str, known: Iterable[str]) -> UserError:
    hint = nearest(name, known) or f"; there are {', '.join(sorted(known))}"
    return UserError(f"--gin.{name}: no gin file sets or uses {name}, so it would have no effect{hint}")


def check_binding(binding: str) -> str:
    """Returns the name that a binding sets; raises a UserError with a corrected flag where gin cannot read the value."""
    key, equals, value = (part.strip() for part in binding.partition("="))
    if not equals or not value or not _KEY.fullmatch(key):
        raise UserError(f"{binding.strip()!r} is no binding: write --gin.NAME=VALUE")
    try:
        list(config_parser.ConfigParser(f"{key} = {value}", _Anything()))
    except (SyntaxError, tokenize.TokenError, ValueError):
        raise UserError(f"--gin.{key}={value}: gin cannot read this value; {_remedy(key, value)}") from None
    return key


def _remedy(key: str, value: str) -> str:
    if value.lower() in _CONSTANTS:
        return f"write {flag(key, _CONSTANTS[value.lower()])}"
    if not set(value) & set("'\"[](){}@%,"):
        quoted = repr(value)
        return f"a string needs quotes inside the shell's: {flag(key, quoted)}"
    return "values are Python literals, @references or %MACROS: check its quotes and brackets"


class _Anything(config_parser.ParserDelegate):
    """Accepts every reference and macro, because only the syntax is checked."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return scoped_configurable_name

    def macro(self, macro_name: str) -> Any:
        return macro_name


@contextlib.contextmanager
def in_file(path: str, bundled: Iterable[str]) -> Iterator[None]:
    """Turns an exception of gin while it reads a file into a UserError that begins with the file and line of the mistake."""
    try:
        yield
    except SyntaxError as error:
        # A syntax error outside gin files is a bug in a module that a gin file imports.
        if not str(error.filename or "").endswith(".gin") and _innermost(error)[0] is None:
            raise
        remedy = ": check its quotes and brackets, and that it begins on the line of its name"
        problem = _first_line(error.msg).rstrip(".") + remedy * ("value" in error.msg)
        raise UserError(f"{display_path(error.filename or path)}:{error.lineno}: {problem}") from None
    except RecursionError as error:
        # The innermost frames may be those of Python's own reader of files; a module's own recursion has few of gin.
        if sum(map(_is_of_gin, traceback.extract_tb(error.__traceback__))) < 50:
            raise
        raise UserError(
            f"{display_path(path)}: its includes lead back to a file that includes them: remove one of these includes"
        ) from None
    except tokenize.TokenError as error:
        raise UserError(f"{display_path(path)}: {error.args[0]}: is a bracket or quote left open?") from None
    except (OSError, ImportError, NameError, AttributeError, ValueError) as error:
        file, line, text = _innermost(error)
        if file is None or not (isinstance(error, ImportError) or _raised_by_gin(error)):
            raise
        where = f"{display_path(file)}:{line}: "
        if include := re.match(r"include\s+(['\"])(.*)\1", text):
            raise missing_file(include[2], bundled, where) from None
        raise _explain(error, where, _imports_of(file)) from None


@contextlib.contextmanager
def in_binding(binding: str, imports: list[str]) -> Iterator[None]:
    """Turns an exception of gin at a binding of the command line into a UserError that begins with its flag."""
    try:
        yield
    except (NameError, AttributeError, ValueError) as error:
        if not _raised_by_gin(error):
            raise
        key, _, value = (part.strip() for part in binding.partition("="))
        raise _explain(error, f"--gin.{key}={value}: ", _symbols("\n".join(imports))) from None


def _explain(error: Exception, where: str, symbols: dict[str, Any]) -> UserError:
    """An error for a name that gin cannot resolve, with the most similar valid name."""
    message = _first_line(str(error))
    if isinstance(error, ImportError):
        remedy = "install it, or run where Python finds it (the current folder, PYTHONPATH)"
        return UserError(f"{where}{message}: {remedy}")
    if match := re.match(r"'(.*)' was not provided by an import statement", message):
        hint = nearest(match[1], symbols) or f"; imported are {', '.join(sorted(symbols)) or 'no modules'}"
        return UserError(f"{where}no gin file imports {match[1]!r}{hint}")
    if match := re.match(r"Couldn't resolve selector (.*?); .* has no attribute (.*)\.", message):
        parent = _resolve(match[1].rsplit("." + match[2], 1)[0], symbols)
        names = [name for name in dir(parent) if not name.startswith("_")]
        return UserError(f"{where}{match[1]!r} does not exist{nearest(match[2], names)}")
    if match := re.match(r"Configurable '(.*)' doesn't have a parameter named '(.*)'", message):
        names = _parameters(_resolve(match[1], symbols))
        hint = nearest(match[2], names) or (f"; it has {', '.join(names)}" if names else "")
        return UserError(f"{where}{match[1]} has no parameter {match[2]!r}{hint}")
    return UserError(where + message)


def display_path(path: str) -> str:
    """A path for messages: relative where it lies in the current folder."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _innermost(error: Exception) -> tuple[str | None, int, str]:
    """File, line and text of the wrong statement, which gin names first; the including files follow in its message."""
    place = _PLACE.search(str(error))
    return (place["file"], int(place["line"]), place["text"]) if place else (None, 0, "")


def _raised_by_gin(error: Exception) -> bool:
    """Whether gin itself raised the exception. If not, a module that a gin file imports has a bug and needs its traceback."""
    return _is_of_gin(traceback.extract_tb(error.__traceback__)[-1])


def _is_of_gin(frame: traceback.FrameSummary) -> bool:
    return os.path.dirname(frame.filename) == os.path.dirname(config_parser.__file__)


def _first_line(message: str) -> str:
    return " ".join(message.split("\n  In ")[0].split())


def _imports_of(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        return _symbols(file.read())


def _symbols(text: str) -> dict[str, Any]:
    """The modules that a gin text imports, by the names that it gives them."""
    symbols = {}
    with contextlib.suppress(SyntaxError, tokenize.TokenError):
        for statement in config_parser.ConfigParser(text, _Anything()):
            if isinstance(statement, config_parser.ImportStatement) and "__gin__" not in statement.module:
                with contextlib.suppress(ImportError):
                    module = importlib.import_module(statement.module)
                    is_plain_import = not statement.is_from and not statement.alias
                    name = statement.bound_name()
                    symbols[name] = importlib.import_module(name) if is_plain_import else module
    return symbols


def _resolve(selector: str, symbols: dict[str, Any]) -> Any:
    first, *rest = selector.split(".")
    value = symbols.get(first)
    for name in rest:
        value = getattr(value, name, None)
    return value


def _parameters(function: Any) -> list[str]:
    try:
        return [name for name in inspect.signature(function).parameters if name != "self"]
    except (TypeError, ValueError):
        return []
