"""Finds, reads, checks and prints gin. Only this file, its neighbours configuration_* and cli/ import gin.

Library code has no gin decorators. A gin file opens with `from __gin__ import dynamic_registration`, then imports and binds what
it configures, so that calls from Python are not affected. A mistake of a user is reported in one line with a remedy.
"""

import contextlib
import copy
import dataclasses
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


@dataclasses.dataclass(frozen=True)
class GinText:
    """The text of a gin file that lies on no disk.

    Args:
        name: what errors call it.
        text: its content.
    """

    name: str
    text: str


def find_gin_root() -> pathlib.Path:
    """The folder that holds the bundled `gin/`: the package in a wheel, its parent in a checkout. Never imported."""
    package = pathlib.Path(__file__).resolve().parent
    for folder in (package, package.parent):
        if (folder / "gin").is_dir():
            return folder
    raise UserError(f"no bundled gin files beside {package}: install lmirl_jax again")


def bundled_files() -> list[str]:
    """The names of the bundled gin files, in the form of `--gin_file` and `include`."""
    root = find_gin_root()
    return sorted(path.relative_to(root).as_posix() for path in (root / "gin").glob("**/*.gin"))


def load(
    gin_files: Sequence[str | os.PathLike | GinText] = (),
    bindings: Sequence[str] = (),
    search_paths: Sequence[str | os.PathLike] = (),
    *,
    inherited: str = "",
    complete: bool = True,
    known_only: bool = True,
) -> None:
    """Replaces the configuration by that of the files, in their order, and of the bindings after them.

    Args:
        gin_files: paths, searched in the current folder, then in `search_paths`, then among the bundled files; or texts.
        bindings: statements `NAME = VALUE` in gin's syntax; they can use the imports of all files.
        search_paths: more folders to search for files and includes.
        inherited: a gin text that overrides the files and that the bindings override.
        complete: False for a part of a configuration, in which macros may stay unset.
        known_only: False where bindings may name macros and functions that only the rest of the configuration has; bindings
            that refer to such a function are then ignored.

    Raises:
        UserError: the files or bindings have a mistake; one line says which.
    """
    paths = _search_path(search_paths)
    if "" not in sys.path and os.getcwd() not in sys.path:
        # A user's task module may lie in the current folder. It comes last, so that it shadows nothing.
        sys.path.append(os.getcwd())
    _check_order(
        [_find(os.path.expanduser(given), paths) for given in gin_files if not isinstance(given, GinText)]
    )
    gin.clear_config()
    with _looking_in(paths):
        for given in gin_files:
            _parse(given, paths)
        with errors.in_file("the configuration of the run that this one starts from", bundled_files()):
            gin.parse_config(inherited)
        before = values.bindings()
        known_macros = _macros() | _used_macros()
        macros_of_bindings = [_bind(binding, known_only) for binding in bindings]
        if known_only:
            _check_new_macros(macros_of_bindings, known_macros)
    if complete:
        _check_unset(_unset())
    values.check(before, complete)
    if complete:
        gin.finalize()


def _check_order(paths: Sequence[str]) -> None:
    """Raises a UserError where a run's file follows a part that it would replace, such as a model's or an adapter's file."""
    root, part = find_gin_root() / "gin", None
    for path in map(pathlib.Path, paths):
        if not path.resolve().is_relative_to(root):
            continue
        if not path.resolve().is_relative_to(root / "runs"):
            part = path
        elif part is not None:
            raise UserError(
                f"--gin_file={path} comes after --gin_file={part}, whose settings it would replace by its own: give the "
                "run's file first"
            )


def _parse(given: str | os.PathLike | GinText, paths: list[str]) -> None:
    if isinstance(given, GinText):
        with errors.in_file(given.name, bundled_files()):
            gin.parse_config(given.text)
        return
    path = _find(os.path.expanduser(given), paths)
    with errors.in_file(path, bundled_files()):
        gin.parse_config_file(path)


def explicit_keys(
    gin_files: Sequence[str], bindings: Sequence[str], search_paths: Sequence[str | os.PathLike] = ()
) -> set[str]:
    """The settings that a user sets explicitly: in bindings, and in files other than gin/runs/, whose values are defaults.

    One of gin/runs/ that sets INITIAL_CHECKPOINT_PATH sets the rest explicitly, too.
    """
    paths, defaults = _search_path(search_paths), find_gin_root() / "gin" / "runs"

    def is_default(path: str) -> bool:
        return pathlib.Path(path).resolve().is_relative_to(defaults)

    return records.explicit_keys(
        gin_files, bindings, lambda name: _find(os.path.expanduser(name), paths), is_default
    )


def require(*names: str) -> None:
    """Raises a UserError that names all of these macros that have no value, with an example of each."""
    unset = _unset()
    _check_unset([name for name in names if name in unset or name not in _macros()])


def macro(name: str, default: Any = _MISSING, hint: Any = Any) -> Any:
    """The value of a macro with its references resolved; `default` where it has none.

    Raises:
        UserError: there is neither a value nor a default, or the value does not fit `hint`, an annotation.
    """
    if name not in _macros() or name in _unset():
        if default is _MISSING:
            require(name)
        return default
    with values.explain_errors():
        # A copy resolves gin's references.
        value = copy.deepcopy(gin.query_parameter(f"{name}/gin.macro.value"))
    values.check_macro(name, value, hint)
    return value


def make_absolute(names: Iterable[str]) -> None:
    """Makes the relative paths in these macros absolute, so that they are valid in any folder: a path, or a mapping by them."""

    def absolute(path: Any) -> Any:
        return str(files.absolute_path(path)) if isinstance(path, str) and "://" not in path else path

    for name in names:
        value = macro(name, None)
        if isinstance(value, Mapping):
            set_macros({name: {absolute(path): each for path, each in value.items()}})
        elif isinstance(value, str):
            set_macros({name: absolute(value)})


def set_macros(replacements: Mapping[str, Any]) -> None:
    """Gives macros other values."""
    with gin.unlock_config():
        for name, value in replacements.items():
            gin.bind_parameter(f"{name}/gin.macro.value", value)


def with_configuration(function: Callable[..., Any]) -> Callable[..., Any]:
    """The version of a library function or class that takes its arguments from the configuration.

    Returns the function itself where no gin file names it, because then nothing is bound to it.
    """
    try:
        configurable = gin.get_configurable(function)
    except (KeyError, ValueError):
        return function

    @functools.wraps(configurable)
    def call(*args: Any, **kwargs: Any) -> Any:
        with values.explain_errors():
            return configurable(*args, **kwargs)

    return call


def config_text() -> str:
    """The whole configuration as the text of one gin file that `load` can read: imports, macros and parameters."""
    return gin.config_str(max_line_length=110)


@contextlib.contextmanager
def restore_afterwards() -> Iterator[None]:
    """Saves the configuration, so that another one can be loaded and used within the block, and restores it afterwards."""
    state = gin.config._CONFIG, gin.config._SINGLETONS, gin.config._OPERATIVE_CONFIG, gin.config._IMPORTS
    before, was_locked = [copy.copy(part) for part in state], gin.config_is_locked()
    try:
        with gin.config_scope(None):
            yield
    finally:
        for part, part_before in zip(state, before, strict=True):
            part.clear()
            part.update(part_before)
        gin.config._set_config_is_locked(was_locked)


@contextlib.contextmanager
def _looking_in(paths: list[str]) -> Iterator[None]:
    """Within the block gin searches only these folders.

    Gin's public function can add folders but not remove any. Gin's reader of package resources is disabled, because it logs an
    error for each file that it does not find and fails on folders without `__init__.py`.
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
    """Opens a gin file as UTF-8, whatever the locale of the machine; it may begin with a byte order mark."""
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
    """Parses one binding of the command line; returns the macro that it sets, or None for a parameter."""
    key = errors.check_binding(binding)
    imports = _imports()
    with errors.in_binding(binding, imports):
        try:
            gin.parse_config("\n".join([*imports, binding]))
        except NameError:
            # No file imports this name. T5X's users also write the end of a registered name.
            if known_only and not _parse_registered(binding):
                raise
    return None if "." in key else key


def _imports() -> list[str]:
    """The import lines of all files so far, without duplicates; `from __gin__ ...` comes first, as gin requires."""
    lines = {statement.format() for statement in gin.config._IMPORTS}
    return sorted(lines, key=lambda line: ("__gin__" not in line, line))


def _parse_registered(binding: str) -> bool:
    try:
        gin.parse_config(binding)
    except ValueError:
        return False
    return True


def _macros() -> set[str]:
    """The macros that have a value; REQUIRED counts as one."""
    return {scope for scope, selector in gin.config._CONFIG if selector == "gin.macro"}


def _used_macros() -> set[str]:
    references = gin.config.iterate_references(gin.config._CONFIG, to=gin.get_configurable(gin.config.macro))
    return {"/".join(reference.scopes) for reference in references}


def _unset() -> list[str]:
    """Macros and parameters that are REQUIRED, or used without a value, in the order of the files."""
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
    """Raises a UserError for a macro that no file sets or uses: it has no effect, and gin accepts it silently."""
    for name in names:
        if name is not None and name not in known | _used_macros():
            raise errors.unknown_macro(name, known)
