"""The sources of a report on rewards: runs that answer, score and are tested, or files of scored answers."""

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import jax
from etils import epath
from jax.sharding import Mesh

from lmirl_jax import data as data_room
from lmirl_jax import files, rewards, runs
from lmirl_jax.argument_rules import GivenByCaller, Is
from lmirl_jax.arguments import Corruption, Lengths, NonNegative, Seed, Share, Text, check_arguments
from lmirl_jax.cli import infer, line_file
from lmirl_jax.cli import score as score_command
from lmirl_jax.cli.data_sets import ReferencedSplit, TaskOrMixture
from lmirl_jax.cli.processes import wait_for_all
from lmirl_jax.evaluation import Answers, Generator
from lmirl_jax.evaluation.evaluator import DatasetWithMetrics
from lmirl_jax.labelled.step_scorers import ScoresSteps, check_made
from lmirl_jax.rewards import ScoredAnswer
from lmirl_jax.rewards.trust_findings import Runs
from lmirl_jax.types import ModelConfig, Task, UserError


@dataclasses.dataclass(frozen=True)
class DamagedAnswer:
    """A prompt, its target, and copies of the target with one error in each; `messages` where the prompt is a conversation."""

    inputs: str
    targets: str
    damages: Sequence[rewards.Corruption]
    messages: Any = None


@check_arguments
@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The settings of the report; gin/runs/report.gin explains each of them."""

    metric: Text | None = None
    answers_of: Text | None = None
    # The corruptions by name; None for `rewards.CORRUPTIONS`.
    corruptions: Mapping[Text, Corruption] | None = None
    corruption_check: Callable[[str, str], Any] | None = None
    corruption_seed: Seed = 0
    # The checker of steps, and scores that it judges beside those of the tokens.
    gold_steps: ScoresSteps | None = None
    step_scores: Mapping[Text, ScoresSteps] | None = None

    def __post_init__(self):
        if self.step_scores and self.gold_steps is None:
            raise UserError(
                f"STEP_SCORES {', '.join(self.step_scores)} are held to a checker of steps: set GOLD_STEPS too, such as "
                "@operation_chains.step_scores"
            )
        for name, scorer in [("GOLD_STEPS", self.gold_steps), *(self.step_scores or {}).items()]:
            check_made(scorer, name)

    def steps(self, scored: Runs) -> list[rewards.StepFinding] | None:
        """How well scores of steps find first wrong ones; None without a checker of steps."""
        if self.gold_steps is None:
            return None
        return rewards.step_findings(scored, self.gold_steps, self.step_scores)

    def damages(self) -> Mapping[str, Callable[..., rewards.Corruption | str | None]]:
        """The functions that damage an answer, by name."""
        return rewards.CORRUPTIONS if self.corruptions is None else self.corruptions


@dataclasses.dataclass(frozen=True)
class ScoredFile:
    """A file that `lmirl score` wrote: its answers have scores already, and there is no model to test."""

    label: str
    seed: int
    path: epath.Path

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> list[ScoredAnswer]:
        """Reads the scored answers of the file."""
        return list(rewards.read_scored(self.path, "RUNS"))


@check_arguments
@dataclasses.dataclass(frozen=True)
class RewardingRun:
    """A checkpoint that answers prompts and rewards answers, with its label, its seed's index and the settings of its config.gin.

    The name of each file that it makes depends on the settings behind the file. A file that exists is not made again.
    """

    label: Annotated[str, GivenByCaller()]
    seed: Annotated[int, GivenByCaller()]
    checkpoint: Annotated[epath.Path, GivenByCaller()]
    model: ModelConfig
    mesh: Mesh
    task: Annotated[TaskOrMixture, Is(Task)]
    lengths: Lengths
    discount: Share
    data: Annotated[ReferencedSplit | None, Is(DatasetWithMetrics | None)]
    generator: Generator
    scorer: score_command.MakesScorer
    temperature: NonNegative = 1.0

    def __post_init__(self):
        if self.data is None:
            raise UserError(
                f"{self}: its task has no such split: set EVAL_SPLIT (--gin.EVAL_SPLIT=\"'train'\")"
            )
        self.generator.check(self.mesh)
        self.generator.check_samples(self.temperature)

    def __str__(self) -> str:
        return str(self.checkpoint)

    @property
    def prompts(self) -> ReferencedSplit:
        """The data set; the constructor makes sure that it exists."""
        assert self.data is not None
        return self.data

    @functools.cached_property
    def policy(self) -> runs.Policy:
        """The policy of the checkpoint, loaded when it is first needed."""
        return runs.load_policy(
            self.checkpoint, self.model, self.mesh, self.task, self.lengths, self.discount
        )

    def answers(self, folder: epath.Path) -> epath.Path:
        """Returns the file of the answers to all prompts, in the format of `lmirl infer`; makes the file unless it exists."""
        settings = infer.settings(self.checkpoint, self.prompts, self.generator, self.temperature)
        path = folder / f"{self._name}-{_digest(settings)}.jsonl"

        def answers(skip: int) -> Iterator[Answers]:
            policy = self.policy
            return self.generator(
                policy.graph, policy.params, self.mesh, self.prompts, self.temperature, skip
            )

        if not line_file.is_complete(path):
            infer.write_answers(path, settings, answers, len(self.prompts))
        return path

    def score(self, pairs: epath.Path, folder: epath.Path, longest: int = 0) -> list[ScoredAnswer]:
        """Scores the answers of a file, or reads the scores if they exist.

        Args:
            pairs: the file of answers.
            folder: the folder for the file of scores.
            longest: the length of the longest answer, in tokens, if it may exceed that of the training.
        """
        lengths = {**self.lengths, "targets": max(self.lengths["targets"], longest)}
        pair_file = data_room.PairFile(str(pairs), self.task, lengths)
        scorer = self.scorer(self.policy, lengths=lengths)
        path = folder / f"{self._name}-{_digest(score_command.settings(scorer, pair_file, self.task))}.jsonl"
        if not line_file.is_complete(path):
            score_command.write_scores(path, scorer, pair_file, self.task)
        return list(rewards.read_scored(path))

    @property
    def _name(self) -> str:
        letters = "".join(letter if letter.isalnum() else "_" for letter in self.label)
        return f"{letters}-{self.seed}"


def damage_answers(run: RewardingRun, config: ReportConfig) -> list[DamagedAnswer]:
    """Damages the targets of the split that the run answers; targets that cannot be damaged are left out."""
    answers = []
    for example in run.prompts.examples:
        inputs, targets = example["inputs_pretokenized"], run.prompts.reference(example)
        damages = rewards.corrupt(
            inputs,
            targets,
            config.damages(),
            seed=config.corruption_seed,
            is_right=config.corruption_check,
        )
        answers.append(DamagedAnswer(inputs, targets, damages, example.get("messages")))
    return [answer for answer in answers if answer.damages]


def longest_answer(run: RewardingRun, answers: Sequence[DamagedAnswer]) -> int:
    """The length of the longest target, damaged or not, EOS included; a repeated step may exceed all answers of the training."""
    texts = [text for answer in answers for text in (answer.targets, *(d.targets for d in answer.damages))]
    return 1 + max((len(run.task.output_vocabulary.encode(text)) for text in texts), default=0)


def write_damaged_answers(answers: Sequence[DamagedAnswer], folder: epath.Path) -> epath.Path:
    """Writes each target and its damaged copies as candidates of one prompt; the undamaged target comes first."""
    lines = [
        {
            **({"inputs": answer.inputs} if answer.messages is None else {"messages": answer.messages}),
            "candidates": [answer.targets, *(d.targets for d in answer.damages)],
        }
        for answer in answers
    ]
    path = folder / f"damaged-{_digest(lines)}.jsonl"
    if jax.process_index() == 0:
        with files.open_atomic(path) as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    wait_for_all()
    return path


def pair_effects(
    answers: Sequence[DamagedAnswer], scored: Sequence[ScoredAnswer]
) -> list[tuple[ScoredAnswer, ScoredAnswer, rewards.Corruption]]:
    """Pairs each original with each damaged answer and its damage, for `rewards.effects_of_corruptions`."""
    by_place = {(one.example, one.candidate): one for one in scored}
    return [
        (by_place[number, 0], by_place[number, candidate], damage)
        for number, answer in enumerate(answers)
        for candidate, damage in enumerate(answer.damages, start=1)
    ]


def _digest(value: Any) -> str:
    return files.digest(json.dumps(value, sort_keys=True))
