"""Reports problems of a split before it is used: unread keys, texts that the vocabulary cannot hold, truncation."""

import functools
import logging
from collections.abc import Mapping

import numpy as np
from jaxtyping import Int64

from lmirl_jax.data.jsonl import READ
from lmirl_jax.data.records import Records
from lmirl_jax.data.task_parts import FEATURES
from lmirl_jax.data.unread_keys import describe_unread
from lmirl_jax.data.vocabulary_losses import describe_losses
from lmirl_jax.types import UserError

_log = logging.getLogger(__name__)


def check_records(
    name: str,
    split: str,
    records: Records,
    lengths: Mapping[str, int],
    truncate: bool,
    last_turns: bool = True,
) -> None:
    """Logs, one line for each, unread keys, texts that the vocabulary cannot hold, and examples that the lengths truncate.

    Args:
        name: the name of the task.
        split: the name of the split.
        records: the split.
        lengths: tokens of a row, for `inputs` and `targets`.
        truncate: whether the lengths may truncate examples.
        last_turns: whether only the last assistant turn of a conversation is used.

    Raises:
        UserError: the lengths truncate an example, and `truncate` is False.
    """
    for line in (
        describe_unread(f"{name}, {split}", len(records), records.unread, READ),
        describe_losses(f"{name}, {split}", len(records), records.losses),
    ):
        if line is not None:
            warn_once(line)
    if records.labelled:
        _check_labels(f"{name}, {split}", records)
    elif 0 < records.rewarded < len(records):
        warn_once(
            f"{name}, {split}: {records.rewarded} of {len(records)} examples have a reward; that of the others is 0"
        )
    if records.without_eos:
        _log.warning(
            "%s, %s: %d of %d targets have no EOS of their own, so no answer ends there: add "
            "seqio.preprocessors.append_eos to the task, and add_eos=True to its feature",
            name,
            split,
            records.without_eos,
            len(records),
        )
    if records.turns_left_out and not last_turns:
        warn_once(
            f"{name}, {split}: of {records.turns_left_out} of {len(records)} conversations only the last assistant turn is "
            "learnt: the chat template writes the earlier ones in another way than the model has answered; write a line for "
            "each turn"
        )
    _check_lengths(
        f"{name}, {split}",
        records,
        records.last_lengths if last_turns else records.lengths,
        lengths,
        truncate,
    )


def check_preferences(
    name: str, split: str, records: Records, lengths: Mapping[str, int], truncate: bool, preferences: bool
) -> None:
    """Logs, one line for each, rejected answers that are not used, and those that the lengths truncate.

    Args:
        name, split, records, lengths, truncate: see `check_records`.
        preferences: whether rejected answers are used.

    Raises:
        UserError: they are used, and an example has none; or the lengths truncate one, and `truncate` is False.
    """
    missing = len(records) - records.preferences
    if preferences and missing:
        raise UserError(
            f"{name}, {split}: {missing} of {len(records)} examples have no rejected answer; write 'chosen' and 'rejected' in "
            "every row, or train on the chosen ones with gin/runs/finetune.gin"
        )
    if preferences:
        where = f"{name}, {split}, rejected answers"
        _check_lengths(where, records, records.rejected_lengths, lengths, truncate)
    elif records.preferences:
        warn_once(
            f"{name}, {split}: the rejected answers of {records.preferences} of {len(records)} examples are not used; "
            "gin/runs/dpo.gin learns from them"
        )


def _check_labels(where: str, records: Records) -> None:
    """Logs how many answers are right.

    Raises:
        UserError: none is, so that there is nothing to imitate; or some examples have no label.
    """
    if records.labelled < len(records):
        raise UserError(
            f"{where}: {records.labelled} of {len(records)} examples have a label; write true or false in every row, or in none"
        )
    if not records.right:
        raise UserError(
            f"{where}: every answer is labelled wrong, so that there is nothing to imitate; add right ones"
        )
    warn_once(f"{where}: {records.right} of {len(records)} answers are labelled right")


def _check_lengths(
    where: str,
    records: Records,
    sizes: Int64[np.ndarray, "examples 2"],
    lengths: Mapping[str, int],
    truncate: bool,
) -> None:
    long = {key: int((sizes[:, i] > lengths[key]).sum()) for i, key in enumerate(FEATURES)}
    if not any(long.values()):
        return
    longest = {key: int(sizes[:, i].max()) for i, key in enumerate(FEATURES)}
    counts = ", ".join(
        f"{long[key]} of {len(records)} {key} are longer than {lengths[key]} tokens"
        for key in FEATURES
        if long[key]
    )
    message = f"{where}: {counts}"
    remedy = f"for all of them set TASK_FEATURE_LENGTHS to {longest}"
    if not truncate:
        raise UserError(f"{message}: {remedy}, or TRUNCATE = True")
    effect = (
        ", so that rewards at the end of these targets have no effect"
        if records.rewarded and long["targets"]
        else ""
    )
    warn_once(f"{message} and are truncated{effect}; {remedy}")


@functools.cache
def warn_once(message: str) -> None:
    """Logs a warning once. Loss and answers are evaluated on the same split, which would otherwise log it twice."""
    _log.warning("%s", message)
