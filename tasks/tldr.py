"""`tldr`: a Reddit post in its author's own TL;DR (Völske et al., aclanthology.org/W17-4508), from TFDS `reddit:1.0.0`.

TFDS has one split of 3.8 million posts, in an order that was shuffled when it was prepared. Here `validation` is its first 2,000
posts, `test` the next 2,000, and `train` the rest: these splits are our choice, because neither the paper nor TFDS states any. An
author may have posts in two of them. Posts or summaries of white space alone are left out.

The prompt is T5's for summaries, `summarize: ` and the post; the paper does not state its own. A chat model gets the same text as
the message of a user. The metrics are ROUGE-1, ROUGE-2 and ROUGE-Lsum of `evaluation.rouge`, 0 to 100.
"""

import functools
from typing import Any

from lmirl_jax import evaluation
from lmirl_jax.data.prompted_references import add_task, prompt_and_references
from lmirl_jax.data.seqio_import import register_with_seqio

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {
    "tldr": (("train", "validation", "test"), "TFDS reddit:1.0.0", "a Reddit post in its author's TL;DR")
}
PREFIX = "summarize: "
HELD_OUT = 2000  # posts in validation, and as many in test


def _source() -> Any:
    import seqio

    splits = {
        "train": f"train[{2 * HELD_OUT}:]",
        "validation": f"train[:{HELD_OUT}]",
        "test": f"train[{HELD_OUT}:{2 * HELD_OUT}]",
    }
    return seqio.TfdsDataSource("reddit:1.0.0", splits=splits)


register_with_seqio(
    lambda: add_task(
        "tldr",
        _source,
        functools.partial(prompt_and_references, prefix=PREFIX, source="content", target="summary"),
        [evaluation.rouge],
    )
)
