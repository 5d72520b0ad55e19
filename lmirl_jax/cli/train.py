"""`lmirl train`: trains as the gin files say."""

import os
import pathlib

from lmirl_jax import configuration
from lmirl_jax.cli.configure import configure
from lmirl_jax.cli.flags import Flags


def main(flags: Flags) -> int:
    configure(flags)
    from lmirl_jax import training

    configuration.configured(training.train)(on_start=write_configuration)
    return 0


def write_configuration(model_dir: pathlib.Path) -> None:
    """Writes the resolved configuration beside the run, as a gin file that `load` reads again."""
    temporary = model_dir / "config.gin.tmp"
    temporary.write_text(configuration.resolved(), encoding="utf-8")
    os.replace(temporary, model_dir / "config.gin")
