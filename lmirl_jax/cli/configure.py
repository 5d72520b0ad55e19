"""From flags to a configured process: what train, eval and infer begin with."""

import importlib
import logging
import threading
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from etils import epath

from lmirl_jax import configuration, configuration_records
from lmirl_jax.arguments import Path
from lmirl_jax.cli.flags import Flags, UsageError
from lmirl_jax.cli.processes import initialize_distributed

_log = logging.getLogger(__name__)

# What is read from where the command was typed: a run's config.gin has it from the root, for later commands elsewhere.
PATHS = (
    "DATA",
    "VALIDATION_DATA",
    "VOCABULARY_PATH",
    "INITIAL_CHECKPOINT_PATH",
    "REWARD_CHECKPOINT_PATH",
    "REFERENCE_PATH",
)


def configure(flags: Flags) -> None:
    """Joins the other processes, reads the gin files and points the data room at its folders.

    A run that starts from a checkpoint has the task, the vocabulary, the lengths, the batch and the model of that one's run,
    where neither a flag nor a gin file of the user's own sets them.
    """
    _start(flags, "gin/runs/finetune.gin")
    given = flags.gin_file, flags.gin_bindings, flags.gin_search_paths
    configuration.load(*given, complete=False)
    inherited = _inherited(flags)
    configuration.load(*given, inherited=inherited)
    configuration.make_absolute(PATHS)
    set_data_folders(flags)


def _inherited(flags: Flags) -> str:
    """What the run takes from the record of the one that it starts from, as a gin text; says what that is."""
    path = configuration.macro("INITIAL_CHECKPOINT_PATH", None, hint=Path | None)
    if path is None:
        return ""
    from lmirl_jax import files
    from lmirl_jax.training import checkpoints
    from lmirl_jax.training.checkpoint_folders import has_checkpoints

    # A run that goes on keeps its own record, should the one that it started from be gone.
    model_dir = configuration.macro("MODEL_DIR", None, hint=Path | None)
    if has_checkpoints(model_dir):
        config = files.absolute(model_dir) / "config.gin"
    else:
        checkpoint = checkpoints.find_checkpoint(path)
        config = epath.Path(configuration_records.config_of(checkpoint))
    if not config.is_file():
        _log.warning("no %s: task, vocabulary, lengths and model are those of the gin files", config)
        return ""
    record = configuration_records.read(config.read_text(encoding="utf-8"))
    explicit = configuration.explicit_keys(flags.gin_file, flags.gin_bindings, flags.gin_search_paths)
    keys = configuration_records.inherited_keys(record, explicit)
    values = {key: record.values[key] for key in keys if key in record.values}
    # A macro's own value is either in this list too or not taken over.
    shown = ", ".join(f"{key}={value}" for key, value in values.items() if not value.startswith("%"))
    _log.info("from %s, as nothing else is set: %s", config, shown or "nothing")
    return record.text(keys)


def configure_from_run(flags: Flags, run_file: str, own: Sequence[str] = ()) -> epath.Path:
    """The same for a command over a checkpoint: the run's own config.gin comes first, the given files over it.

    Args:
        flags: of the command line.
        run_file: a gin file to name to who gave none.
        own: as `add_run` takes it.

    Returns:
        The checkpoint's folder, found from CHECKPOINT_PATH.
    """
    configure_without_run(flags, run_file, "CHECKPOINT_PATH")
    return add_run(flags, configuration.macro("CHECKPOINT_PATH", hint=Path), own)


def configure_without_run(flags: Flags, run_file: str, *required: str) -> None:
    """Reads the given files alone, in which these macros must be set: what `add_run` puts a run's own below."""
    _start(flags, run_file)
    _load_part(flags, known_only=False)  # A binding may be of a macro of the run.
    configuration.require(*required)


def add_run(
    flags: Flags, path: str, own: Sequence[str] = (), macros: Mapping[str, Any] = MappingProxyType({})
) -> epath.Path:
    """Replaces the configuration by a run's config.gin with the given files over it.

    Args:
        flags: of the command line.
        path: of the run or its checkpoint.
        own: macros that the command gives another meaning: the run keeps its values of them.
        macros: values that come over all others.

    Returns:
        The checkpoint's folder: the path itself, or the newest in it.

    Raises:
        UserError: among others, the task has another vocabulary than the checkpoint was trained with.
    """
    from lmirl_jax import runs
    from lmirl_jax.training import checkpoints

    checkpoint = checkpoints.find_checkpoint(path)
    config = runs.config_file(checkpoint)
    configuration.load([str(config)])
    kept = {name: configuration.macro(name, None) for name in own}
    configuration.load([str(config), *flags.gin_file], flags.gin_bindings, flags.gin_search_paths)
    configuration.set_macros({**kept, **macros})
    set_data_folders(flags)
    task = configuration.macro("TASK", None)
    if task is not None:
        runs.check_vocabularies(checkpoint, task, "leave VOCABULARY_PATH as its run has it")
    return checkpoint


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
    _log_to_stderr()
    initialize_distributed(flags)
    # Before the gin files import modules of the user's: these load SeqIO and TensorFlow as the data room says.
    importlib.import_module("lmirl_jax.data")


def set_data_folders(flags: Flags) -> None:
    from lmirl_jax import data

    if flags.tfds_data_dir is not None:
        data.set_tfds_data_dir(flags.tfds_data_dir)
    if flags.seqio_additional_cache_dirs:
        data.add_cache_dirs(flags.seqio_additional_cache_dirs)


def _log_to_stderr() -> None:
    """Our own warnings, a line each; libraries' below errors stay out of the way."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    # Orbax tells of its own steps, and of a failed write once a thread: the command tells of it, in one line.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    threading.excepthook = _quiet_about_full_disks
    logger = logging.getLogger("lmirl_jax")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)


def _quiet_about_full_disks(failure: threading.ExceptHookArgs) -> None:
    if "No space left on device" not in str(failure.exc_value):
        threading.__excepthook__(failure)
