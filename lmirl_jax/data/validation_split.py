"""The validation split of a task, where it has one."""

from lmirl_jax.arguments import Count, Lengths, Share, Text, check_arguments
from lmirl_jax.data.eval_dataset import EvalDataset
from lmirl_jax.data.mixture_or_task import Task, has_split
from lmirl_jax.data.split_checks import warn_once


@check_arguments
def validation_dataset(
    task: Task,
    lengths: Lengths,
    split: Text = "validation",
    num_examples: Count | None = None,
    discount: Share = 1.0,
    truncate: bool = True,
    preferences: bool = False,
    rejected_ends: bool = True,
) -> EvalDataset | None:
    """Makes an `EvalDataset`; returns None if no part of the task has the split, so that nothing is evaluated."""
    if not has_split(task, split):
        warn_once(f"{task.name} has no split {split!r}: evaluation on it is skipped")
        return None
    given = {"preferences": preferences, "rejected_ends": rejected_ends}
    return EvalDataset(task, lengths, split, num_examples, discount, truncate, **given)
