"""Learns from a policy's wrong answers, by preferences of whole answers and of steps, on `operation_chains`.

    launch/local.sh python benchmarks/step_credit.py --folder=/tmp/step_credit [--sizes=2000] [--seeds=0] [--arms=rft,...]
        [--start_updates=1500] [--updates=200] [--rollout_problems=100] [--spurious]

For every size and seed: a tiny T5 is trained from random parameters on the first SIZE problems (with --spurious, three in ten
of their answers have a line of no use); 8 answers to each of them are sampled at temperature 1, and a checker of the last
number says which are right. Every arm then goes on from that run for the same number of updates. `sft` is more of the same
demonstrations, `rft` has the right samples beside them, `advantage` weighs all samples by exp(3 A), A of ILQL's heads, `dpo`
prefers a right sample to a wrong one, `step_dpo_*` prefers it to the beginning of a wrong one up to the step with the lowest
score. Scores: the gold checker's (the first wrong step), random ones, four Monte-Carlo `rollouts` of the first run from every
step, and those of checkpoints that learnt from the samples and their last numbers alone: `log_prob` of the first run,
`log_ratio` of `rft_only` (right samples alone) to it, `iqlearn` (the progress of values of IQLearn on right samples),
`labelled` (that of labelled IQLearn on all samples and the demonstrations) and `prefix` (a reward model of labels). `labelled`
and `rft_only` are arms too.

Everything is one `lmirl` command after the other; what is finished is not made again. Prints a JSON object: of each run the
share of right last numbers on 500 test problems, greedy and of 4 samples; and for all scores of all runs how often the lowest
step is the first wrong one and their AUC of right steps against first wrong ones, over the samples with a wrong last number;
the same for those of the first problems, with four Monte-Carlo rollouts a step beside them.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chain_runs import LIKELIHOOD, MLE, TINY, ChainRuns, read, write
from provenance import provenance

from lmirl_jax import runs
from lmirl_jax.rewards import RolloutScores, ScoredAnswer, read_scored, step_findings
from lmirl_jax.tasks import operation_chains

# Of each score of steps: the run that gives it, the numbers of its tokens, and the reference.
SCORES = {
    "log_prob": ("start", "log_prob", None),
    "log_ratio": ("rft_only", "log_ratio", "start"),
    "iqlearn": ("iqlearn", "value", None),
    "labelled": ("labelled", "value", None),
    "prefix": ("prefix", "reward", None),
}
ROLLOUTS = 4  # from each step
FUNCTIONS = {"gold": "step_scores", "random": "random_step_scores"}
ARMS = (
    "sft",
    "rft",
    "rft_only",
    "labelled",
    "advantage",
    "dpo",
    *(f"step_dpo_{name}" for name in (*FUNCTIONS, "rollouts", *SCORES)),
)
# Of rates of 1e-5 to 3e-4, BETA .1 to 1, and a likelihood of the chosen answers beside it or none, what did best with the
# gold checker on the validation problems of one seed.
PREFERENCES = {"LEARNING_RATE": 3e-5, "BETA": 0.5, "WARMUP_STEPS": 20, "BATCH_SIZE": 64}
# What each run beside DPO's learns from, with which files.
LEARNT: Mapping[str, tuple[str, list[str], dict[str, Any]]] = {
    "sft": ("problems", ["runs/finetune", TINY, MLE], LIKELIHOOD),
    "rft": ("both", ["runs/finetune", TINY, MLE], LIKELIHOOD),
    "rft_only": ("right", ["runs/finetune", TINY, MLE], LIKELIHOOD),
    "iqlearn": ("right", ["runs/finetune", TINY, "objectives/iqlearn"], LIKELIHOOD | {"TD_WEIGHT": 0.1}),
    "labelled": ("labels_both", ["runs/labelled_iqlearn", TINY], LIKELIHOOD),
    "advantage": ("labels_both", ["runs/ilql", TINY], LIKELIHOOD | {"GUIDE_WEIGHT": 0.0, "BETA": 3.0}),
    "prefix": ("labels", ["runs/reward_model", TINY], LIKELIHOOD | {"FROM_PREFERENCES": False}),
}


class StepCredit(ChainRuns):
    """The arms of one number of problems and one seed, each of so many updates."""

    updates = 0

    def begin(self, updates: int, spurious: bool) -> None:
        """The first run, its samples, and the files that arms learn from."""
        self.start(updates, spurious)
        self.label("labels", {"FORM": "labels"})
        right = [row for row in read(self.file("labels")) if row["label"]]
        right = [{"inputs": row["inputs"], "targets": row["targets"]} for row in right]
        write(self.file("right"), right)
        problems = list(read(self.file("problems")))
        write(self.file("both"), [*problems, *right])
        write(
            self.file("labels_both"),
            [*[row | {"label": True} for row in problems], *read(self.file("labels"))],
        )

    def learn(self, name: str) -> None:
        data, files, settings = LEARNT[name]
        self.train_on(name, data, files, settings, self.updates)

    def scored(self, name: str) -> Path:
        """The scores of all samples' tokens under the run that gives this score of steps."""
        run, _, reference = SCORES[name]
        if run != "start":
            self.learn(run)
        return self.score(f"scored_{name}", run, "samples", reference)

    def arm(self, name: str) -> None:
        """Trains an arm."""
        if name in LEARNT:
            self.learn(name)
            return
        pairs = {"PAIRS_PER_PROMPT": 4}
        if name == "dpo":
            self.label("pairs_dpo", pairs | {"FORM": "preferences"})
        else:
            self.step_pairs(name, name.removeprefix("step_dpo_"), pairs | {"FORM": "step_preferences"})
        run = "runs/dpo" if name == "dpo" else "runs/step_dpo"
        self.train_on(name, f"pairs_{name}", [run, TINY], PREFERENCES, self.updates)

    def step_pairs(self, arm: str, scores: str, form: dict[str, Any]) -> None:
        """Right answers and the beginnings of wrong ones, up to the step with the lowest score."""
        if scores in SCORES:
            source = {"ANSWERS": str(self.scored(scores)), "STEP_SCORES": SCORES[scores][1]}
            self.label(f"pairs_{arm}", form | source)
            return
        if scores == "rollouts":
            start = {"ROLLOUT_CHECKPOINT_PATH": str(self.folder / "start"), "ROLLOUTS": ROLLOUTS}
            self.label(f"pairs_{arm}", form | start | {"STEP_SCORES": "@rewards.RolloutScores()"})
            return
        imports = "from __gin__ import dynamic_registration\nfrom lmirl_jax.tasks import operation_chains\n"
        gin = self.folder / f"{scores}.gin"
        gin.write_text(f"{imports}STEP_SCORES = @operation_chains.{FUNCTIONS[scores]}\n")
        self.label(f"pairs_{arm}", form, [str(gin)])

    def judge_scores(self, scores: list[str]) -> list[dict[str, Any]]:
        """How well scores of steps find the first wrong step of samples with a wrong last number."""
        kept = {name: [self.wrong_samples(name)] for name in scores}
        controls = {"random": operation_chains.random_step_scores}
        found = step_findings(kept, operation_chains.step_scores, controls)
        return [dataclasses.asdict(one) for one in found]

    def judge_rollouts(self, scores: list[str], problems: int) -> dict[str, Any]:
        """The same on the samples of the first problems alone, beside four rollouts of the first run from every step."""
        kept = {
            name: [[one for one in self.wrong_samples(name) if one.example < problems]] for name in scores
        }
        rollouts = RolloutScores(
            runs.load(self.folder / "start"), operation_chains.reward, ROLLOUTS, seed=self.seed
        )
        began = time.monotonic()
        found = step_findings(kept, operation_chains.step_scores, {"rollouts": rollouts})
        return {
            "scores": [dataclasses.asdict(one) for one in found],
            "seconds": round(time.monotonic() - began, 1),
        }

    def wrong_samples(self, scores: str) -> list[ScoredAnswer]:
        answers = read_scored(self.scored(scores))
        return [one for one in answers if not operation_chains.reward(one.inputs, one.targets)]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", default="2000")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--start_updates", type=int, default=1500)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--rollout_problems", type=int, default=100)
    parser.add_argument("--spurious", action="store_true")
    return parser.parse_args()


def main() -> None:
    asked, cells = options(), {}
    for size in map(int, asked.sizes.split(",")):
        for seed in map(int, asked.seeds.split(",")):
            cell = StepCredit(asked.folder, size, seed)
            cell.updates = asked.updates
            cell.begin(asked.start_updates, asked.spurious)
            arms, scores = {"start": cell.accuracy("start")}, []
            for name in asked.arms.split(","):
                cell.arm(name)
                arms[name] = cell.accuracy(name, "start")
                if name.removeprefix("step_dpo_") in SCORES:
                    scores.append(name.removeprefix("step_dpo_"))
            counts = {name: sum(1 for _ in read(cell.file(name))) for name in ("labels", "right")}
            cells[f"{size}-{seed}"] = {
                "rows": counts,
                "arms": arms,
                "scores": cell.judge_scores(scores),
                "rollouts": cell.judge_rollouts(scores, asked.rollout_problems),
                "seconds": cell.seconds,
            }
    print(json.dumps(provenance(asked) | {"cells": cells}, indent=1))


if __name__ == "__main__":
    main()
