"""The table of commands and their help: nothing heavy is imported to print it."""

import dataclasses
import textwrap

from lmirl_jax.cli.flags import CONFIGURATION, PROCESSES, Flag

FINETUNE = "--gin_file=gin/runs/finetune.gin --gin.MODEL_DIR=\"'/tmp/run'\""
RUNS = "--gin.RUNS=\"{'MLE': ['/tmp/a'], 'IQLearn': ['/tmp/b', '/tmp/c']}\""
CHECKPOINT = "--gin.CHECKPOINT_PATH=\"'/tmp/run'\""
SCORED = "--gin.SCORED=\"'scored.jsonl'\""


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: `main(flags)` of its module, one line of help, the flags it takes, and examples."""

    module: str
    help: str
    flags: dict[str, Flag] = dataclasses.field(default_factory=dict)
    examples: tuple[str, ...] = ()


COMMANDS = {
    "train": Command(
        "lmirl_jax.cli.train",
        "fine-tune a model as its gin files say; resumes where MODEL_DIR has a checkpoint",
        CONFIGURATION | PROCESSES,
        (
            f"lmirl train {FINETUNE} --gin.TRAIN_STEPS=1000 --gin.MIXTURE_OR_TASK_NAME=\"'number_paths'\"",
            f"lmirl train {FINETUNE} --gin.TRAIN_STEPS=1000 --gin.DATA=\"'my.jsonl'\"",
        ),
    ),
    "eval": Command(
        "lmirl_jax.cli.eval",
        "measure a run's checkpoint: the task's metrics and diversity over sampling temperatures",
        CONFIGURATION | PROCESSES,
        (f"lmirl eval --gin_file=gin/runs/eval.gin {CHECKPOINT} --gin.TEMPERATURES='[0.0, 1.0]'",),
    ),
    "sweep": Command(
        "lmirl_jax.cli.sweep",
        "compare runs of several objectives and seeds over sampling temperatures, in one report; resumes",
        CONFIGURATION | PROCESSES,
        (f"lmirl sweep --gin_file=gin/runs/sweep.gin {RUNS} --gin.OUTPUT_DIR=\"'/tmp/front'\"",),
    ),
    "infer": Command(
        "lmirl_jax.cli.infer",
        "write a run's answers to prompts as JSONL",
        CONFIGURATION | PROCESSES,
        (f"lmirl infer --gin_file=gin/runs/infer.gin {CHECKPOINT} --gin.NUM_SAMPLES=4",),
    ),
    "score": Command(
        "lmirl_jax.cli.score",
        "write the reward that a run gives to every token of answers as JSONL or Parquet",
        CONFIGURATION | PROCESSES,
        (f"lmirl score --gin_file=gin/runs/score.gin {CHECKPOINT} --gin.DATA=\"'pairs.jsonl'\"",),
    ),
    "report": Command(
        "lmirl_jax.cli.report",
        "make one page on whether the rewards of runs can be trusted: correlations, corruption tests, heat maps",
        CONFIGURATION | PROCESSES,
        (f"lmirl report --gin_file=gin/runs/report.gin {RUNS} --gin.OUTPUT_DIR=\"'/tmp/rewards'\"",),
    ),
    "filter": Command(
        "lmirl_jax.cli.filter",
        "make a training set of scored answers: leave out the worst of them, or weight them all",
        CONFIGURATION,
        (
            f"lmirl filter --gin_file=gin/runs/filter.gin {SCORED} --gin.OUTPUT_PATH=\"'kept.jsonl'\" --gin.KEEP=0.9",
        ),
    ),
    "doctor": Command(
        "lmirl_jax.cli.doctor",
        "show versions, devices and the mesh, what is missing, and how a run's soft Q-values would be read",
        CONFIGURATION,
        ("lmirl doctor", "lmirl doctor --gin_file=gin/runs/finetune.gin --gin.DATA=\"'my.jsonl'\""),
    ),
    "quickstart": Command(
        "lmirl_jax.cli.quickstart",
        "train a tiny T5 twice, by MLE and by IQLearn, and compare both: four minutes on two CPU cores",
        CONFIGURATION,
        ("lmirl quickstart", "lmirl quickstart --gin.TRAIN_STEPS=200 --gin.MODEL_DIR=\"'/tmp/quickstart'\""),
    ),
}
GIN_VALUES = (
    "--gin.NAME=VALUE sets a macro (--gin.TRAIN_STEPS=1000) or a parameter (--gin.training.train.total_steps=1000). "
    "VALUE is gin's syntax: a string has quotes of its own inside the shell's, --gin.MODEL_DIR=\"'/tmp/run'\"."
)


def overview() -> str:
    """What `lmirl --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "lmirl: fine-tune language models by inverse reinforcement learning",
            "",
            "usage: lmirl <command> [--flag=value ...]",
            "",
            *lines,
            "",
            "lmirl <command> --help explains a command's flags; lmirl --version prints the version.",
        ]
    )


def explanation(name: str) -> str:
    """What `lmirl <command> --help` prints."""
    command = COMMANDS[name]
    lines = [
        f"lmirl {name}: {command.help}",
        "",
        f"usage: lmirl {name}" + (" [--flag=value ...]" if command.flags else ""),
    ]
    if "gin_bindings" in command.flags:
        lines += ["", *_wrapped(GIN_VALUES, "  ")]
    for flag, about in command.flags.items():
        lines += ["", f"  --{flag}={about.value}", *_wrapped(about.help, "      ")]
    lines += ["", "examples:", *(f"  {example}" for example in command.examples)]
    return "\n".join(lines)


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        110,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
