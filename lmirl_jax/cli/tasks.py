"""`lmirl tasks`: the tasks and mixtures that a run can name; `lmirl tasks show` looks at one, or at a file."""

import difflib

from lmirl_jax.cli import task_list
from lmirl_jax.cli.flags import Flags, UsageError


def main(flags: Flags) -> int:
    if flags.words and flags.words[0] != "show":
        raise UsageError(_unexpected(flags.words))
    if flags.words:
        from lmirl_jax.cli import task_report

        for line in task_report.report(flags):
            print(line, flush=True)
        return 0
    for flag, value in {"--split": flags.split, "--num_examples": flags.num_examples}.items():
        if value not in (None, []):
            raise UsageError(f"{flag} is for lmirl tasks show NAME; the list has no use for it")
    if flags.gin_bindings and not flags.gin_file:
        raise UsageError("--gin.NAME=VALUE is for lmirl tasks show, or for a --gin_file")
    known = task_list.bundled_tasks()
    if flags.gin_file or flags.modules:
        from lmirl_jax.cli import task_modules

        task_modules.load(flags)
        # This import loads SeqIO, with which the modules register their tasks at the latest.
        from lmirl_jax.data.registered_tasks import registered_tasks

        known = registered_tasks() | known
    print(task_list.table(known))
    print("\nlmirl tasks show NAME prints the examples of one and their lengths.")
    return 0


def _unexpected(words: list[str]) -> str:
    names = ["show", *task_list.bundled_tasks()]
    nearest = difflib.get_close_matches(words[0], names, n=1, cutoff=0.5)
    if nearest:
        meant = "NAME" if nearest[0] == "show" else nearest[0]
        return f"unexpected argument {words[0]!r}; did you mean lmirl tasks show {meant}?"
    return f"unexpected argument {words[0]!r}; write lmirl tasks, or lmirl tasks show NAME"
