"""What a run's config.gin records, read as text: what a run that starts from it takes over, and what a resume changes."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gin import config_parser

# Settings that a run takes from the run that it starts from, unless it is told otherwise; those of a group go together.
INHERITED = (
    ("MIXTURE_OR_TASK_NAME", "DATA", "VALIDATION_DATA"),
    ("VOCABULARY_PATH",),
    ("TASK_FEATURE_LENGTHS",),
    ("BATCH_SIZE",),
    ("DISCOUNT",),
    ("MODEL", "VOCAB_SIZE"),
)
# What a changed setting does to a run that goes on; the settings of a group have the same effect.
EFFECTS: Mapping[tuple[str, ...], str] = {
    ("BATCH_SIZE", "NUM_MICROBATCHES"): (
        "the position in the data counts examples and is kept; schedules count updates, so an epoch has another number of them"
    ),
    (
        "DISCOUNT",
    ): "rewards mean another discounted sum from here on: metrics before and after do not compare",
    ("TASK_FEATURE_LENGTHS", "TRUNCATE"): (
        "examples are cut elsewhere from here on: losses and metrics before and after do not compare"
    ),
    ("LEARNING_RATE", "LEARNING_RATE_SCHEDULE", "WARMUP_STEPS", "CRITIC_LEARNING_RATE"): (
        "the schedule is a function of all updates made, so it jumps to its value at this step"
    ),
    ("OBJECTIVE", "TD_WEIGHT", "LEARNER"): (
        "the loss is another from here on: train/loss does not compare, and the optimizer's moments are the old loss's"
    ),
    ("OPTIMIZER",): "its state is read as the new one's, where it has the same shape",
    ("RANDOM_SEED", "PROMPT_SEED", "SHUFFLE_TRAIN_EXAMPLES"): (
        "the order of the examples depends on it: a resume is refused where it does"
    ),
    ("MIXTURE_OR_TASK_NAME", "DATA", "VOCABULARY_PATH"): "a resume is refused where the examples are others",
}
OTHER_EFFECT = "it holds from here on, not for the updates already made"
# What may change without a word: it has no part in what is learnt.
FREE = (
    *(
        "MODEL_DIR",
        "TRAIN_STEPS",
        "INITIAL_CHECKPOINT_PATH",
        "CHECKPOINT_PERIOD",
        "KEEP_CHECKPOINTS",
        "LOG_PERIOD",
        "WANDB_PROJECT",
    ),
    *(
        "EVAL_PERIOD",
        "EVAL_STEPS",
        "EVALUATOR_NUM_EXAMPLES",
        "EVAL_BATCH_SIZE",
        "EVAL_NUM_SAMPLES",
        "EVAL_TEMPERATURE",
    ),
    *("EVALUATIONS", "BEST_METRIC", "BEST_MODE", "EARLY_STOPPING_PATIENCE", "EARLY_STOPPING_MIN_DELTA"),
    *("MESH", "TENSOR", "REMAT", "SOFT_Q_BLOCK_SIZE", "VALIDATION_DATA"),
)
FREE_MODULES = ("sharding", "evaluation")


@dataclasses.dataclass(frozen=True)
class Record:
    """The statements of a gin text: import lines, files it includes, and values as gin writes them, by what they are bound to."""

    imports: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def text(self, keys: Iterable[str]) -> str:
        """These of its values, as a gin text with the imports that they need."""
        lines = sorted(self.imports, key=lambda line: ("__gin__" not in line, line))
        return "\n".join([*lines, *(f"{key} = {self.values.get(key, 'None')}" for key in keys)])


class _Written(str):
    """A reference or a macro, printed as gin writes it."""

    __repr__ = str.__str__


class _AsWritten(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_selector: str, evaluate: bool) -> str:
        return _Written(f"@{scoped_selector}{'()' if evaluate else ''}")

    def macro(self, name: str) -> str:
        return _Written(f"%{name}")


def read(text: str) -> Record:
    """Reads a gin text; a later binding replaces an earlier one."""
    imports, includes, values = [], [], {}
    for statement in config_parser.ConfigParser(text, _AsWritten()):
        if isinstance(statement, config_parser.ImportStatement):
            imports.append(statement.format())
        elif isinstance(statement, config_parser.IncludeStatement):
            includes.append(statement.filename)
        elif isinstance(statement, config_parser.BindingStatement):
            values[_key(statement)] = repr(statement.value)
    return Record(tuple(imports), tuple(includes), values)


def explicit_keys(
    gin_files: Sequence[str],
    bindings: Sequence[str],
    find: Callable[[str], str],
    is_default: Callable[[str], bool],
) -> set[str]:
    """What a user has set on purpose: by flags, and in gin files that are not the bundled runs' own.

    Args:
        gin_files: as they were given.
        bindings: statements `NAME = VALUE`.
        find: from a file's name to its path.
        is_default: whether a file, by its path, holds defaults alone, whatever it includes.
    """
    keys = set(read("\n".join(bindings)).values)
    waiting = list(gin_files)
    while waiting:
        path = find(waiting.pop())
        if is_default(path):
            continue
        with open(path, encoding="utf-8") as file:
            record = read(file.read())
        keys |= set(record.values)
        waiting += record.includes
    return keys


def inherited_keys(record: Record, explicit: set[str]) -> list[str]:
    """Which settings a run takes from the record of the run that it starts from.

    A group of which any is set on purpose is left alone; but of a task's names the others are then unset.
    """
    keys = []
    for group in INHERITED:
        given = explicit & set(group)
        if not given:
            keys += [name for name in group if name in record.values or group is INHERITED[0]]
    if "MODEL" in keys:
        model = record.values["MODEL"].strip("@()")
        keys += [key for key in record.values if key.rpartition(".")[0] == model and key not in explicit]
    return keys


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """One line for each setting that a resumed run changes: the old value, the new one, and the effect."""
    lines = []
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        module = key.split("/")[-1].split(".")[0]
        if old == new or key in FREE or module in FREE_MODULES:
            continue
        if key.isupper() or (old is not None and new is not None):
            lines.append(f"{key} was {old or 'unset'} and is {new or 'unset'}: {effect(key)}")
        else:
            lines.append(f"{key} was {old or 'its default'} and is {new or 'its default'}: {effect(key)}")
    return lines


def effect(key: str) -> str:
    """What another value of a setting does to a run that goes on."""
    owner = key
    if ".warmup_" in key:
        owner = "LEARNING_RATE"
    if key.startswith("objectives."):
        owner = "OBJECTIVE"
    return next((words for names, words in EFFECTS.items() if owner in names), OTHER_EFFECT)


def _key(statement: Any) -> str:
    name = f"{statement.selector}.{statement.arg_name}" if statement.arg_name else statement.selector
    return f"{statement.scope}/{name}" if statement.scope else name
