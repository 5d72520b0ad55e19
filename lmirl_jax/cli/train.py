"""`lmirl train`: trains as the gin files say."""

import logging

from etils import epath

from lmirl_jax import checkpoints, configuration, configuration_records, files, run_files, runs, training
from lmirl_jax.cli.configure import configure
from lmirl_jax.cli.flags import Flags
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)


def main(flags: Flags) -> int:
    configure(flags)
    _check_inputs()
    _check_start()
    configuration.with_configuration(training.train)(on_start=write_configuration)
    return 0


def _check_inputs() -> None:
    """Raises a UserError where the run would write over a file that it reads, or reads none that COLUMNS could be for."""
    if configuration.macro("COLUMNS", None) is not None and configuration.macro("DATA", None) is None:
        raise UserError("COLUMNS goes with DATA; a named task has no columns: leave it out")
    model_dir = configuration.macro("MODEL_DIR", None)
    if not isinstance(model_dir, str) or not model_dir:
        return  # The trainer says so.
    folder = files.absolute_path(model_dir)
    inputs = {
        name: configuration.macro(name, None) for name in ("DATA", "VALIDATION_DATA", "VOCABULARY_PATH")
    }
    outputs = [folder / name for name in ("config.gin", "metrics.jsonl", "model-info.txt")]
    outputs += (folder / "inference_eval").glob("*") if (folder / "inference_eval").is_dir() else []
    files.check_no_input(outputs, inputs, "MODEL_DIR")


def _check_start() -> None:
    """Raises a UserError where the checkpoint to start from was trained with another vocabulary than the data have."""
    path = configuration.macro("INITIAL_CHECKPOINT_PATH", None)
    model_dir = configuration.macro("MODEL_DIR", None)
    if path is None or checkpoints.has_checkpoints(model_dir):
        return
    remedy = "set VOCABULARY_PATH as its run has it, or start from a run with this vocabulary"
    runs.check_vocabularies(checkpoints.find_checkpoint(path), configuration.macro("TASK"), remedy)


def write_configuration(model_dir: epath.Path) -> None:
    """Writes the resolved configuration beside the run, as a gin file that `load` reads again.

    Where one is there already, as when a run is resumed, a warning first tells each setting that has changed, and its effect.
    """
    record = model_dir / "config.gin"
    if record.is_file() and any((model_dir / "checkpoints").iterdir()):
        before = configuration_records.read(record.read_text(encoding="utf-8"))
        now = configuration_records.read(configuration.config_text())
        for line in configuration_records.changes(before.values, now.values):
            _log.warning("resumed with another setting: %s", line)
    _keep_pretrained_files(model_dir)
    with files.open_atomic(record) as file:
        file.write(configuration.config_text())


def _keep_pretrained_files(model_dir: epath.Path) -> None:
    """Copies config.json and tokenizer of the checkpoint from which training starts, so that the run outlives its folder."""
    path = configuration.macro("INITIAL_CHECKPOINT_PATH", None)
    # The checkpoint that a resumed run started from may be deleted.
    if path is None or checkpoints.has_checkpoints(str(model_dir)):
        return
    checkpoint = checkpoints.find_checkpoint(path)
    source = run_files.pretrained_files(checkpoint)
    copied = run_files.copy_pretrained_files(checkpoint, model_dir)
    vocabulary = configuration.macro("VOCABULARY_PATH", None)
    if copied is not None and vocabulary is not None and files.absolute_path(vocabulary) == source:
        configuration.set_macros({"VOCABULARY_PATH": str(copied)})
