"""`lmirl train`: trains as the gin files say."""

import logging

from etils import epath

from lmirl_jax import configuration, configuration_records, files
from lmirl_jax.cli.configure import configure
from lmirl_jax.cli.flags import Flags

_log = logging.getLogger(__name__)


def main(flags: Flags) -> int:
    configure(flags)
    from lmirl_jax import training

    configuration.configured(training.train)(on_start=write_configuration)
    return 0


def write_configuration(model_dir: epath.Path) -> None:
    """Writes the resolved configuration beside the run, as a gin file that `load` reads again.

    Where one is there, as when a run is resumed, each setting that is now another is said first, with its effect.
    """
    written = model_dir / "config.gin"
    if written.is_file() and any((model_dir / "checkpoints").iterdir()):
        before = configuration_records.read(written.read_text(encoding="utf-8"))
        now = configuration_records.read(configuration.resolved())
        for line in configuration_records.changes(before.values, now.values):
            _log.warning("resumed with another setting: %s", line)
    with files.writing(model_dir / "config.gin") as file:
        file.write(configuration.resolved())
