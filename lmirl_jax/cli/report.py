"""`lmirl report`: writes a page on whether the rewards of runs can be trusted."""

import collections
import dataclasses
import time
from collections.abc import Mapping, Sequence

import jax
from etils import epath

from lmirl_jax import configuration, data, evaluation, files, locks, reports, rewards
from lmirl_jax.arguments import Path
from lmirl_jax.cli.configure import add_run, check_without_run, configure_without_run
from lmirl_jax.cli.flags import Flags
from lmirl_jax.cli.processes import say
from lmirl_jax.cli.report_plan import (
    ReportConfig,
    RewardingRun,
    ScoredFile,
    damage_answers,
    longest_answer,
    pair_effects,
    write_damaged_answers,
)
from lmirl_jax.cli.sweep_plan import Runs, check_output_dir, paths_by_label
from lmirl_jax.configuration_errors import nearest
from lmirl_jax.data import formats
from lmirl_jax.evaluation.evaluator import describe_prompts
from lmirl_jax.evaluation.sweep_cells import prompts_of
from lmirl_jax.evaluation.sweep_tables import write_csv, write_json
from lmirl_jax.reports.trust_verdict import trust_verdict
from lmirl_jax.types import UserError

RUN_FILE = "gin/runs/report.gin"
Source = RewardingRun | ScoredFile


@dataclasses.dataclass(frozen=True)
class Material:
    """The material of the page.

    Args:
        scored: for each label, the scored answers of each seed.
        effects: for each label, the effects of damages on the reward of an answer.
    """

    scored: Mapping[str, Sequence[Sequence[rewards.ScoredAnswer]]]
    effects: Mapping[str, Sequence[rewards.CorruptionEffect]]


def main(flags: Flags) -> int:
    began = time.monotonic()
    configure_without_run(flags, RUN_FILE, "RUNS", "OUTPUT_DIR")
    config = configuration.with_configuration(ReportConfig)()
    output_dir = configuration.macro("OUTPUT_DIR", hint=Path)
    sources = _sources(flags)
    _check(sources, config)
    names = ("report.html", "report.json", "correlations.csv")
    check_output_dir(output_dir, names, [str(one) for one in sources])
    folder = files.prepare_directory(output_dir, "OUTPUT_DIR")
    with locks.lock_directory(folder, "OUTPUT_DIR"):
        material = _gather(sources, config, folder)
        if jax.process_index() == 0:
            print(_write(material, sources, config, folder))
            print(f"finished in {time.monotonic() - began:.0f} s")
    return 0


def _sources(flags: Flags) -> list[Source]:
    """The runs and files that RUNS names."""
    sources: list[Source] = []
    for label, paths in paths_by_label(configuration.macro("RUNS", hint=Runs)).items():
        for seed, path in enumerate(paths):
            file = files.absolute_path(path)
            if file.suffix in (*formats.JSON, formats.PARQUET) or file.is_file():
                sources.append(ScoredFile(label, seed, file))
            else:
                checkpoint = add_run(flags, path)
                sources.append(configuration.with_configuration(RewardingRun)(label, seed, checkpoint))
    if not any(isinstance(source, RewardingRun) for source in sources):
        check_without_run(flags)
    return sources


def _check(sources: Sequence[Source], config: ReportConfig) -> None:
    """Raises a UserError, before anything is computed, for settings with which the report would fail or mislead."""
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
        if prompts_of(run.prompts.examples) != prompts_of(runs[0].prompts.examples):
            raise UserError(
                f"RUNS: {run} and {runs[0]} have other prompts in split {run.prompts.split}: compare runs of one task"
            )


def _check_metric(run: RewardingRun, metric: str) -> None:
    example = run.prompts.examples[0]
    target = run.prompts.reference(example)
    names = data.answer_metrics(run.task.tasks[0], example["inputs_pretokenized"], target, target)
    if metric not in names:
        hint = nearest(metric, names) or f"; there are {', '.join(names) or 'none'}"
        raise UserError(f"METRIC: the task has no metric {metric!r}{hint}")


def _gather(sources: Sequence[Source], config: ReportConfig, folder: epath.Path) -> Material:
    """Makes the answers, scores and damaged answers of each run, or reads those that exist."""
    runs = [source for source in sources if isinstance(source, RewardingRun)]
    damaged = damage_answers(runs[0], config) if runs else []
    pairs = write_damaged_answers(damaged, folder / "damaged") if damaged else None
    shared = next((run for run in runs if run.label == config.answers_of), None)
    scored: dict[str, list[Sequence[rewards.ScoredAnswer]]] = {}
    tested: dict[str, list[tuple[rewards.ScoredAnswer, rewards.ScoredAnswer, rewards.Corruption]]] = {
        run.label: [] for run in runs
    }
    for source in sources:
        if isinstance(source, ScoredFile):
            scored.setdefault(source.label, []).append(source.read())
            continue
        say("report", f"{source.label}, seed {source.seed}: answers and scores")
        answers = (shared or source).answers(folder / "answers")
        scored.setdefault(source.label, []).append(source.score(answers, folder / "scored"))
        if pairs is not None:
            longest = longest_answer(source, damaged)
            tested[source.label].extend(
                pair_effects(damaged, source.score(pairs, folder / "scored", longest))
            )
    count = len(runs[0].prompts) if runs else None
    kinds, seeds = config.damages(), collections.Counter(run.label for run in runs)
    of_labels = {
        label: rewards.effects_of_corruptions(cases, kinds, count, seeds[label])
        for label, cases in tested.items()
    }
    return Material(scored, of_labels)


def _write(material: Material, sources: Sequence[Source], config: ReportConfig, folder: epath.Path) -> str:
    """Writes report.html, report.json and correlations.csv; returns the verdict and the report's path."""
    say("report", "correlations, their intervals and tests")
    page = folder / "report.html"
    findings = reports.trust_report(
        page,
        scored=material.scored,
        corruptions=material.effects,
        steps=config.steps(material.scored),
        settings=_facts(sources, config),
        metric=config.metric,
        lead=_lead(sources),
    )
    write_json(folder / "report.json", {"settings": _facts(sources, config), **findings})
    write_csv(folder / "correlations.csv", rewards.correlation_rows(findings))
    return "\n".join([*trust_verdict(findings), "", f"report: {page}"])


def _facts(sources: Sequence[Source], config: ReportConfig) -> dict[str, str | list[str]]:
    facts: dict[str, str | list[str]] = {}
    runs = [source for source in sources if isinstance(source, RewardingRun)]
    if runs:
        one = runs[0]
        whose = f"of {config.answers_of}" if config.answers_of else "each run's own"
        facts = {
            "Task": f"{one.prompts.name}, split {one.prompts.split}, {describe_prompts(one.prompts, len(one.prompts))}",
            "Answers": f"{whose}, {one.generator.num_samples} a prompt at temperature {one.temperature:g}, "
            f"seed {one.generator.seed}",
            "Rewards": ", ".join(dict.fromkeys(_reward(run) for run in runs)),
            "Damages": f"{', '.join(config.damages()) or 'none'}; seed {config.corruption_seed}",
        }
        facts |= evaluation.signatures(one.prompts, len(one.prompts))
    for label in dict.fromkeys(source.label for source in sources):
        facts[label] = [str(source) for source in sources if source.label == label]
    return facts


def _reward(run: RewardingRun) -> str:
    settings = run.scorer(run.policy).settings()
    gamma = f"gamma {settings['DISCOUNT']:g}"
    return gamma if settings["SHAPING"] is None else f"{gamma}, shaped by the {settings['SHAPING']}"


def _lead(sources: Sequence[Source]) -> str:
    labels = list(dict.fromkeys(source.label for source in sources))
    return f"The token rewards of {', '.join(labels)}, held against what the task says of the same answers."
