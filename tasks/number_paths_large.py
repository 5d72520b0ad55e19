"""`number_paths_large`: the problems of `number_paths` with one larger number each, for fine-tuning on few demonstrations.

    inputs    3+11+5+9
    targets   3+5=8 9+11=20 8+20=28

Three numbers are from 1 to 9, and one is of LARGER, which no prompt of `number_paths` has: a model trained there knows the
form of an answer and the sums of small numbers. Every training prompt has one answer, drawn evenly from all right ones, so
that TRAIN_NUM_EXAMPLES counts prompts. Splits are disjoint by the numbers themselves: no two of them have the same four
numbers, in whatever order.

Everything is generated from SEED. `TASK_FEATURE_LENGTHS = {'inputs': 9, 'targets': 24}` holds every text with its EOS.
Checker and metrics are those of `number_paths`.
"""

import itertools
import random
from typing import Any

from lmirl_jax.data.seqio_import import register_with_seqio
from lmirl_jax.tasks import number_paths

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {
    "number_paths_large": (("train", "validation", "test"), "generated", "the same with one larger number")
}

LARGER = range(10, 13)
HELD_OUT = 150  # prompts in validation, and as many in test
SEED = 0


def prompts(split: str) -> list[tuple[int, ...]]:
    """The numbers of the prompts of a split: in training in every order, else in one."""
    small = itertools.combinations_with_replacement(
        range(1, number_paths.LARGEST + 1), number_paths.NUMBERS - 1
    )
    every = [(*numbers, larger) for numbers in small for larger in LARGER]
    random.Random(f"{SEED} split").shuffle(every)
    bounds = {"validation": (0, HELD_OUT), "test": (HELD_OUT, 2 * HELD_OUT), "train": (2 * HELD_OUT, None)}
    chosen = every[slice(*bounds[split])]
    generator = random.Random(f"{SEED} {split} order")
    if split != "train":
        return [tuple(generator.sample(numbers, len(numbers))) for numbers in chosen]
    orders = [order for numbers in chosen for order in sorted(set(itertools.permutations(numbers)))]
    generator.shuffle(orders)
    return orders


def examples(split: str) -> list[tuple[str, str]]:
    """Pairs of a prompt and an answer."""
    generator = random.Random(f"{SEED} {split}")
    return [
        ("+".join(map(str, numbers)), generator.choice(number_paths.derivations(tuple(sorted(numbers)))))
        for numbers in prompts(split)
    ]


def dataset(split: str, shuffle_files: bool = False) -> Any:
    """The source, in SeqIO's form: a `tf.data.Dataset`."""
    return number_paths.as_dataset(examples(split))


register_with_seqio(lambda: number_paths.register("number_paths_large", dataset))
