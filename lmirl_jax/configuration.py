"""Gin, found, read, checked and printed: the only place, with cli/, that knows of gin.

Library code carries no decorator. A gin file opens with `from __gin__ import dynamic_registration`, imports what it
configures and binds it: plain calls from Python stay plain. What a user can get wrong here is one line, with a remedy.
"""

import contextlib
import copy
import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import gin

from lmirl_jax import configuration_errors as errors
from lmirl_jax import configuration_records as records
from lmirl_jax import configuration_values as values
from lmirl_jax import files
from lmirl_jax.types import UserError

_MISSING = object()


def find_gin_root() -> pathlib.Path:
    """The folder that holds the bundled `gin/`: the package in a wheel, its parent in a checkout. Never imported."""
    package = pathlib.Path(__file__).resolve().parent
    for folder in (package, package.parent):
        if (folder / "gin").is_dir():
            return folder
    raise UserError(f"no bundled gin files beside {package}: install lmirl_jax again")


def bundled_files() -> list[str]:
    """The bundled gin files, as they are written in `--gin_file` and `include`."""
    root = find_gin_root()
    return sorted(path.relative_to(root).as_posix() for path in (root / "gin").glob("**/*.gin"))


def load(
    gin_files: Sequence[str | os.PathLike] = (),
    bindings: Sequence[str] = (),
    search_paths: Sequence[str | os.PathLike] = (),
    *,
    inherited: str = "",
    complete: bool = True,
    known_only: bool = True,
) -> None:
    """Replaces the configuration by that of the files, in order, and then of the bindings.

    Args:
        gin_files: paths, looked for in the current folder, then in `search_paths`, then among the bundled files.
        bindings: statements `NAME = VALUE` in gin's syntax, which see the imports of all files.
        search_paths: more folders for files and includes.
        inherited: a gin text that is put over the files and below the bindings.
        complete: False where macros may stay unset, as in a part of a configuration.
        known_only: False where bindings may name macros and functions that only the rest of the configuration has; what
            refers to such a function is then left out.

    Raises:
        UserError: one line for whatever the files or bindings get wrong.
    """
    paths = _search_path(search_paths)
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # A user's own task module lies there; last, so that it shadows nothing.
    gin.clear_config()
    with _looking_in(paths):
        for name in gin_files:
            path = _find(os.path.expanduser(name), paths)
            with errors.in_file(path, bundled_files()):
                gin.parse_config_file(path)
        with errors.in_file("the configuration of the run that this one starts from", bundled_files()):
            gin.parse_config(inherited)
        before = values.bindings()
        known = _macros() | _used_macros()
        bound = [_bind(binding, known_only) for binding in bindings]
        if known_only:
            _check_new_macros(bound, known)
    if complete:
        _check_unset(_unset())
    values.check(before, complete)
    if complete:
        gin.finalize()


def explicit_keys(
    gin_files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str | os.PathLike] = ()
) -> set[str]:
    """What is set on purpose: by bindings, and in files that are not the bundled runs', whose values are defaults."""
    paths, defaults = _search_path(search_paths), find_gin_root() / "gin" / "runs"

    def is_default(path: str) -> bool:
        return pathlib.Path(path).resolve().is_relative_to(defaults)

    return records.explicit_keys(
        gin_files, bindings, lambda name: _find(os.path.expanduser(name), paths), is_default
    )


def require(*names: str) -> None:
    """Raises the one line that names every one of these macros that has no value, with an example of each."""
    unset = _unset()
    _check_unset([name for name in names if name in unset or name not in _macros()])


def macro(name: str, default: Any = _MISSING, hint: Any = Any) -> Any:
    """The value of a macro, references resolved; `default` where it has none.

    Raises:
        UserError: no value and no default, or a value that is not what `hint`, an annotation, says.
    """
    if name not in _macros() or name in _unset():
        if default is _MISSING:
            require(name)
        return default
    with values.explained():
        # A copy resolves gin's references.
        value = copy.deepcopy(gin.query_parameter(f"{name}/gin.macro.value"))
    values.check_macro(name, value, hint)
    return value


def make_absolute(names: Iterable[str]) -> None:
    """Binds macros that hold a relative path to the same path from the root, so that it means the same elsewhere."""
    for name in names:
        value = macro(name, None)
        if isinstance(value, str) and "://" not in value:
            set_macros({name: str(files.absolute(value))})


def set_macros(replacements: Mapping[str, Any]) -> None:
    """Gives macros other values."""
    with gin.unlock_config():
        for name, value in replacements.items():
            gin.bind_parameter(f"{name}/gin.macro.value", value)


def configured(function: Callable[..., Any]) -> Callable[..., Any]:
    """The version of a library function or class that takes its arguments from the configuration.

    One that no gin file names has nothing bound, and is returned as it is.
    """
    try:
        configurable = gin.get_configurable(function)
    except (KeyError, ValueError):
        return function

    @functools.wraps(configurable)
    def call(*args: Any, **kwargs: Any) -> Any:
        with values.explained():
            return configurable(*args, **kwargs)

    return call


def resolved() -> str:
    """The whole configuration as the text of one gin file, which `load` reads again: imports, macros, parameters."""
    return gin.config_str(max_line_length=110)


@contextlib.contextmanager
def put_aside() -> Iterator[None]:
    """Within it another configuration may be loaded and used, even while this one is being resolved; then this one is back."""
    kept = gin.config._CONFIG, gin.config._SINGLETONS, gin.config._OPERATIVE_CONFIG, gin.config._IMPORTS
    before, locked = [copy.copy(part) for part in kept], gin.config_is_locked()
    try:
        with gin.config_scope(None):
            yield
    finally:
        for part, own in zip(kept, before, strict=True):
            part.clear()
            part.update(own)
        gin.config._set_config_is_locked(locked)


@contextlib.contextmanager
def _looking_in(paths: list[str]) -> Iterator[None]:
    """Gin looks for files in these folders only.

    Its public call only ever adds folders; and its reader of package resources, which logs an error for each file it
    does not find and fails on folders without `__init__.py`, is put aside.
    """
    prefixes: list[str] = gin.config._LOCATION_PREFIXES
    readers: list[tuple[Any, Any]] = gin.config._FILE_READERS
    before = prefixes[:], readers[:]
    prefixes[:], readers[:] = paths, [(_open, os.path.isfile)]
    try:
        yield
    finally:
        prefixes[:], readers[:] = before


def _search_path(search_paths: Sequence[str | os.PathLike]) -> list[str]:
    return ["", *(os.path.expanduser(path) for path in search_paths), str(find_gin_root())]


def _open(path: str) -> TextIO:
    """A gin file as UTF-8, whatever the machine's locale; some editors put a byte order mark first."""
    try:
        pathlib.Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise errors.not_utf8(path, error) from None
    return open(path, encoding="utf-8-sig")


def _find(name: str, paths: Iterable[str]) -> str:
    for folder in paths:
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    raise errors.missing_file(name, bundled_files())


def _bind(binding: str, known_only: bool) -> str | None:
    """Parses one statement of the command line; returns the macro that it sets, if it sets one."""
    key = errors.check_binding(binding)
    imports = _imports()
    with errors.in_binding(binding, imports):
        try:
            gin.parse_config("\n".join([*imports, binding]))
        except NameError:
            # Not a name that a file imports; T5X's users also write the end of a registered name.
            if known_only and not _registered(binding):
                raise
    return None if "." in key else key


def _imports() -> list[str]:
    """The import lines of all files so far, each once; `from __gin__ ...` first, as gin demands."""
    lines = {statement.format() for statement in gin.config._IMPORTS}
    return sorted(lines, key=lambda line: ("__gin__" not in line, line))


def _registered(binding: str) -> bool:
    try:
        gin.parse_config(binding)
    except ValueError:
        return False
    return True


def _macros() -> set[str]:
    """The macros that have a value, be it REQUIRED."""
    return {scope for scope, selector in gin.config._CONFIG if selector == "gin.macro"}


def _used_macros() -> set[str]:
    references = gin.config.iterate_references(gin.config._CONFIG, to=gin.get_configurable(gin.config.macro))
    return {"/".join(reference.scopes) for reference in references}


def _unset() -> list[str]:
    """Macros and parameters that are REQUIRED or used without a value, in the order in which the files name them."""
    names = []
    for (scope, selector), parameters in gin.config._CONFIG.items():
        for parameter, value in parameters.items():
            if isinstance(value, gin.config.ConfigurableReference) and value.scoped_selector == (
                "gin.REQUIRED/gin.constant"
            ):
                prefix = f"{scope}/" if scope else ""
                names.append(scope if selector == "gin.macro" else f"{prefix}{selector}.{parameter}")
    return list(dict.fromkeys([*names, *sorted(_used_macros() - _macros())]))


def _check_unset(names: list[str]) -> None:
    if names:
        raise errors.unset(names)


def _check_new_macros(names: list[str | None], known: set[str]) -> None:
    """A macro that no file sets or uses would have no effect: gin takes it without a word, we do not."""
    for name in names:
        if name is not None and name not in known | _used_macros():
            raise errors.unknown_macro(name, known)
