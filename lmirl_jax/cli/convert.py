"""`lmirl convert`: a checkpoint in another format."""

import dataclasses

from jax.sharding import Mesh

from lmirl_jax import configuration, exporting, runs
from lmirl_jax.arguments import Path, check_arguments
from lmirl_jax.cli.configure import configure_alone
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import show

RUN_FILE = "gin/runs/convert.gin"


def main(flags: Flags) -> int:
    configure_alone(dataclasses.replace(flags, gin_file=[RUN_FILE, *flags.gin_file]), RUN_FILE)
    show(configuration.with_configuration(convert)())
    return 0


@check_arguments
def convert(
    *,
    checkpoint_path: Path,
    output_path: Path,
    form: exporting.Format,
    dtype: exporting.Dtype | None = None,
    vocabulary_path: Path | None = None,
    mesh: Mesh | None = None,
) -> str:
    """Writes a checkpoint in another format.

    Args:
        checkpoint_path: the checkpoint, as `checkpoints.find_checkpoint` finds it.
        output_path: the folder to make.
        form: see `exporting.export`.
        dtype: the type of the weights; None for that of the checkpoint.
        vocabulary_path: the vocabulary of a checkpoint that comes without one; see `data.vocabulary`.
        mesh: the devices; None for all of them, with a copy of the parameters on each.

    Returns:
        The path of the folder.
    """
    policy = runs.load(checkpoint_path, mesh, vocabulary_path=vocabulary_path)
    return str(exporting.export(policy, output_path, form, dtype))
