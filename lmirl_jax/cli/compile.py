"""`lmirl compile`: compiles a run's programs for a TPU topology that is not at hand, and says what they take of each chip."""

import copy
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from lmirl_jax import compilation, sharding
from lmirl_jax.cli import compile_table
from lmirl_jax.cli.compile_settings import Programs, read_programs
from lmirl_jax.cli.flags import Flags, UsageError
from lmirl_jax.cli.messages import log_to_stderr
from lmirl_jax.compilation.fit import Candidate, Trial, search
from lmirl_jax.types import UserError

# How many settings --fit compiles at most; each takes a minute or two.
MOST_TRIALS = 12


def main(flags: Flags) -> int:
    """Prints the tables, or JSON; returns 0 where every program fits, else 1."""
    if not flags.gin_file:
        raise UsageError("no configuration: name one, such as --gin_file=gin/runs/finetune.gin")
    if flags.topology is None:
        raise UsageError("no topology: name one, such as --topology=v5e:16x16")
    log_to_stderr()
    chip = sharding.chip_of(flags.topology)
    slices = 1 if flags.num_slices is None else flags.num_slices
    devices = compilation.devices_of(flags.topology, slices)
    if flags.fit:
        return _fit(flags, devices, chip)
    runs = {name or "update": read_programs(flags, name, devices) for name in flags.objectives or [None]}
    results: dict[str, compile_table.Result] = {
        name: compilation.compile_update(run.setting, run.learner, run.data, chip)
        for name, run in runs.items()
    }
    # Objectives share the network, and so the sampler.
    run = next(iter(runs.values()))
    results["sampler"] = compilation.compile_sampler(run.setting, run.generator, run.data, chip)
    _print(flags, run, results)
    return 0 if all(_fits(result) for result in results.values()) else 1


def _fits(result: compile_table.Result | None) -> bool:
    return isinstance(result, compilation.Summary) and result.memory.fits


def _print(flags: Flags, programs: Programs, results: dict[str, compile_table.Result]) -> None:
    chips = programs.setting.mesh.size
    if flags.json:
        head = {"topology": flags.topology, "num_slices": flags.num_slices or 1, "chips": chips}
        head["run"] = programs.describe()
        parts = {name: compile_table.as_json(result) for name, result in results.items()}
        print(json.dumps(head | {"programs": parts}, indent=2))
        return
    print(f"{flags.topology}{f' x {flags.num_slices} slices' if flags.num_slices else ''}, {chips} chips")
    print(f"{programs.describe()}\n")
    print("\n".join(compile_table.lines(results)))


def _fit(flags: Flags, devices: Sequence[Any], chip: sharding.Chip) -> int:
    """Searches batch size, remat and mesh for the first objective, and prints every trial and the best."""
    objective = flags.objectives[0] if flags.objectives else None
    start = _start(read_programs(flags, objective, devices))
    trials: list[Trial] = []

    def evaluate(candidate: Candidate) -> compile_table.Result | None:
        changed = copy.copy(flags)
        changed.gin_bindings = [*flags.gin_bindings, *bindings(candidate)]
        try:
            programs = read_programs(changed, objective, devices)
            return compilation.compile_update(programs.setting, programs.learner, programs.data, chip)
        except UserError as error:
            print(f"{_words(candidate)}: {str(error).splitlines()[0]}", flush=True)
            return None

    for trial in search(start, evaluate, MOST_TRIALS):
        trials.append(trial)
        if trial.result is not None and not flags.json:
            print(f"{_words(trial.candidate)}: {_outcome(trial)}", flush=True)
    best = max(trials, key=lambda trial: trial.score)
    if flags.json:
        print(json.dumps([_trial_json(trial) for trial in trials], indent=2))
    elif best.result is not None and _fits(best.result):
        print(f"best of {len(trials)}: {_words(best.candidate)}")
        print("\n".join(compile_table.lines({objective or "update": best.result})))
    else:
        print(f"none of {len(trials)} settings fits: use a larger topology")
    return 0 if _fits(best.result) else 1


def _start(programs: Programs) -> Candidate:
    remat = getattr(programs.setting.model, "remat", None)
    if remat is None:
        raise UserError("--fit: the model has no `remat` to search over; leave --fit out")
    return Candidate(programs.data.batch_size, remat, programs.setting.mesh.shape["tensor"])


def bindings(candidate: Candidate) -> list[str]:
    """The gin bindings that make a candidate of a run's settings: the rest of the mesh is `fsdp`."""
    mesh = {"data": 1, "fsdp": -1, "tensor": candidate.tensor}
    values = {"BATCH_SIZE": candidate.batch_size, "REMAT": repr(candidate.remat)}
    values |= {f"sharding.make_mesh.{axis}": size for axis, size in mesh.items()}
    return [f"{name} = {value}" for name, value in values.items()]


def _words(candidate: Candidate) -> str:
    """The candidate as flags, for a shell."""
    pairs = (binding.split(" = ") for binding in bindings(candidate))
    return " ".join(
        f'--gin.{name}="{value}"' if "'" in value else f"--gin.{name}={value}" for name, value in pairs
    )


def _outcome(trial: Trial) -> str:
    result = trial.result
    if not isinstance(result, compilation.Summary):
        return f"does not fit: {result.reason}" if result is not None else ""
    return (
        f"{result.memory.share:.1%} of HBM, step {1e3 * result.step_seconds:,.4g} ms by {result.bound_by}, bound on MFU "
        f"{result.mfu_bound or 0:.1%}"
    )


def _trial_json(trial: Trial) -> dict[str, Any]:
    result = None if trial.result is None else compile_table.as_json(trial.result)
    return {**dataclasses.asdict(trial.candidate), "result": result}
