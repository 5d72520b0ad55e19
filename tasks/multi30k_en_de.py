"""`multi30k_en_de`: an image caption in English and its German translation (Elliott et al., arXiv 1605.00459), from text files.

The files of https://github.com/multi30k/dataset lie in the folder `multi30k_en_de` of `--tfds_data_dir`, compressed or not:
`train.en`, `train.de` (29,000 captions), `val.en`, `val.de` (1,014), and `test_2016_flickr.en`, `test_2016_flickr.de` (1,000)
of its `data/task1/raw`. `test_2016.1.en` and `test_2016.1.de` to `test_2016.5.de` of `data/task2/raw` are a further split,
`test_descriptions`: an English description of each image, and five German ones that were written from the image. They are no
translations, so that BLEU is low there.

T5's vocabulary has no `Ä` and no `Ö`: it cannot write 70 of the training targets. Bytes hold all.

The prompt is T5's for translations, `translate English to German: ` and the caption; the task is not one of the paper's, and
the prompt is our choice. A chat model gets the same text as the message of a user. The metrics are sacrebleu's BLEU and ChrF, 0
to 100, with their signatures (`evaluation.bleu`, `evaluation.chrf`).
"""

import functools
from typing import Any

from lmirl_jax import evaluation
from lmirl_jax.data.prompted_references import add_task, prompt_and_references
from lmirl_jax.data.seqio_import import register_with_seqio

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {
    "multi30k_en_de": (
        ("train", "validation", "test", "test_descriptions"),
        "files multi30k_en_de/*.{en,de}",
        "an English image caption in German",
    )
}
PREFIX = "translate English to German: "
FILES = {
    "train": ["train.en", "train.de"],
    "validation": ["val.en", "val.de"],
    "test": ["test_2016_flickr.en", "test_2016_flickr.de"],
    "test_descriptions": ["test_2016.1.en", *(f"test_2016.{number}.de" for number in range(1, 6))],
}


def _source() -> Any:
    from lmirl_jax.data.local_files import LocalFiles, in_data_folder, read_aligned

    read = functools.partial(read_aligned, source="en", targets="de")
    return LocalFiles(in_data_folder("multi30k_en_de", FILES), read, FILES)


register_with_seqio(
    lambda: add_task(
        "multi30k_en_de",
        _source,
        functools.partial(prompt_and_references, prefix=PREFIX, source="en", target="de"),
        [evaluation.bleu, evaluation.chrf],
    )
)
