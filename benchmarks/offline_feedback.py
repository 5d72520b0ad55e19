"""Offline reinforcement learning from a noisy labeller's preferences, on `operation_chains`.

    launch/local.sh python benchmarks/offline_feedback.py --folder=/tmp/offline_feedback [--size=2000] [--seeds=0]
        [--start_updates=1500] [--updates=300] [--prompts=6000] [--flip=0.1] [--abstain=0.2] [--pairs=3] [--keep=0.25]
        [--arms=clone,...]

A tiny T5 is trained from random parameters on the first SIZE problems. 8 answers to each of PROMPTS further problems, sampled
at temperature 1, are the offline data, without labels. A labeller that compares last numbers, errs in FLIP and abstains in
ABSTAIN of the comparisons, prefers one of two answers in up to PAIRS pairs a problem. Two rewards learn from that: `heads`, an
ensemble of three reward heads, and `returns`, the return of a soft Q-function whose differences are those of log pi
(Bradley-Terry without a reference). The second relabels every answer: its reward is sigmoid(R - q), q the quantile above which
the share KEEP of the answers lies, and its label whether that is above a half. Every arm goes on from the first run for the
same number of updates:

    clone             maximum likelihood on all answers
    filtered          maximum likelihood on the share with the higher rewards
    labelled          labelled IQLearn on labels and rewards
    ilql              ILQL on rewards; its policy imitates all, and is sampled with GUIDE_WEIGHT
    advantage         the same with BETA, advantage-weighted likelihood, sampled without a guide
    returns           the policy that learnt the preferences, as it is
    *_constant        the same with a reward of 1 for every answer: what the learner does without the feedback
    *_oracle          the same with the checker's labels and rewards

Everything is one `lmirl` command after the other; what is finished is not made again, and a folder of step_credit.py gives its
first run. Prints a JSON object: of each arm the share of right last numbers on 500 test problems, greedy and of 4 samples; how
well both rewards tell right samples from wrong ones (AUC, over all and within a problem); and two curves of the learned reward
against the truth as more is made of it: best of n samples of the first run, and ILQL at several guide weights.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from chain_runs import LIKELIHOOD, MLE, SAMPLES, TINY, ChainRuns, Rows, read, rows, write
from provenance import provenance

from lmirl_jax.rewards import read_scored
from lmirl_jax.statistics.auc import auc
from lmirl_jax.tasks import operation_chains

FINETUNE, ILQL = ["runs/finetune", TINY, MLE], ["runs/ilql", TINY]
GUIDE_WEIGHT, BETA = 4.0, 3.0
JUDGES = {
    "heads": (["runs/reward_model", TINY], {"LEARNING_RATE": 1e-3, "BATCH_SIZE": 64}),
    "returns": (
        ["runs/dpo", TINY],
        {"LEARNING_RATE": 1e-4, "BATCH_SIZE": 64, "REFERENCE_FREE": True, "SCORE": "return", "BETA": 0.5},
    ),
}
GUIDE_WEIGHTS = (0.0, 2.0, 4.0, 8.0, 16.0, 32.0)
DRAWS = 16  # samples of each test problem, of which the best are taken
BEST_OF = (1, 2, 4, 8, 16)
# What each arm learns from, with which files and settings.
ARMS: Mapping[str, tuple[str, list[str], dict[str, Any]]] = {
    "clone": ("all", FINETUNE, {}),
    "filtered": ("filtered", FINETUNE, {}),
    "labelled": ("labels_learned", ["runs/labelled_iqlearn", TINY], {}),
    "ilql": ("rewards_learned", ILQL, {"GUIDE_WEIGHT": GUIDE_WEIGHT}),
    "advantage": ("rewards_learned", ILQL, {"GUIDE_WEIGHT": 0.0, "BETA": BETA}),
    "ilql_constant": ("rewards_constant", ILQL, {"GUIDE_WEIGHT": GUIDE_WEIGHT}),
    "advantage_constant": ("rewards_constant", ILQL, {"GUIDE_WEIGHT": 0.0, "BETA": BETA}),
    "filtered_oracle": ("offline_right", FINETUNE, {}),
    "labelled_oracle": ("labels_oracle", ["runs/labelled_iqlearn", TINY], {}),
    "ilql_oracle": ("rewards_oracle", ILQL, {"GUIDE_WEIGHT": GUIDE_WEIGHT}),
    "advantage_oracle": ("rewards_oracle", ILQL, {"GUIDE_WEIGHT": 0.0, "BETA": BETA}),
}


class Feedback(ChainRuns):
    """The arms of one seed."""

    def judges(self, asked: argparse.Namespace) -> dict[str, Any]:
        """The offline data, the preferences of the labeller, and what learns from them; returns how good the rewards are."""
        first = self.size
        prompts = operation_chains.examples("train")[first : first + asked.prompts]
        write(self.file("offline_prompts"), rows(prompts))
        self.infer("start", "offline_prompts", "offline", SAMPLES, 1.0)
        noise = {"FLIP_RATE": asked.flip, "ABSTAIN_RATE": asked.abstain, "PAIRS_PER_PROMPT": asked.pairs}
        answers = {"ANSWERS": str(self.file("offline"))}
        self.label("preferences", {"FORM": "preferences"} | noise | answers)
        found: dict[str, Any] = {"preferences": sum(1 for _ in read(self.file("preferences")))}
        for name, (files, settings) in JUDGES.items():
            self.train_on(
                f"judge_{name}", "preferences", files, settings | {"WARMUP_STEPS": 20}, asked.updates
            )
            run = {"FORM": "rewards", "REWARD_CHECKPOINT_PATH": str(self.folder / f"judge_{name}")}
            self.label(f"judged_{name}", run | answers | {"DROP_DUPLICATES": False})
            found[name] = quality(list(read(self.file(f"judged_{name}"))))
        return found

    def relabel(self, keep: float) -> dict[str, float]:
        """Writes the files that arms learn from; returns how many answers are right."""
        answers = list(read(self.file("judged_returns")))
        cut = float(np.quantile([row["reward"] for row in answers], 1 - keep))
        learned = [round(1 / (1 + math.exp(min(cut - row["reward"], 700.0))), 6) for row in answers]
        right = [is_right(row) for row in answers]
        bare = [{"inputs": row["inputs"], "targets": row["targets"]} for row in answers]
        self.save("all", bare)
        self.save("filtered", [one for one, reward in zip(bare, learned, strict=True) if reward >= 0.5])
        self.save("offline_right", [one for one, good in zip(bare, right, strict=True) if good])
        rewards = {"learned": learned, "constant": [1.0] * len(answers), "oracle": list(map(float, right))}
        for name, values in rewards.items():
            rewarded = [one | {"reward": value} for one, value in zip(bare, values, strict=True)]
            self.save(f"rewards_{name}", rewarded)
            self.save(f"labels_{name}", [row | {"label": row["reward"] >= 0.5} for row in rewarded])
        kept = [good for good, reward in zip(right, learned, strict=True) if reward >= 0.5]
        return {
            "answers": len(answers),
            "right": round(float(np.mean(right)), 4),
            "right_of_filtered": round(float(np.mean(kept)), 4),
        }

    def save(self, name: str, lines: Rows) -> None:
        # A run that goes on wants the very file that it began with.
        if not self.file(name).exists():
            write(self.file(name), lines)

    def best_of_n(self) -> list[dict[str, float]]:
        """The mean learned reward and the truth of the answer with the highest learned reward of n, over all choices of n."""
        self.infer("start", "test", "draws", DRAWS, 1.0)
        groups: dict[str, list[tuple[float, bool]]] = {}
        for answer in read_scored(self.score("draws_judged", "judge_returns", "draws")):
            right = operation_chains.check(answer.inputs, answer.targets).correct
            groups.setdefault(answer.inputs, []).append((answer.total, right))
        table = np.array([sorted(group) for group in groups.values()])
        curve = []
        for n in BEST_OF:
            # The answer of rank k is the best of n where all others are of lower rank.
            chances = np.array([math.comb(k, n - 1) for k in range(DRAWS)]) / math.comb(DRAWS, n)
            proxy, truth = (table * chances[None, :, None]).sum(axis=1).mean(axis=0)
            curve.append({"n": n, "learned_reward": round(float(proxy), 4), "right": round(float(truth), 4)})
        return curve

    def guides(self) -> list[dict[str, float]]:
        """The learned reward and the truth of ILQL's samples at each guide weight."""
        curve = []
        for weight in GUIDE_WEIGHTS:
            name = f"guided_{weight:g}"
            self.infer("offline_ilql", "test", name, 2, 1.0, {"GUIDE_WEIGHT": weight})
            answers = list(read_scored(self.score(f"{name}_judged", "judge_returns", name)))
            right = [operation_chains.check(one.inputs, one.targets).correct for one in answers]
            proxy = float(np.mean([one.total for one in answers]))
            curve.append(
                {
                    "guide_weight": weight,
                    "learned_reward": round(proxy, 4),
                    "right": round(float(np.mean(right)), 4),
                }
            )
        return curve


def is_right(row: Mapping[str, Any]) -> bool:
    return operation_chains.check(row["inputs"], row["targets"]).correct


def quality(judged: Rows) -> dict[str, float]:
    """The AUC of right answers against wrong ones by their rewards, over all and as a mean over problems with both."""
    groups: dict[str, list[tuple[float, bool]]] = {}
    for row in judged:
        groups.setdefault(row["inputs"], []).append((row["reward"], is_right(row)))
    within = [tells(group) for group in groups.values() if len({right for _, right in group}) == 2]
    everything = [pair for group in groups.values() for pair in group]
    return {"auc": round(tells(everything), 4), "auc_within_a_problem": round(float(np.mean(within)), 4)}


def tells(judged: list[tuple[float, bool]]) -> float:
    sides = ([reward for reward, right in judged if right is side] for side in (True, False))
    return auc(*map(np.array, sides))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--start_updates", type=int, default=1500)
    parser.add_argument("--updates", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=6000)
    parser.add_argument("--flip", type=float, default=0.1)
    parser.add_argument("--abstain", type=float, default=0.2)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--keep", type=float, default=0.25)
    return parser.parse_args()


def main() -> None:
    asked, cells = options(), {}
    for seed in map(int, asked.seeds.split(",")):
        cell = Feedback(asked.folder, asked.size, seed)
        cell.start(asked.start_updates)
        rewards = cell.judges(asked) | cell.relabel(asked.keep)
        arms = {"start": cell.accuracy("start"), "returns": cell.accuracy("judge_returns", "start")}
        for name in asked.arms.split(","):
            data, files, settings = ARMS[name]
            cell.train_on(f"offline_{name}", data, files, LIKELIHOOD | settings, asked.updates)
            arms[name] = cell.accuracy(f"offline_{name}", "start")
        found = {"rewards": rewards, "arms": arms, "best_of_n": cell.best_of_n()}
        if "ilql" in arms:
            found["guides"] = cell.guides()
        cells[f"{asked.size}-{seed}"] = found | {"seconds": cell.seconds}
    print(json.dumps(provenance(asked) | {"cells": cells}, indent=1))


if __name__ == "__main__":
    main()
