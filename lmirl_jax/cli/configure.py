"""Configures a process from the flags of its command: every command that runs a model begins here."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from etils import epath

from lmirl_jax import checkpoints, configuration, configuration_records, data, files, run_files, runs
from lmirl_jax.arguments import Path
from lmirl_jax.cli.flags import Flags, UsageError
from lmirl_jax.cli.messages import log_to_stderr
from lmirl_jax.cli.processes import initialize_distributed
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)

# Paths that a user gives relative to the current folder. config.gin has them from the root, for commands elsewhere.
PATHS = ("DATA", "VALIDATION_DATA", "VOCABULARY_PATH")
CHECKPOINTS = ("INITIAL_CHECKPOINT_PATH", "REWARD_CHECKPOINT_PATH", "REFERENCE_PATH")


def configure(flags: Flags) -> None:
    """Joins the other processes, reads the gin files and points the data room at its folders.

    A run that starts from a checkpoint takes the task, its demonstrations, the vocabulary, the lengths, the batch and the model
    from the run of that checkpoint, where neither a flag nor a gin file of the user sets them.
    """
    _start(flags, "gin/runs/finetune.gin")
    given = flags.gin_file, flags.gin_bindings, flags.gin_search_paths
    configuration.load(*given, complete=False)
    explicit = configuration.explicit_keys(*given)
    inherited = _inherited_text(explicit)
    if "DATA" in explicit and "MIXTURE_OR_TASK_NAME" not in explicit:
        # A file of the user's replaces the task that a bundled file names as a default.
        inherited += "\nMIXTURE_OR_TASK_NAME = None"
    configuration.load(*given, inherited=inherited)
    configuration.make_absolute(PATHS)
    _pin(CHECKPOINTS)
    set_data_folders(flags)


def _pin(names: Sequence[str]) -> None:
    """Makes the paths of checkpoints in these macros valid in any folder, and names on the hub name their revision."""
    resumed = checkpoints.has_checkpoints(configuration.macro("MODEL_DIR", None))
    for name in names:
        path = configuration.macro(name, None)
        if not isinstance(path, str):
            continue
        try:
            configuration.set_macros({name: checkpoints.pinned(path)})
        except UserError:
            # A resumed run does not read the checkpoint that it started from, and the cache may hold it no longer.
            if not resumed or name != "INITIAL_CHECKPOINT_PATH":
                raise


def _inherited_text(explicit: set[str]) -> str:
    """The settings that a run inherits from the checkpoint that it starts from, as a gin text; logs them.

    Args:
        explicit: the settings that the user sets, which are not inherited.
    """
    path = configuration.macro("INITIAL_CHECKPOINT_PATH", None, hint=Path | None)
    if path is None:
        return ""
    # A resumed run reads its own config.gin, because the checkpoint that it started from may be deleted.
    model_dir = configuration.macro("MODEL_DIR", None, hint=Path | None)
    resumed = checkpoints.has_checkpoints(model_dir)
    start = str(files.absolute_path(model_dir)) if resumed else path
    find = checkpoints.resumable_checkpoint if resumed else checkpoints.find_checkpoint
    found = run_files.inherited_settings(find(start))
    if found is None:
        _log.warning(
            "no config.gin beside the checkpoints of %s: task, vocabulary, lengths and model are those of the gin files",
            start,
        )
        return ""
    where, text = found
    record = configuration_records.with_own_draw(configuration_records.read(text))
    keys = configuration_records.inherited_keys(record, explicit)
    values = {key: record.values[key] for key in keys if key in record.values}
    # References to macros are left out: the macro itself is in the list, or is not inherited. So are the network's many sizes.
    macros = {key: value for key, value in values.items() if "." not in key and not value.startswith("%")}
    listed = ", ".join(f"{key}={value}" for key, value in macros.items())
    _log.info("from %s, as nothing else is set: %s", where, listed or "nothing")
    return record.text(keys)


def configure_from_run(flags: Flags, run_file: str, from_run: Sequence[str] = ()) -> epath.Path:
    """Does the same for a command over a checkpoint: the given files override the config.gin of the checkpoint's run.

    Args:
        flags: the flags of the command line.
        run_file: a gin file that the error names where the user gave none.
        from_run: see `add_run`.

    Returns:
        The checkpoint's folder, found from CHECKPOINT_PATH.
    """
    configure_without_run(flags, run_file, "CHECKPOINT_PATH")
    return add_run(flags, configuration.macro("CHECKPOINT_PATH", hint=Path), from_run)


def configure_without_run(flags: Flags, run_file: str, *required: str) -> None:
    """Reads only the given files, which must set these macros; `add_run` later adds the config.gin of a run below them."""
    _start(flags, run_file)
    # A binding may set a macro that only the run has.
    _load_part(flags, known_only=False)
    configuration.require(*required)


def add_run(
    flags: Flags, path: str, from_run: Sequence[str] = (), macros: Mapping[str, Any] = MappingProxyType({})
) -> epath.Path:
    """Replaces the configuration by a run's config.gin, which the given files override.

    Args:
        flags: the flags of the command line.
        path: the path of the run or of its checkpoint.
        from_run: macros that keep the values of the run, because the command uses them in another meaning.
        macros: values that replace all others.

    Returns:
        The checkpoint's folder: the path itself, or the newest in it.

    Raises:
        UserError: among others, the task has another vocabulary than the checkpoint was trained with.
    """
    checkpoint = checkpoints.find_checkpoint(path)
    config = run_files.config_of(checkpoint)
    with_flags = [config, *flags.gin_file], flags.gin_bindings, flags.gin_search_paths
    values = {}
    if from_run:
        configuration.load([config], complete=False)
        values = {name: configuration.macro(name, None) for name in from_run}
    configuration.load(*with_flags)
    configuration.set_macros({**values, **macros})
    set_data_folders(flags)
    task = configuration.macro("TASK", None)
    if task is not None:
        runs.check_vocabularies(checkpoint, task, "leave VOCABULARY_PATH as its run has it")
    return checkpoint


def configure_alone(flags: Flags, run_file: str) -> None:
    """Reads the given files as a whole configuration, for a command that needs no run's."""
    _start(flags, run_file)
    configuration.load(flags.gin_file, flags.gin_bindings, flags.gin_search_paths)


def check_without_run(flags: Flags) -> None:
    """Raises a UserError for a binding that has no effect, where no run is added to the given files."""
    _load_part(flags, known_only=True)


def _load_part(flags: Flags, known_only: bool) -> None:
    configuration.load(
        flags.gin_file, flags.gin_bindings, flags.gin_search_paths, complete=False, known_only=known_only
    )


def _start(flags: Flags, run_file: str) -> None:
    if not flags.gin_file:
        raise UsageError(f"no configuration: name one, such as --gin_file={run_file}")
    log_to_stderr()
    initialize_distributed(flags)


def set_data_folders(flags: Flags) -> None:
    """Points the data room at the folders that the flags name."""
    if flags.tfds_data_dir is not None:
        data.set_tfds_data_dir(flags.tfds_data_dir)
    if flags.seqio_additional_cache_dirs:
        data.add_cache_dirs(flags.seqio_additional_cache_dirs)
