"""`lmirl train`: trains as the gin files say."""

from etils import epath

from lmirl_jax import configuration, files
from lmirl_jax.cli.configure import configure
from lmirl_jax.cli.flags import Flags


def main(flags: Flags) -> int:
    configure(flags)
    from lmirl_jax import training

    configuration.configured(training.train)(on_start=write_configuration)
    return 0


def write_configuration(model_dir: epath.Path) -> None:
    """Writes the resolved configuration beside the run, as a gin file that `load` reads again."""
    with files.writing(model_dir / "config.gin") as file:
        file.write(configuration.resolved())
