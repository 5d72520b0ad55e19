"""`xsum`: a BBC article in one sentence (Narayan et al., arXiv 1808.08745), from TFDS `xsum:1.1.0`.

It has about 204,000 articles for training, and 11,300 each for validation and for test. TFDS prepares it from the authors'
`xsum-extracts-from-downloads.tar.gz`, which has to be downloaded by hand.

The prompt is T5's for summaries, `summarize: ` and the article; the paper does not state its own. A chat model gets the same text
as the message of a user. The metrics are ROUGE-1, ROUGE-2 and ROUGE-Lsum of `evaluation.rouge`, 0 to 100.

The paper trains on subsets of 1,000, 3,000 and 10,000 articles: `TRAIN_NUM_EXAMPLES`, which `TRAIN_EXAMPLES_SEED` fixes.
"""

import functools
from typing import Any

from lmirl_jax import evaluation
from lmirl_jax.data.prompted_references import add_task, prompt_and_references
from lmirl_jax.data.seqio_import import register_with_seqio

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {"xsum": (("train", "validation", "test"), "TFDS xsum:1.1.0", "a BBC article in one sentence")}
PREFIX = "summarize: "


def _source() -> Any:
    import seqio

    return seqio.TfdsDataSource("xsum:1.1.0", splits=("train", "validation", "test"))


register_with_seqio(
    lambda: add_task(
        "xsum",
        _source,
        functools.partial(prompt_and_references, prefix=PREFIX, source="document", target="summary"),
        [evaluation.rouge],
    )
)
