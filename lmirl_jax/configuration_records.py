"""Reads the config.gin of a run as text: the settings that another run inherits from it, and those that a resume changes."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gin import config_parser

# Settings that a run inherits from the run that it starts from, unless the user sets any of the same group.
INHERITED = (
    ("MIXTURE_OR_TASK_NAME", "DATA", "VALIDATION_DATA"),
    ("VOCABULARY_PATH",),
    ("TASK_FEATURE_LENGTHS",),
    ("BATCH_SIZE",),
    ("DISCOUNT",),
)
# The network, which is inherited unless the user sets another one; each of the others unless the user sets it.
NETWORK = ("MODEL", "VOCAB_SIZE", "DECODER_START_ID", "DROPOUT_RATE")
# Which demonstrations of the task; inherited with it alone.
DRAWN = ("TRAIN_NUM_EXAMPLES", "TRAIN_EXAMPLES_SEED")
# How the files of DATA are read, and their metrics; each is inherited with them alone.
OF_FILES = ("COLUMNS", "VALIDATION_SHARE")
MEASURED = ("METRICS", "BLEU_TOKENIZER", "ROUGE_TOKENIZER")
# Whether the vocabulary's chat template is used; inherited with the vocabulary alone.
CHAT = "CHAT"
SCHEDULES = ("LEARNING_RATE", "LEARNING_RATE_SCHEDULE", "WARMUP_STEPS", "CRITIC_LEARNING_RATE")
# The loss of preferences.
OF_PREFERENCES = (
    *("PREFERENCE", "PREFERENCE_WEIGHT", "BETA", "LABEL_SMOOTHING", "REFERENCE_FREE", "SCORE"),
    *("LENGTH_NORMALISED", "DEMONSTRATION_WEIGHT"),
)
# The losses of heads.
OF_HEADS = (
    *("TAU", "CQL_WEIGHT", "POLICY_WEIGHT", "MAX_WEIGHT", "REWARD_SCALE", "TARGET_RATE"),
    *("FROM_PREFERENCES",),
)
# The effect of a changed setting on a run that resumes; the settings of a group have the same effect.
EFFECTS: Mapping[tuple[str, ...], str] = {
    ("BATCH_SIZE", "NUM_MICROBATCHES"): (
        "the position in the data counts examples (rows, if packed) and is kept; schedules count updates, so an epoch has "
        "another number of them; with BUCKETS above 1 the order depends on BATCH_SIZE, and a resume is refused"
    ),
    (
        "DISCOUNT",
    ): "rewards mean another discounted sum from here on: metrics before and after do not compare",
    ("TASK_FEATURE_LENGTHS", "TRUNCATE"): (
        "examples are cut elsewhere from here on: losses and metrics before and after do not compare"
    ),
    SCHEDULES: ("the schedule is a function of all updates made, so it jumps to its value at this step"),
    ("OBJECTIVE", "TD_WEIGHT", "LEARNER", *OF_PREFERENCES, *OF_HEADS): (
        "the loss is another from here on: train/loss does not compare, and the optimizer's moments are the old loss's"
    ),
    ("OPTIMIZER",): "its state is read as the new one's, where it has the same shape",
    ("RANDOM_SEED", "PROMPT_SEED", "SHUFFLE_TRAIN_EXAMPLES", "PACK", "BUCKETS", "REJECTED_ENDS"): (
        "the order of the examples depends on it: a resume is refused where it does"
    ),
    (
        "MIXTURE_OR_TASK_NAME",
        "DATA",
        "VOCABULARY_PATH",
        "CHAT",
        *OF_FILES,
    ): "a resume is refused where the examples are others",
}
OTHER_EFFECT = "it holds from here on, not for the updates already made"
# Settings that may change without a message, because they do not affect what is learnt.
FREE = (
    *(
        "MODEL_DIR",
        "TRAIN_STEPS",
        "INITIAL_CHECKPOINT_PATH",
        "NEW_PARAMETERS",
        "CHECKPOINT_PERIOD",
        "KEEP_CHECKPOINTS",
        "LOG_PERIOD",
        "PROFILE_STEPS",
        "GUIDE_WEIGHT",
        "WANDB_PROJECT",
    ),
    *("ON_NONFINITE", "MAX_NONFINITE_UPDATES", "SPIKE_FACTOR", "MAX_ROLLBACKS", "WATCHDOG_SECONDS"),
    *(
        "EVAL_PERIOD",
        "EVAL_STEPS",
        "EVALUATOR_NUM_EXAMPLES",
        "EVAL_BATCH_SIZE",
        "EVAL_NUM_SAMPLES",
        "EVAL_TEMPERATURE",
    ),
    *("EVALUATIONS", "BEST_METRIC", "BEST_MODE", "EARLY_STOPPING_PATIENCE", "EARLY_STOPPING_MIN_DELTA"),
    *MEASURED,
    *("MESH", "TENSOR", "REMAT", "OFFLOAD_OPTIMIZER", "SOFT_Q_BLOCK_SIZE", "VALIDATION_DATA"),
)
FREE_MODULES = ("sharding", "evaluation")


@dataclasses.dataclass(frozen=True)
class Record:
    """The statements of a gin text: import lines, included files, and the text of each value by the name that it is bound to."""

    imports: tuple[str, ...] = ()
    includes: tuple[str, ...] = ()
    values: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def text(self, keys: Iterable[str]) -> str:
        """A gin text of these values, with all imports."""
        lines = sorted(self.imports, key=lambda line: ("__gin__" not in line, line))
        return "\n".join([*lines, *(f"{key} = {self.values.get(key, 'None')}" for key in keys)])


class _Unquoted(str):
    """A reference or a macro: `repr` prints it without quotes, as gin files have it."""

    __repr__ = str.__str__


class _ReferenceTexts(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> Any:
        return _Unquoted(f"@{scoped_configurable_name}{'()' if evaluate else ''}")

    def macro(self, macro_name: str) -> Any:
        return _Unquoted(f"%{macro_name}")


def read(text: str) -> Record:
    """Reads a gin text; a later binding replaces an earlier one."""
    imports, includes, values = [], [], {}
    for statement in config_parser.ConfigParser(text, _ReferenceTexts()):
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
    """The settings that a user sets explicitly: by flags, and in gin files that do not only hold defaults.

    A file of defaults that says itself which checkpoint to start from is made for that checkpoint: what it sets counts, and
    what it includes does not.

    Args:
        gin_files: the names of gin files.
        bindings: statements `NAME = VALUE`.
        find: gives the path of a file by its name.
        is_default: whether a file, by its path, holds only defaults, including the files that it includes.
    """
    keys = set(read("\n".join(bindings)).values)
    waiting = list(gin_files)
    while waiting:
        path = find(waiting.pop())
        with open(path, encoding="utf-8") as file:
            record = read(file.read())
        if not is_default(path):
            keys |= set(record.values)
            waiting += record.includes
        elif record.values.get("INITIAL_CHECKPOINT_PATH", "None") != "None":
            keys |= set(record.values)
    return keys


def with_own_draw(record: Record) -> Record:
    """The record of a run with the seed of its demonstrations as a number, so that another run's RANDOM_SEED draws the same."""
    if record.values.get("TRAIN_EXAMPLES_SEED") != "%RANDOM_SEED":
        return record
    seed = {"TRAIN_EXAMPLES_SEED": record.values["RANDOM_SEED"]}
    return dataclasses.replace(record, values={**record.values, **seed})


def inherited_keys(record: Record, explicit: set[str]) -> list[str]:
    """The settings that a run inherits from the record of the run that it starts from.

    A group is not inherited where the user sets any of it. The names of task and data are inherited as a whole, also where unset,
    and with them which demonstrations are drawn.
    """
    keys = []
    for group in INHERITED:
        explicit_in_group = explicit & set(group)
        if not explicit_in_group:
            keys += [name for name in group if name in record.values or group is INHERITED[0]]
    if INHERITED[0][0] in keys and not explicit & set(DRAWN):
        keys += [name for name in DRAWN if name in record.values]
    if INHERITED[0][0] in keys:
        of_files = [*OF_FILES, *MEASURED]
        keys += [name for name in of_files if name in record.values and name not in explicit]
    if "VOCABULARY_PATH" in keys and CHAT in record.values and CHAT not in explicit:
        keys.append(CHAT)
    if "MODEL" not in explicit and "MODEL" in record.values:
        keys += [name for name in NETWORK if name in record.values and name not in explicit]
        keys += [key for key in _parameters(record, record.values["MODEL"]) if key not in explicit]
    return keys


def _parameters(record: Record, reference: str) -> list[str]:
    """The bindings of a configurable by its reference, and of those that its own bindings refer to."""
    name = reference.strip("@()")
    own = [key for key in record.values if key.rpartition(".")[0] == name]
    inner = [record.values[key] for key in own if record.values[key].startswith("@")]
    return [*own, *(key for value in inner for key in _parameters(record, value))]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Describes, in one line for each, the settings that a resumed run changes: old value, new value and effect."""
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
    return lines + _of_followers(before, now)


def _of_followers(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """A line where TRAIN_STEPS changes that is also the length of something else, such as a schedule."""
    old, new = (values.get("TRAIN_STEPS") for values in (before, now))
    followers = [key for key, value in now.items() if "%TRAIN_STEPS" in value]
    followers = sorted(key for key in followers if not key.endswith("training.train.train_steps"))
    if old == new or not followers:
        return []
    line = f"TRAIN_STEPS was {old or 'unset'} and is {new or 'unset'}, and with it {', '.join(followers)}: "
    return [line + EFFECTS[SCHEDULES]]


def effect(key: str) -> str:
    """The effect of another value of a setting on a run that resumes."""
    owner = key
    if ".warmup_" in key:
        owner = "LEARNING_RATE"
    if key.startswith("objectives."):
        owner = "OBJECTIVE"
    return next((words for names, words in EFFECTS.items() if owner in names), OTHER_EFFECT)


def _key(statement: Any) -> str:
    name = f"{statement.selector}.{statement.arg_name}" if statement.arg_name else statement.selector
    return f"{statement.scope}/{name}" if statement.scope else name
