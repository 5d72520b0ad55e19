"""`lmirl report`: whether the rewards of runs can be trusted, in one page."""

import collections
import contextlib
import dataclasses
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from lmirl_jax import configuration, files
from lmirl_jax.arguments import Path
from lmirl_jax.cli.configure import add_run, check_without_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.report_plan import (
    ReportConfig,
    RewardingRun,
    ScoredFile,
    damaged_answers,
    effects,
    longest_answer,
    write_damaged,
)
from lmirl_jax.cli.sweep_plan import Runs, check_output_dir, paths_by_label

RUN_FILE = "gin/runs/report.gin"
Source = RewardingRun | ScoredFile


def main(flags: Flags) -> int:
    began = time.monotonic()
    configure_without_run(flags, RUN_FILE, "RUNS", "OUTPUT_DIR")
    import jax

    from lmirl_jax.training import checkpoints

    config = configuration.configured(ReportConfig)()
    output_dir = configuration.macro("OUTPUT_DIR", hint=Path)
    sources = _sources(flags)
    _check(sources, config)
    check_output_dir(
        output_dir, ("report.html", "report.json", "correlations.csv"), [str(one) for one in sources]
    )
    folder = checkpoints.prepare_directory(output_dir, "OUTPUT_DIR")
    first = jax.process_index() == 0
    with files.held_alone(folder, "OUTPUT_DIR") if first else contextlib.nullcontext():
        material = _gather(sources, config, folder)
        if first:
            print(_write(material, sources, config, folder))
            print(f"finished in {time.monotonic() - began:.0f} s")
    return 0


@dataclasses.dataclass(frozen=True)
class Material:
    """Scored answers by label and seed, and by label what damaged answers do to them."""

    scored: Mapping[str, Sequence[Sequence[Any]]]
    effects: Mapping[str, Sequence[Any]]


def _sources(flags: Flags) -> list[Source]:
    from lmirl_jax import files
    from lmirl_jax.data import formats

    runs = paths_by_label(configuration.macro("RUNS", hint=Runs))
    found: list[Source] = []
    for label, paths in runs.items():
        for seed, path in enumerate(paths):
            file = files.absolute(path)
            if file.suffix in (*formats.JSON, formats.PARQUET) or file.is_file():
                found.append(ScoredFile(label, seed, file))
            else:
                checkpoint = add_run(flags, path)
                found.append(configuration.configured(RewardingRun)(label, seed, checkpoint))
    if not any(isinstance(source, RewardingRun) for source in found):
        check_without_run(flags)
    return found


def _check(sources: Sequence[Source], config: ReportConfig) -> None:
    """Raises a UserError, before anything is made, for what would make the report fail or mislead."""
    from lmirl_jax.evaluation.sweep_cells import prompts_of
    from lmirl_jax.types import UserError

    runs = [source for source in sources if isinstance(source, RewardingRun)]
    labels = list(dict.fromkeys(run.label for run in runs))
    if config.answers_of is not None and config.answers_of not in labels:
        raise UserError(
            f"ANSWERS_OF={config.answers_of!r} is no run: choose among {', '.join(labels) or 'none'}, or None for each one's own"
        )
    for number, source in enumerate(sources):
        if str(source) in [str(other) for other in sources[:number]]:
            raise UserError(f"RUNS names {source} twice: it would count as two; name it once")
    for source in sources:
        if isinstance(source, ScoredFile) and not source.path.is_file():
            raise UserError(f"RUNS: no file at {source}: name a run, or what lmirl score wrote")
    if runs and config.metric is not None:
        _check_metric(runs[0], config.metric)
    for run in runs[1:]:
        if prompts_of(run.data.examples) != prompts_of(runs[0].data.examples):
            raise UserError(
                f"RUNS: {run} and {runs[0]} have other prompts in split {run.data.split}: compare runs of one task"
            )


def _check_metric(run: RewardingRun, metric: str) -> None:
    from lmirl_jax.configuration_errors import nearest
    from lmirl_jax.data import answer_metrics
    from lmirl_jax.types import UserError

    example = run.data.examples[0]
    target = run.data.reference(example)
    names = answer_metrics(run.task.tasks[0], example["inputs_pretokenized"], target, target)
    if metric not in names:
        hint = nearest(metric, names) or f"; there are {', '.join(names) or 'none'}"
        raise UserError(f"METRIC: the task has no metric {metric!r}{hint}")


def _gather(sources: Sequence[Source], config: ReportConfig, folder: epath.Path) -> Material:
    """Answers, scores and damaged answers of each run: what is there already is read."""
    from lmirl_jax.rewards import effects_of_corruptions

    runs = [source for source in sources if isinstance(source, RewardingRun)]
    damaged = damaged_answers(runs[0], config) if runs else []
    pairs = write_damaged(damaged, folder / "damaged") if damaged else None
    shared = next((run for run in runs if run.label == config.answers_of), None)
    scored: dict[str, list[Any]] = {}
    tested: dict[str, list[Any]] = {run.label: [] for run in runs}
    for source in sources:
        if isinstance(source, ScoredFile):
            scored.setdefault(source.label, []).append(source.scored())
            continue
        _say(f"{source.label}, seed {source.seed}: answers and scores")
        answers = (shared or source).answers(folder / "answers")
        scored.setdefault(source.label, []).append(source.scored(answers, folder / "scored"))
        if pairs is not None:
            longest = longest_answer(source, damaged)
            found = source.scored(pairs, folder / "scored", longest)
            tested[source.label].extend(effects(damaged, found))
    of = len(runs[0].data) if runs else None
    kinds = config.damages()
    counts = collections.Counter(run.label for run in runs)
    found = {label: effects_of_corruptions(own, kinds, of, counts[label]) for label, own in tested.items()}
    return Material(scored, found)


def _write(material: Material, sources: Sequence[Source], config: ReportConfig, folder: epath.Path) -> str:
    """Writes report.html, report.json and correlations.csv; returns the verdict and the report's path."""
    from lmirl_jax import reports, rewards
    from lmirl_jax.evaluation.sweep_tables import write_csv, write_json
    from lmirl_jax.reports.trust_verdict import trust_verdict

    _say("correlations, their intervals and tests")
    page = folder / "report.html"
    findings = reports.trust_report(
        page,
        scored=material.scored,
        corruptions=material.effects,
        settings=_facts(sources, config),
        metric=config.metric,
        lead=_lead(sources),
    )
    write_json(folder / "report.json", {"settings": _facts(sources, config), **findings})
    write_csv(folder / "correlations.csv", rewards.correlation_rows(findings))
    return "\n".join([*trust_verdict(findings), "", f"report: {page}"])


def _facts(sources: Sequence[Source], config: ReportConfig) -> dict[str, str | list[str]]:
    from lmirl_jax import evaluation
    from lmirl_jax.evaluation.evaluator import describe_prompts

    facts: dict[str, str | list[str]] = {}
    runs = [source for source in sources if isinstance(source, RewardingRun)]
    if runs:
        one = runs[0]
        whose = f"of {config.answers_of}" if config.answers_of else "each run's own"
        facts = {
            "Task": f"{one.data.name}, split {one.data.split}, {describe_prompts(one.data, len(one.data))}",
            "Answers": f"{whose}, {one.generator.num_samples} a prompt at temperature {one.temperature:g}, "
            f"seed {one.generator.seed}",
            "Rewards": ", ".join(dict.fromkeys(_reward(run) for run in runs)),
            "Damages": f"{', '.join(config.damages()) or 'none'}; seed {config.corruption_seed}",
        }
        facts |= evaluation.signatures(one.data, len(one.data))
    for label in dict.fromkeys(source.label for source in sources):
        facts[label] = [str(source) for source in sources if source.label == label]
    return facts


def _reward(run: RewardingRun) -> str:
    settings = run.scorer(run.run).settings()
    gamma = f"gamma {settings['DISCOUNT']:g}"
    return gamma if settings["SHAPING"] is None else f"{gamma}, shaped by the {settings['SHAPING']}"


def _lead(sources: Sequence[Source]) -> str:
    labels = list(dict.fromkeys(source.label for source in sources))
    return f"The token rewards of {', '.join(labels)}, held against what the task says of the same answers."


def _say(text: str) -> None:
    import jax

    if jax.process_index() == 0:
        print(f"report: {text}", file=sys.stderr, flush=True)
