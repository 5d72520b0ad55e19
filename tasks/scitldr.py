"""`scitldr`: the abstract of a paper in one sentence (Cachola et al., arXiv 2004.15011), from the authors' JSONL files.

`train.jsonl` (1,992 papers), `dev.jsonl` (619) and `test.jsonl` (618) of https://github.com/allenai/scitldr lie in the folder
`scitldr` of `--tfds_data_dir`. Those of `SciTLDR-Data/SciTLDR-A` have abstracts; those of SciTLDR-AIC, with the introduction and
the conclusion, and of SciTLDR-FullText have the same keys and work as well. A paper has one summary in training and up to four
in the other splits: the first is the target, and metrics compare with all.

The prompt is T5's for summaries, `summarize: ` and the sentences of the abstract; the task is not the paper's, and the prompt is
our choice. A chat model gets the same text as the message of a user. The metrics are ROUGE-1, ROUGE-2 and ROUGE-Lsum of
`evaluation.rouge`, 0 to 100, each by the reference for which it is largest.
"""

import functools
from typing import Any

from lmirl_jax import evaluation
from lmirl_jax.data.prompted_references import add_task, prompt_and_references
from lmirl_jax.data.seqio_import import register_with_seqio

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {
    "scitldr": (
        ("train", "validation", "test"),
        "files scitldr/*.jsonl",
        "the abstract of a paper in one sentence",
    )
}
PREFIX = "summarize: "
FILES = {"train": ["train.jsonl"], "validation": ["dev.jsonl"], "test": ["test.jsonl"]}


def _source() -> Any:
    from lmirl_jax.data.local_files import LocalFiles, in_data_folder, read_jsonl

    read = functools.partial(read_jsonl, keys=("source", "target"))
    return LocalFiles(in_data_folder("scitldr", FILES), read, FILES)


register_with_seqio(
    lambda: add_task(
        "scitldr",
        _source,
        functools.partial(prompt_and_references, prefix=PREFIX, source="source", target="target"),
        [evaluation.rouge],
    )
)
