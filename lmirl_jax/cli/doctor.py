"""`lmirl doctor`: what is installed, what the machine has, and what is missing for a training run.

It also runs where a library is missing, to name that library: so it imports JAX, and what needs JAX, within its functions.
"""

import dataclasses
import functools
import glob
import importlib.metadata
import os
import platform
import shutil
import sys

from lmirl_jax.cli.flags import Flags

# The rows of the table, and the list of what is missing.
Report = tuple[list[tuple[str, str]], list[str]]
# No run starts without these. Their versions are read from metadata, so that TensorFlow is not imported.
NEEDED = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "seqio",
    "tensorflow",
    "tensorflow-text",
    "tensorflow-datasets",
    "gin-config",
    "numpy",
    "tensorboard",
    "xxhash",
)


def main(flags: Flags) -> int:
    """Prints the report, and with gin files what their run would take; returns 0 where training can run here, else 1."""
    if flags.checkpoint is not None:
        return _checkpoint(flags.checkpoint)
    if flags.show_batch:
        from lmirl_jax.cli import batch_report

        for line in batch_report.report(flags):
            print(line)
        return 0
    if flags.replay is not None:
        return _replay(flags)
    rows: list[tuple[str, str]] = []
    problems: list[str] = []
    of_run = functools.partial(_soft_q, flags), functools.partial(_texts, flags)
    for report in (_versions, _machine, _devices, _gin_files, *of_run):
        more_rows, more_problems = report()
        rows += more_rows
        problems += more_problems
    _print_table(rows)
    lines, more_problems = _shardings(flags)
    problems += [line for line in more_problems if line not in problems]
    for line in [*lines, *(f"hint: {hint}" for hint in _hints())]:
        print(line)
    for line in problems:
        print(f"missing: {line}")
    print("training cannot run here" if problems else "all that training needs is here")
    return 1 if problems else 0


def _checkpoint(path: str) -> int:
    from lmirl_jax.cli.checkpoint_report import describe_checkpoint

    rows, problems = describe_checkpoint(path)
    _print_table(rows)
    for line in problems:
        print(line)
    print("it cannot be loaded" if problems else "it can be loaded")
    return 1 if problems else 0


def _replay(flags: Flags) -> int:
    from lmirl_jax.cli.configure import configure
    from lmirl_jax.cli.replay import config_of, replay

    assert flags.replay is not None
    # Settings of the user come after those of the run.
    configure(dataclasses.replace(flags, gin_file=[config_of(flags.replay), *flags.gin_file]))
    rows, faulty = replay(flags.replay)
    _print_table(rows)
    for line in faulty:
        print(line)
    return 0


def _print_table(rows: list[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:{width}}  {value}")
    print()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _versions() -> Report:
    rows = [("lmirl_jax", _version("lmirl_jax") or "not installed, run from its folder")]
    rows.append(("python", f"{platform.python_version()} ({sys.executable})"))
    versions = {name: _version(name) for name in NEEDED}
    rows += [(name, version or "missing") for name, version in versions.items()]
    missing = [name for name, version in versions.items() if version is None]
    return rows, [
        f"{name}: pip install {name}, or install lmirl_jax with its dependencies" for name in missing
    ]


def _machine() -> Report:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [("cores", str(cores))]
    if {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(os.sysconf_names):
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        rows.append(("memory", f"{gib:.1f} GiB"))
    rows.append(("disk", f"{shutil.disk_usage(os.getcwd()).free / 2**30:.1f} GiB free in the current folder"))
    return rows, []


def _devices() -> Report:
    """The devices that JAX finds, and the mesh that a run makes of them where its gin files say nothing else."""
    try:
        import jax

        devices = jax.devices()
    # JAX raises an AssertionError where JAX_PLATFORMS names a platform that is absent.
    except (ImportError, RuntimeError, AssertionError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0]
        return [("devices", "none")], [
            f"devices: JAX starts none ({line}): check its installation and JAX_PLATFORMS"
        ]
    kind = devices[0].device_kind
    rows = [
        (
            "devices",
            f"{len(devices)} x {devices[0].platform}" + ("" if kind == devices[0].platform else f" ({kind})"),
        )
    ]
    if jax.process_count() > 1:
        rows.append(("processes", str(jax.process_count())))
    try:
        from lmirl_jax import sharding
    except ImportError as error:
        return [*rows, ("mesh", "none")], [f"mesh: {error}"]
    return [*rows, ("mesh", sharding.describe_mesh(sharding.make_mesh()))], []


def _gin_files() -> Report:
    try:
        from lmirl_jax import configuration
        from lmirl_jax.types import UserError
    except ImportError as error:
        return [("gin files", "none")], [f"gin: {error}"]
    try:
        count, root = len(configuration.bundled_files()), configuration.find_gin_root()
    except UserError as error:
        return [("gin files", "none")], [str(error)]
    problems = [] if count else [f"gin files: none in {root / 'gin'}: install lmirl_jax again"]
    return [("gin files", f"{count} bundled, in {root / 'gin'}")], problems


def _soft_q(flags: Flags) -> Report:
    """The form that soft Q-values take: the rule, or with gin files the form for their batch, mesh and vocabulary."""
    try:
        from lmirl_jax import configuration, sharding, tiles
        from lmirl_jax.types import UserError
    except ImportError as error:
        return [("soft Q-values", "none")], [f"soft Q-values: {error}"]
    rule = f"dense up to {tiles.DENSE_LOGITS:,} logits a device, blocked above"
    if not flags.gin_file:
        return [("soft Q-values", rule)], []
    try:
        configuration.load(flags.gin_file, flags.gin_bindings, flags.gin_search_paths, complete=False)
        configuration.require("BATCH_SIZE", "TASK_FEATURE_LENGTHS", "MODEL", "MESH")
        rows = configuration.macro("BATCH_SIZE") // configuration.macro("NUM_MICROBATCHES", 1)
        shape = (rows, configuration.macro("TASK_FEATURE_LENGTHS")["targets"])
        model, block_size = configuration.macro("NETWORK"), configuration.macro("SOFT_Q_BLOCK_SIZE", None)
        with sharding.use(configuration.macro("MESH")):
            form = tiles.describe(shape, (model.emb_dim, model.vocab_size), block_size)
    except UserError as error:
        return [("soft Q-values", rule)], [f"a run of these gin files: {str(error).splitlines()[0]}"]
    return [("soft Q-values", form)], []


def _shardings(flags: Flags) -> tuple[list[str], list[str]]:
    """With gin files, the lines of a table of the shardings of their run."""
    if not flags.gin_file:
        return [], []
    try:
        from lmirl_jax.cli import sharding_report
    except ImportError as error:
        return [], [f"shardings: {error}"]
    return sharding_report.report(flags)


def _texts(flags: Flags) -> Report:
    """With gin files, reports for each split of their run the texts that the vocabulary cannot hold."""
    if not flags.gin_file:
        return [], []
    try:
        from lmirl_jax import configuration
        from lmirl_jax.cli.configure import set_data_folders
        from lmirl_jax.types import UserError
    except ImportError as error:
        return [], [f"texts: {error}"]
    rows: list[tuple[str, str]] = []
    try:
        configuration.load(flags.gin_file, flags.gin_bindings, flags.gin_search_paths, complete=False)
        if configuration.macro("TASK", None) is None:
            return [], []
        from lmirl_jax.data.records import tokenized_records
        from lmirl_jax.data.vocabulary_losses import describe_losses

        set_data_folders(flags)
        for part in configuration.macro("TASK").tasks:
            for split in ("train", "validation"):
                if split in part.splits:
                    records = tokenized_records(part, split)
                    lost = describe_losses(f"{part.name}, {split}", len(records), records.losses)
                    rows.append(("texts", lost or f"{part.name}, {split}: the vocabulary holds all"))
    except UserError as error:
        line = f"a run of these gin files: {str(error).splitlines()[0]}"
        return rows, [line]
    return rows, []


def _hints() -> list[str]:
    """Hints about devices and packages that this machine could use but does not; none of them stops a run."""
    hints = []
    if (
        glob.glob("/dev/nvidia[0-9]*")
        and _version("jax-cuda13-plugin") is None
        and _version("jax-cuda12-plugin") is None
    ):
        hints.append("this machine has a GPU that JAX cannot see: pip install 'lmirl_jax[cuda]'")
    if glob.glob("/dev/accel[0-9]*") and _version("libtpu") is None:
        hints.append("this machine has a TPU that JAX cannot see: pip install 'lmirl_jax[tpu]'")
    if _version("wandb") is None:
        hints.append(
            "Weights & Biases is not installed (only for its metric writer): pip install 'lmirl_jax[wandb]'"
        )
    return hints
