"""What `lmirl doctor --show_batch` says: the first batch of a run as the loss sees it, token by token."""

import itertools
import operator
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from lmirl_jax import configuration, data
from lmirl_jax.cli.configure import configure
from lmirl_jax.cli.flags import Flags
from lmirl_jax.data.chat_vocabulary import ChatVocabulary, SpecialVocabulary
from lmirl_jax.data.pieces import decode_with_offsets
from lmirl_jax.data.vocabularies import Vocabulary
from lmirl_jax.types import Batch

# How many rows are printed, unless --num_examples says it.
NUM_ROWS = 2
# The text of an EOS where the vocabulary has no text of its own for it.
EOS = "</s>"
HEADER = f"{'place':>9} {'id':>7} {'weight':>7} {'discount':>8} {'TD weight':>9} {'reward':>7}  token"


def report(flags: Flags) -> Iterator[str]:
    """The lines of the report on the first batch that `lmirl train` would take with the same flags.

    Raises:
        UserError: the settings make no training set.
    """
    configure(flags)
    dataset = configuration.with_configuration(data.TrainDataset)()
    batches = dataset.iterator(slice(0, dataset.batch_size))
    batch = next(batches)
    batches.close()
    count = NUM_ROWS if flags.num_examples is None else flags.num_examples
    rows = (jax.tree.map(operator.itemgetter(index), batch) for index in range(dataset.batch_size))
    for index, row in enumerate(itertools.islice(rows, count)):
        yield from _row_lines(dataset, row, index)
    yield "weight: that of the token in the loss. discount: gamma, 0 where an episode ends. TD weight: 1 where the token has a"
    yield f"reward; the objective multiplies it by TD_WEIGHT. reward: the given one{_rewards(dataset)}."


def _rewards(dataset: data.TrainDataset) -> str:
    return "" if dataset.has_rewards else "; these data give none"


def _row_lines(dataset: data.TrainDataset, row: Batch, index: int) -> Iterator[str]:
    """The examples of a row, which has no batch axis."""
    segments = range(1, int(row.segment_ids.max(initial=0)) + 1)
    places = [
        f"{int((ids > 0).sum()):,} of {len(ids):,} places of {name}"
        for name, ids in (("inputs", row.prompt_segment_ids), ("targets", row.segment_ids))
    ]
    examples = f"{len(segments)} example{'s' * (len(segments) != 1)}"
    which = f" ({('chosen', 'rejected')[index % 2]})" if dataset.has_preferences else ""
    yield f"row {index + 1} of {dataset.batch_size}{which}: {examples}, {', '.join(places)}"
    for segment in segments:
        yield from _example_lines(dataset, row, segment)
    yield ""


def _label(row: Batch, segment: int) -> str:
    """Whether the data say that the answer is right, or wrong."""
    if row.labels is None:
        return ""
    is_right = bool(row.labels[row.segment_ids == segment].any())
    return (
        f"; the answer is labelled {'right' if is_right else 'wrong, so that its likelihood is not learnt'}"
    )


def _example_lines(dataset: data.TrainDataset, row: Batch, segment: int) -> Iterator[str]:
    prompt = row.prompt_tokens[row.prompt_segment_ids == segment]
    text = "".join(_pieces(dataset.task.input_vocabulary, prompt))
    yield f"  example {segment}: a prompt of {len(prompt):,} tokens{_label(row, segment)}"
    # As Python spells them, so that no character of the data controls the terminal.
    yield from (f"    | {repr(line)[1:-1]}" for line in text.split("\n"))
    yield f"    {HEADER}"
    places = np.flatnonzero(row.segment_ids == segment)
    pieces = _pieces(dataset.task.output_vocabulary, row.tokens[places])
    rewards = np.zeros(len(row.tokens)) if row.rewards is None else row.rewards
    for place, piece in zip(places, pieces, strict=True):
        values = row.weights[place], row.discounts[place], row.td_weights[place], rewards[place]
        cells = (f"{float(value):>{width}.4g}" for value, width in zip(values, (7, 8, 9, 7), strict=True))
        yield f"    {place:>9} {row.tokens[place]:>7} {' '.join(cells)}  {piece!r}"


def _pieces(vocabulary: Vocabulary, tokens: Sequence[int] | np.ndarray) -> list[str]:
    """The text of each token. Decoding stops at an EOS and leaves special tokens out, so the texts between them are decoded."""
    if isinstance(vocabulary, ChatVocabulary):
        special = vocabulary.wrapped.special_ids
    else:
        special = vocabulary.special_ids if isinstance(vocabulary, SpecialVocabulary) else {}
    special = dict.fromkeys(vocabulary.eos_ids, EOS) | dict(special)
    pieces: list[str] = []
    for is_special, part in itertools.groupby(map(int, tokens), special.__contains__):
        if is_special:
            pieces += [special[token] for token in part]
        else:
            text, offsets = decode_with_offsets(vocabulary, list(part))
            pieces += [text[begin:end] for begin, end in offsets]
    return pieces
