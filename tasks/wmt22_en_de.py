"""`wmt22_en_de`: English texts in German, trained on WMT's parallel corpora, tested on WMT22 (aclanthology.org/2022.wmt-1.1).

`train` (about 35 million pairs) and `validation` (newstest2018, 2,998) are those of TFDS `wmt19_translate/de-en:1.0.0`, the
newest of its WMT data sets for this pair. The paper trains on WMT22's own 285 million, which TFDS does not have.

`test` is WMT22's test set as sacrebleu has it, with all of its references (A and B); `test_a` has reference A alone, as
`sacrebleu -t wmt22 -l en-de` compares. Nothing is downloaded here: run `sacrebleu -t wmt22 -l en-de --echo src` once before. It
writes to `~/.sacrebleu`, or to the folder that `$SACREBLEU` names.

T5's vocabulary has no `Ä` and no `Ö`, so that some German targets cannot be written with it; bytes hold all.

The prompt is T5's for translations, `translate English to German: ` and the text; the paper does not state its own. A chat
model gets the same text as the message of a user. The metrics are sacrebleu's BLEU and ChrF, 0 to 100; commands report their
signatures. `gin/runs/beam_eval.gin` has the paper's beams of 4 with length penalty 0.6.
"""

import functools
from typing import Any

from lmirl_jax import evaluation
from lmirl_jax.data.prompted_references import add_task, prompt_and_references
from lmirl_jax.data.seqio_import import register_with_seqio
from lmirl_jax.types import UserError

# `lmirl tasks` reads this without importing the file: the splits, the source and what it is.
TASKS = {
    "wmt22_en_de": (
        ("train", "validation", "test", "test_a"),
        "TFDS wmt19_translate/de-en:1.0.0; test: sacrebleu wmt22",
        "English to German, tested on WMT22",
    )
}
PREFIX = "translate English to German: "
TEST_SPLITS = ("test", "test_a")


def find_test_files(split: str) -> list[Any]:
    """The plain texts that sacrebleu makes of WMT22's test set: the source, then the references.

    Raises:
        UserError: sacrebleu has not downloaded them.
    """
    import sacrebleu.utils
    from etils import epath

    folder = epath.Path(sacrebleu.utils.SACREBLEU_DIR) / "wmt22"
    source = folder / "wmt22.en-de.src"
    references = sorted(folder.glob(f"wmt22.en-de.ref-{'A' if split == 'test_a' else '*'}"))
    if not source.is_file() or not references:
        raise UserError(
            f"task wmt22_en_de: no test set of WMT22 in {folder}: run sacrebleu -t wmt22 -l en-de --echo src > /dev/null, which "
            "downloads it, or set SACREBLEU to the folder that holds wmt22/"
        )
    return [source, *references]


def _source() -> Any:
    import seqio

    from lmirl_jax.data.local_files import LocalFiles, SplitSources, read_aligned

    train = seqio.TfdsDataSource("wmt19_translate/de-en:1.0.0", splits=("train", "validation"))
    test = LocalFiles(
        find_test_files, functools.partial(read_aligned, source="en", targets="de"), TEST_SPLITS
    )
    return SplitSources({"train": train, "validation": train} | dict.fromkeys(TEST_SPLITS, test))


register_with_seqio(
    lambda: add_task(
        "wmt22_en_de",
        _source,
        functools.partial(prompt_and_references, prefix=PREFIX, source="en", target="de"),
        [evaluation.bleu, evaluation.chrf],
    )
)
