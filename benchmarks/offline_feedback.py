"""Offline reinforcement learning from a noisy labeller's preferences, on `operation_chains`.

    launch/local.sh python benchmarks/offline_feedback.py --folder=/tmp/offline_feedback [--size=2000] [--seeds=0]
        [--start_updates=1500] [--updates=200] [--flip=0.1] [--abstain=0.2] [--pairs=2] [--arms=clone,...]

A tiny T5 is trained from random parameters on the first SIZE problems, and 8 answers to each are sampled at temperature 1: the
offline data, without labels. A labeller that compares last numbers, errs in FLIP and abstains in ABSTAIN of the comparisons,
prefers one of two answers in PAIRS pairs a problem. An ensemble of three reward heads learns from that (Bradley-Terry) and
relabels every answer: its reward is sigmoid(R - median R), and its label whether that is above a half. Every arm goes on from
the first run for the same number of updates:

    clone             maximum likelihood on all answers
    filtered          maximum likelihood on the half with the higher rewards
    labelled          labelled IQLearn on labels and rewards
    ilql              ILQL on rewards; its policy imitates all, and is sampled with GUIDE_WEIGHT
    advantage         the same with BETA, advantage-weighted likelihood, sampled without a guide
    *_constant        the same with a reward of 1 for every answer: what the learner does without the feedback
    *_oracle          the same with the checker's labels and rewards

Everything is one `lmirl` command after the other; what is finished is not made again, and a folder of step_credit.py gives its
first run. Prints a JSON object: of each arm the share of right last numbers on 500 test problems, greedy and of 4 samples; how
well the learned reward tells right samples from wrong ones (AUC, over all and within a problem); and two curves of the learned
reward against the truth as more is made of it: best of n samples of the first run, and ILQL at several guide weights.
"""

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from chain_runs import LIKELIHOOD, MLE, TINY, ChainRuns, Rows, read, write
from provenance import provenance

from lmirl_jax.rewards import read_scored
from lmirl_jax.statistics.auc import auc
from lmirl_jax.tasks import operation_chains

FINETUNE, ILQL = ["runs/finetune", TINY, MLE], ["runs/ilql", TINY]
GUIDE_WEIGHT, BETA = 4.0, 3.0
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
    "filtered_oracle": ("right", FINETUNE, {}),
    "labelled_oracle": ("labels_oracle", ["runs/labelled_iqlearn", TINY], {}),
    "ilql_oracle": ("rewards_oracle", ILQL, {"GUIDE_WEIGHT": GUIDE_WEIGHT}),
    "advantage_oracle": ("rewards_oracle", ILQL, {"GUIDE_WEIGHT": 0.0, "BETA": BETA}),
}


class Feedback(ChainRuns):
    """The arms of one seed."""

    def judge(self, asked: argparse.Namespace) -> None:
        """The preferences of the labeller, and the reward model that learns from them."""
        noise = {"FLIP_RATE": asked.flip, "ABSTAIN_RATE": asked.abstain, "PAIRS_PER_PROMPT": asked.pairs}
        self.label("preferences", {"FORM": "preferences"} | noise)
        settings = {"LEARNING_RATE": 3e-4, "WARMUP_STEPS": 20, "BATCH_SIZE": 64}
        self.train_on("judge", "preferences", ["runs/reward_model", TINY], settings, asked.updates)

    def relabel(self) -> dict[str, float]:
        """The files that arms learn from; returns how good the rewards in them are."""
        learned = {"FORM": "rewards", "REWARD_CHECKPOINT_PATH": str(self.folder / "judge")}
        self.label("judged", learned | {"DROP_DUPLICATES": False})
        answers = [row | {"right": self.is_right(row)} for row in read(self.file("judged"))]
        middle = float(np.median([row["reward"] for row in answers]))
        for row in answers:
            row["learned"] = 1 / (1 + math.exp(middle - row["reward"]))
        bare = [{"inputs": row["inputs"], "targets": row["targets"]} for row in answers]
        self.save("all", bare)
        self.save("filtered", [one for one, row in zip(bare, answers, strict=True) if row["learned"] >= 0.5])
        self.save("right", [one for one, row in zip(bare, answers, strict=True) if row["right"]])
        rewards = {"learned": [row["learned"] for row in answers], "constant": [1.0] * len(answers)}
        rewards["oracle"] = [float(row["right"]) for row in answers]
        for name, values in rewards.items():
            rewarded = [one | {"reward": value} for one, value in zip(bare, values, strict=True)]
            self.save(f"rewards_{name}", rewarded)
            self.save(f"labels_{name}", [row | {"label": row["reward"] >= 0.5} for row in rewarded])
        within: dict[str, list[tuple[float, bool]]] = {}
        for row in answers:
            within.setdefault(row["inputs"], []).append((row["reward"], row["right"]))
        of_problems = [
            rewards_tell(group) for group in within.values() if len({right for _, right in group}) == 2
        ]
        return {
            "answers": len(answers),
            "right": round(float(np.mean([row["right"] for row in answers])), 4),
            "right_of_filtered": round(
                float(np.mean([row["right"] for row in answers if row["learned"] >= 0.5])), 4
            ),
            "auc": round(rewards_tell([(row["reward"], row["right"]) for row in answers]), 4),
            "auc_within_a_problem": round(float(np.mean(of_problems)), 4),
            "preferences": sum(1 for _ in read(self.file("preferences"))),
        }

    def save(self, name: str, lines: Rows) -> None:
        # A run that goes on wants the very file that it began with.
        if not self.file(name).exists():
            write(self.file(name), lines)

    @staticmethod
    def is_right(row: Mapping[str, Any]) -> bool:
        return operation_chains.check(row["inputs"], row["targets"]).correct

    def best_of_n(self) -> list[dict[str, float]]:
        """The mean learned reward and the truth of the answer with the highest learned reward of n, over all choices of n."""
        self.infer("start", "test", "draws", DRAWS, 1.0)
        groups: dict[str, list[tuple[float, bool]]] = {}
        for answer in read_scored(self.score("draws_judged", "judge", "draws")):
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
            answers = list(read_scored(self.score(f"{name}_judged", "judge", name)))
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


def rewards_tell(judged: list[tuple[float, bool]]) -> float:
    """The AUC of right answers against wrong ones by their rewards."""
    sides = ([reward for reward, right in judged if right is side] for side in (True, False))
    return auc(*map(np.array, sides))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--start_updates", type=int, default=1500)
    parser.add_argument("--updates", type=int, default=200)
    parser.add_argument("--flip", type=float, default=0.1)
    parser.add_argument("--abstain", type=float, default=0.2)
    parser.add_argument("--pairs", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    asked, cells = options(), {}
    for seed in map(int, asked.seeds.split(",")):
        cell = Feedback(asked.folder, asked.size, seed)
        cell.start(asked.start_updates)
        cell.judge(asked)
        rewards, arms = cell.relabel(), {"start": cell.accuracy("start")}
        for name in asked.arms.split(","):
            data, files, settings = ARMS[name]
            cell.train_on(f"offline_{name}", data, files, LIKELIHOOD | settings, asked.updates)
            arms[name] = cell.accuracy(f"offline_{name}")
        found = {"rewards": rewards, "arms": arms, "best_of_n": cell.best_of_n()}
        if "ilql" in arms:
            found["guides"] = cell.guides()
        cells[f"{asked.size}-{seed}"] = found | {"seconds": cell.seconds}
    print(json.dumps(provenance(asked) | {"cells": cells}, indent=1))


if __name__ == "__main__":
    main()
