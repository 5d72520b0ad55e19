"""`lmirl prepare`: makes the tokenised examples of a run before it starts, on this machine or by Apache Beam."""

import shlex

from lmirl_jax import configuration
from lmirl_jax.cli.configure import configure
from lmirl_jax.cli.data_sets import TaskOrMixture
from lmirl_jax.cli.flags import Flags
from lmirl_jax.data.beam_preparation import beam_shards
from lmirl_jax.data.preparation import make_shards
from lmirl_jax.data.records import tokenized_records

SPLITS = ("train", "validation")


def main(flags: Flags) -> int:
    """Prepares the splits that training reads, and prints where each lies."""
    configure(flags)
    make = make_shards if flags.beam is None else beam_shards(shlex.split(flags.beam))
    for part in configuration.macro("TASK", hint=TaskOrMixture).tasks:
        for split in SPLITS:
            if split in part.splits:
                records = tokenized_records(part, split, make_shards=make)
                print(f"{part.name}, {split}: {len(records)} examples in {records.folder}")
    return 0
