"""The table of commands and their help: nothing heavy is imported to print it."""

import dataclasses
import textwrap

from lmirl_jax.cli.flags import BEAM, COMPILATION, CONFIGURATION, PROCESSES, REPLAY, SHOW_BATCH, TASKS, Flag
from lmirl_jax.cli.flags import CHECKPOINT as CHECKPOINT_FLAG

FINETUNE = "--gin_file=gin/runs/finetune.gin --gin.MODEL_DIR=\"'/tmp/run'\""
RUNS = "--gin.RUNS=\"{'MLE': ['/tmp/a'], 'IQLearn': ['/tmp/b', '/tmp/c']}\""
CHECKPOINT = "--gin.CHECKPOINT_PATH=\"'/tmp/run'\""
COMPILED = (
    "--gin_file=gin/runs/finetune.gin --gin_file=gin/models/t5_1_1/xl.gin --gin_file=gin/meshes/fsdp.gin "
    "--gin.VOCAB_SIZE=32128 --gin.BATCH_SIZE=1024 --gin.DTYPE=\"'bfloat16'\""
)
ANSWERS = "--gin.ANSWERS=\"'samples.jsonl'\""
PAIRS = "--gin.OUTPUT_PATH=\"'pairs.jsonl'\" --gin.FORM=\"'preferences'\""
SCORED = "--gin.SCORED=\"'scored.jsonl'\""


@dataclasses.dataclass(frozen=True)
class Bindings:
    """Examples of the bindings of a command, one of each kind."""

    macro: str
    parameter: str
    text: str

    def __str__(self) -> str:
        return (
            f"--gin.NAME=VALUE sets a macro (--gin.{self.macro}) or a parameter (--gin.{self.parameter}). VALUE is gin's "
            f"syntax: a string has its own quotes inside the shell's, --gin.{self.text}."
        )


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: `main(flags)` of its module, one line of help, the flags it takes, bindings that it takes, and examples.

    `words` are the names of further arguments that it takes, which are no flags.
    """

    module: str
    help: str
    flags: dict[str, Flag]
    bindings: Bindings
    examples: tuple[str, ...]
    words: tuple[str, ...] = ()


COMMANDS = {
    "prepare": Command(
        "lmirl_jax.cli.prepare",
        "make the tokenised examples of a run before it starts; training does so by itself where they are not there",
        CONFIGURATION | BEAM,
        Bindings("DATA=\"'my.jsonl'\"", "data.get_task.chat=True", "VOCABULARY_PATH=\"'/tmp/tokenizer'\""),
        (f"lmirl prepare {FINETUNE} --gin.TRAIN_STEPS=1000 --gin.DATA=\"'my.jsonl'\"",),
    ),
    "train": Command(
        "lmirl_jax.cli.train",
        "fine-tune a model as its gin files say; resumes where MODEL_DIR has a checkpoint",
        CONFIGURATION | PROCESSES,
        Bindings("TRAIN_STEPS=1000", "training.adamw.weight_decay=0.01", "MODEL_DIR=\"'/tmp/run'\""),
        (
            f"lmirl train {FINETUNE} --gin.TRAIN_STEPS=1000 --gin.MIXTURE_OR_TASK_NAME=\"'number_paths'\"",
            f"lmirl train {FINETUNE} --gin.TRAIN_STEPS=1000 --gin.DATA=\"'my.jsonl'\"",
        ),
    ),
    "eval": Command(
        "lmirl_jax.cli.eval",
        "measure a run's checkpoint: the task's metrics and diversity over sampling temperatures",
        CONFIGURATION | PROCESSES,
        Bindings("NUM_SAMPLES=4", "sweep/evaluation.Generator.seed=1", "CHECKPOINT_PATH=\"'/tmp/run'\""),
        (f"lmirl eval --gin_file=gin/runs/eval.gin {CHECKPOINT} --gin.TEMPERATURES='[0.0, 1.0]'",),
    ),
    "sweep": Command(
        "lmirl_jax.cli.sweep",
        "compare runs of several objectives and seeds over sampling temperatures, in one report; resumes",
        CONFIGURATION | PROCESSES,
        Bindings("NUM_SAMPLES=4", "sweep_plan.SweepConfig.shown_prompts=3", "OUTPUT_DIR=\"'/tmp/front'\""),
        (f"lmirl sweep --gin_file=gin/runs/sweep.gin {RUNS} --gin.OUTPUT_DIR=\"'/tmp/front'\"",),
    ),
    "infer": Command(
        "lmirl_jax.cli.infer",
        "write a run's answers to prompts as JSONL",
        CONFIGURATION | PROCESSES,
        Bindings("NUM_SAMPLES=4", "infer_script.infer.temperature=0.5", "CHECKPOINT_PATH=\"'/tmp/run'\""),
        (f"lmirl infer --gin_file=gin/runs/infer.gin {CHECKPOINT} --gin.NUM_SAMPLES=4",),
    ),
    "score": Command(
        "lmirl_jax.cli.score",
        "write the reward that a run gives to every token of answers as JSONL or Parquet",
        CONFIGURATION | PROCESSES,
        Bindings("SCORE_BATCH_SIZE=8", "score_script.score.metrics=False", "CHECKPOINT_PATH=\"'/tmp/run'\""),
        (f"lmirl score --gin_file=gin/runs/score.gin {CHECKPOINT} --gin.DATA=\"'pairs.jsonl'\"",),
    ),
    "report": Command(
        "lmirl_jax.cli.report",
        "make one page on whether the rewards of runs can be trusted: correlations, corruption tests, heat maps",
        CONFIGURATION | PROCESSES,
        Bindings(
            "NUM_SAMPLES=4", "report_plan.ReportConfig.corruption_seed=1", "OUTPUT_DIR=\"'/tmp/rewards'\""
        ),
        (f"lmirl report --gin_file=gin/runs/report.gin {RUNS} --gin.OUTPUT_DIR=\"'/tmp/rewards'\"",),
    ),
    "filter": Command(
        "lmirl_jax.cli.filter",
        "make a training set of scored answers: leave out the worst of them, or weight them all",
        CONFIGURATION,
        Bindings("KEEP=0.9", "rewards.FilterConfig.per_prompt=1", "OUTPUT_PATH=\"'kept.jsonl'\""),
        (
            f"lmirl filter --gin_file=gin/runs/filter.gin {SCORED} --gin.OUTPUT_PATH=\"'kept.jsonl'\" --gin.KEEP=0.9",
        ),
    ),
    "label": Command(
        "lmirl_jax.cli.label",
        "make labelled data of answers by a checker: right and wrong ones, rewards, or preferences",
        CONFIGURATION,
        Bindings(
            "FORM=\"'preferences'\"", "labelled.Labels.threshold=0.9", "OUTPUT_PATH=\"'labelled.jsonl'\""
        ),
        (
            f"lmirl label --gin_file=gin/runs/label.gin {ANSWERS} --gin.OUTPUT_PATH=\"'labelled.jsonl'\"",
            f"lmirl label --gin_file=gin/runs/label.gin {ANSWERS} {PAIRS}",
        ),
    ),
    "tasks": Command(
        "lmirl_jax.cli.tasks",
        "list tasks and mixtures; show a task's or a file's examples and lengths, and what the vocabulary loses",
        CONFIGURATION | TASKS,
        Bindings("CHAT=False", "data.get_task.chat=False", "DATA=\"'my.jsonl'\""),
        (
            "lmirl tasks",
            "lmirl tasks show gsm8k --tfds_data_dir=/data/tfds --gin.VOCABULARY_PATH=\"'/data/spiece.model'\"",
            "lmirl tasks show --gin_file=gin/runs/finetune.gin --gin.DATA=\"'my.jsonl'\"",
        ),
        words=("show", "NAME"),
    ),
    "convert": Command(
        "lmirl_jax.cli.convert",
        "write a checkpoint for Hugging Face's transformers, for T5X or as a run; from any of them",
        CONFIGURATION | PROCESSES,
        Bindings("FORMAT=\"'hf'\"", "sharding.make_mesh.fsdp=8", "OUTPUT_PATH=\"'/tmp/hf'\""),
        (f"lmirl convert {CHECKPOINT} --gin.OUTPUT_PATH=\"'/tmp/hf'\" --gin.FORMAT=\"'hf'\"",),
    ),
    "compile": Command(
        "lmirl_jax.cli.compile",
        "compile a run for a TPU slice that is not at hand: memory, FLOPs, what chips send, and the bound on speed",
        CONFIGURATION | COMPILATION,
        Bindings("VOCAB_SIZE=32128", "sharding.make_mesh.tensor=4", "DTYPE=\"'bfloat16'\""),
        (
            "lmirl compile --gin_file=gin/runs/finetune.gin --gin.VOCAB_SIZE=32128 --topology=v5e:2x2",
            f"lmirl compile {COMPILED} --topology=v5e:16x16 --objectives=mle,iqlearn",
            f"lmirl compile {COMPILED} --topology=v5e:16x16 --objectives=iqlearn --fit",
        ),
    ),
    "doctor": Command(
        "lmirl_jax.cli.doctor",
        "show versions, devices, the mesh and what is missing, and how soft Q-values would be read; or a checkpoint, or a batch",
        CONFIGURATION | CHECKPOINT_FLAG | SHOW_BATCH | REPLAY,
        Bindings("BATCH_SIZE=16", "training.adamw.weight_decay=0.01", "DATA=\"'my.jsonl'\""),
        (
            "lmirl doctor",
            "lmirl doctor --checkpoint=/tmp/run",
            "lmirl doctor --replay=/tmp/run/nonfinite/step-7.npz",
            "lmirl doctor --gin_file=gin/runs/finetune.gin --gin.DATA=\"'my.jsonl'\"",
            f"lmirl doctor {FINETUNE} --gin.TRAIN_STEPS=1000 --gin.DATA=\"'my.jsonl'\" --show_batch",
        ),
    ),
    "quickstart": Command(
        "lmirl_jax.cli.quickstart",
        "fine-tune a tiny T5 on 300 demonstrations, by MLE and by IQLearn, and compare both: five minutes on two CPU cores",
        CONFIGURATION,
        Bindings("TRAIN_STEPS=200", "training.adamw.weight_decay=0.01", "MODEL_DIR=\"'/tmp/quickstart'\""),
        ("lmirl quickstart", "lmirl quickstart --gin.TRAIN_STEPS=200 --gin.MODEL_DIR=\"'/tmp/quickstart'\""),
    ),
}


def overview() -> str:
    """The text of `lmirl --help`."""
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
    """The text of `lmirl <command> --help`."""
    command = COMMANDS[name]
    lines = [
        f"lmirl {name}: {command.help}",
        "",
        f"usage: lmirl {name} {_words(command.words)}[--flag=value ...]",
    ]
    lines += ["", *_wrap(str(command.bindings), "  ")]
    for flag, about in command.flags.items():
        lines += ["", f"  --{flag}{'=' * bool(about.value)}{about.value}", *_wrap(about.help, "      ")]
    lines += ["", "examples:", *(f"  {example}" for example in command.examples)]
    return "\n".join(lines)


def _words(words: tuple[str, ...]) -> str:
    """The further arguments in brackets, each of which needs the one before: `[show [NAME]] `."""
    return "".join(f"[{word} " for word in words).rstrip() + "]" * len(words) + " " * bool(words)


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text,
        110,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
