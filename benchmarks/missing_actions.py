"""Semi-supervised imitation where most answers lack their operations, on `operation_chains`.

    launch/local.sh python benchmarks/missing_actions.py --folder=/tmp/missing_actions [--size=8000] [--seeds=0]
        [--updates=1000] [--known_updates=1500] [--inverse_updates=600] [--arms=tenth:mle,...]

Of SIZE problems a tenth has complete answers, the others only the result of each line, or only the last one. A tiny T5 first
learns to write what is known of all problems from random parameters; the inverse model goes on from there, and learns from the
tenth to write what is missing from the prompt and the results. A fill is kept if its lines compute and follow from one another,
and weighs as much as it is likely. Every arm learns from random parameters, by maximum likelihood or IQLearn:

    tenth        the complete answers alone
    known        the same, from the run that learnt the results of each line: what these give without an inverse model
    forward      and the answers of the policy that learnt them, which has not seen the results (self-training)
    values       and the fills of the results of each line that are kept, with their weights
    values_raw   and all of them, each with weight 1
    answers      the same as values where only the last result is known
    all          all complete answers: the oracle
    known_*      values and all from the run that known goes on from

Every arm makes the same number of updates. Everything is one `lmirl` command after the other; what is finished is not made
again. Prints a JSON object: how many fills are kept and right, of each arm the share of right last numbers on 500 test
problems, greedy and of 4 samples, and the share of the gap between the tenth and all that it closes.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chain_runs import FIRST, MLE, TINY, ChainRuns, Rows, read, rows, write
from provenance import provenance

from lmirl_jax.tasks import operation_chains

LEARNERS = {"mle": [MLE], "iqlearn": ["objectives/iqlearn"]}
TD_WEIGHT = 0.1
ARMS = (
    *("tenth:mle", "known:mle", "forward:mle", "values:mle", "answers:mle", "all:mle"),
    *("known_values:mle", "known_all:mle"),
    *("tenth:iqlearn", "values:iqlearn", "all:iqlearn"),
)
# Of each view: the function that gives an answer with its gaps, and the one that gives what is known of it.
VIEWS = {
    "values": (operation_chains.with_gaps, operation_chains.values_only),
    "answers": (operation_chains.with_one_gap, lambda answer: answer.rpartition("=")[2]),
}
CONSISTENT = "lmirl_jax.tasks.operation_chains.consistent"
LENGTHS = {"inputs": 64, "targets": 64}


class Missing(ChainRuns):
    """The arms of one seed."""

    def prepare(self) -> None:
        """The problems, of which a tenth is complete."""
        examples = operation_chains.examples("train")[: self.size]
        self.problems = examples
        complete, self.rest = examples[: self.size // 10], examples[self.size // 10 :]
        write(self.file("test"), rows(operation_chains.examples("test")))
        write(self.file("tenth"), rows(complete))
        write(self.file("all"), rows(examples))
        write(self.file("prompts"), [{"inputs": prompt} for prompt, _ in self.rest])

    def fill(self, view: str, asked: argparse.Namespace) -> dict[str, Any]:
        """Trains the inverse model of a view and completes the other answers with it; returns how good the fills are."""
        with_gaps, known = VIEWS[view]
        write(self.file(f"known_{view}"), rows([(prompt, known(answer)) for prompt, answer in self.problems]))
        finetune, lengths = ["runs/finetune", TINY, MLE], {"TASK_FEATURE_LENGTHS": LENGTHS}
        short = {"TASK_FEATURE_LENGTHS": {"inputs": 14, "targets": 20}}
        self.train(f"known_{view}", f"known_{view}", finetune, FIRST | short, asked.known_updates)
        named = {"VIEW": f"lmirl_jax.tasks.operation_chains.{with_gaps.__name__}"}
        self.command("gaps", f"inverse_{view}_data", "tenth", named)
        start = {"INITIAL_CHECKPOINT_PATH": str(self.folder / f"known_{view}")}
        settings = FIRST | lengths | start
        self.train(f"inverse_{view}", f"inverse_{view}_data", finetune, settings, asked.inverse_updates)
        write(
            self.file(f"gapped_{view}"), rows([(prompt, with_gaps(answer)) for prompt, answer in self.rest])
        )
        self.command("gaps", f"asked_{view}", f"gapped_{view}", {})
        self.infer(f"inverse_{view}", f"asked_{view}", f"fills_{view}", 1, 0.0)
        self.command("fill", f"filled_{view}", f"fills_{view}", {"CHECKER": CONSISTENT})
        self.command("fill", f"filled_{view}_raw", f"fills_{view}", {"CONFIDENCE": None})
        return {
            "kept": self.quality(f"filled_{view}"),
            "all_fills": self.quality(f"filled_{view}_raw"),
            "asked": len(self.rest),
        }

    def command(self, run: str, name: str, answers: str, settings: Mapping[str, Any]) -> None:
        paths = {"ANSWERS": str(self.file(answers)), "OUTPUT_PATH": str(self.file(name))}
        if not self.file(name).exists():
            self.lmirl(name, "label", [f"runs/{run}"], paths | dict(settings))

    def quality(self, name: str) -> dict[str, float]:
        """The number of answers of a file, the share of wholly right ones, and their mean weight."""
        found = list(read(self.file(name)))
        right = [operation_chains.check(row["inputs"], row["targets"]).valid for row in found]
        weights = [row.get("weight", 1.0) for row in found]
        shares = {
            "right": sum(right) / max(len(found), 1),
            "mean_weight": sum(weights) / max(len(found), 1),
        }
        of_right = [weight for weight, good in zip(weights, right, strict=True) if good]
        shares["mean_weight_of_right"] = sum(of_right) / max(len(of_right), 1)
        return {"answers": len(found)} | {name: round(share, 4) for name, share in shares.items()}

    def data(self, arm: str) -> str:
        """Writes what an arm learns from, if it needs a file of its own."""
        arm = "tenth" if arm == "known" else arm.removeprefix("known_")
        if arm in ("tenth", "all"):
            return arm
        if arm == "forward":
            written = read(self.infer("tenth_mle", "prompts", "forward", 1, 0.0))
            more: Rows = [{"inputs": row["inputs"], "targets": row["samples"][0]} for row in written]
            more = [row for row in more if row["targets"].strip()]
        else:
            view, raw = arm.removesuffix("_raw"), "_raw" if arm.endswith("_raw") else ""
            more = list(read(self.file(f"filled_{view}{raw}")))
        if not self.file(f"union_{arm}").exists():
            write(self.file(f"union_{arm}"), [*read(self.file("tenth")), *more])
        return f"union_{arm}"

    def learn(self, arm: str, learner: str, updates: int) -> dict[str, Any]:
        settings = FIRST | ({"TD_WEIGHT": TD_WEIGHT} if learner == "iqlearn" else {})
        if arm.startswith("known"):
            settings |= {"INITIAL_CHECKPOINT_PATH": str(self.folder / "known_values")}
        files = ["runs/finetune", TINY, *LEARNERS[learner]]
        self.train(f"{arm}_{learner}", self.data(arm), files, settings, updates)
        return self.accuracy(f"{arm}_{learner}", f"tenth_{learner}")


def gap_closed(arms: Mapping[str, Mapping[str, Any]], kind: str) -> dict[str, float]:
    """The share of the gap between the tenth and all complete answers, by arm; 0 and 1 for these two."""
    closed = {}
    for name, found in arms.items():
        learner = name.split(":")[1]
        low, high = (arms.get(f"{end}:{learner}", {}).get(kind) for end in ("tenth", "all"))
        if low is not None and high is not None and high != low:
            closed[name] = round((found[kind] - low) / (high - low), 3)
    return closed


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", type=int, default=8000)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--arms", default=",".join(ARMS))
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--known_updates", type=int, default=1500)
    parser.add_argument("--inverse_updates", type=int, default=600)
    return parser.parse_args()


def main() -> None:
    asked, cells = options(), {}
    for seed in map(int, asked.seeds.split(",")):
        cell = Missing(asked.folder, asked.size, seed)
        cell.prepare()
        fills = {view: cell.fill(view, asked) for view in VIEWS}
        arms = {name: cell.learn(*name.split(":"), asked.updates) for name in asked.arms.split(",")}
        closed = {kind: gap_closed(arms, kind) for kind in ("greedy", "sampled")}
        cells[f"{asked.size}-{seed}"] = {
            "fills": fills,
            "arms": arms,
            "gap_closed": closed,
            "seconds": cell.seconds,
        }
    print(json.dumps(provenance(asked) | {"cells": cells}, indent=1))


if __name__ == "__main__":
    main()
