"""Compares recipes that learn from rollouts of one MLE run with more MLE or IQLearn training.

    launch/local.sh python benchmarks/online_runs.py --folder=/tmp/online_runs [--recipes=mle,gail,...] [--seeds=0]
        [--start_steps=1000] [--updates=300]

Trains gin/runs/number_paths.gin by MLE, then from it every recipe with every seed (of the order of demonstrations, of prompts
and of sampling; the start is the same), each by `lmirl train` with the defaults of its gin file. Runs that are finished are not
made again. Prints a JSON object: the evaluation of each run after its last update (all 240 validation prompts, the likeliest
answer and 4 sampled ones), the metrics of its rollouts as means over the last 50 updates, and seconds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from provenance import provenance

# The learning rate of the policy gradients.
SLOWLY = {"LEARNING_RATE": 1e-4, "WARMUP_STEPS": 20}
# The schedule of lambda in online IQLearn.
RAMP = {"value": 0.1, "start_step": 0, "ramp_steps": 200}
RL = ["runs/rl_from_reward"]
RECIPES = {
    "mle": (["runs/number_paths", "objectives/mle"], {}),
    "mle_slowly": (["runs/number_paths", "objectives/mle"], SLOWLY),
    "iqlearn": (
        ["runs/number_paths", "objectives/iqlearn"],
        {"TD_WEIGHT": "@training.delayed_constant()"}
        | {f"training.delayed_constant.{name}": value for name, value in RAMP.items()},
    ),
    "online_iqlearn": (["runs/online_iqlearn"], {}),
    "gail": (["runs/gail"], {}),
    "gad": (["runs/gad"], {}),
    "grpo": (["runs/grpo"], {}),
    "rl_from_reward": (RL, {}),
    "rl_gae": (RL, {"ADVANTAGES": "@objectives.gae"}),
    "rl_little_kl": (RL, {"KL_WEIGHT": 1e-2}),
    # A longer run shows where training without the KL term ends.
    "rl_no_kl": (RL, {"KL_WEIGHT": 0.0, "TRAIN_STEPS": 1000}),
    "rl_from_online": (RL, {}),
    "rl_from_mle": (RL, {}),
    "rl_from_start": (RL, {}),
}
# The runs that reward, trained once for all seeds: offline MLE and IQLearn, and online IQLearn from random parameters.
REWARDING = {
    "rewarding": (["runs/number_paths", "objectives/iqlearn"], {}),
    "rewarding_mle": (["runs/number_paths", "objectives/mle"], {"RANDOM_SEED": 1}),
    "rewarding_online": (["runs/online_iqlearn"], {}),
}
REWARDED_BY = {name: "rewarding" for name, (files, _) in RECIPES.items() if files == RL}
REWARDED_BY |= {
    "rl_from_online": "rewarding_online",
    "rl_from_mle": "rewarding_mle",
    "rl_from_start": "start",
}
ANSWERING = ("online_iqlearn", "gail", "gad", "grpo", *REWARDED_BY)
EVALUATED = ("accuracy", "valid", "distinct_valid", "entropy", "answer_tokens", "self_bleu", "pass_at_4")
LAST = 50


def train(folder: Path, recipe: str, settings: dict) -> dict:
    """Runs the recipe, unless it is finished, and reads what it wrote."""
    files, recipe_settings = (RECIPES | REWARDING)[recipe]
    settings = settings | recipe_settings
    settings |= {"EVAL_PERIOD": settings["TRAIN_STEPS"], "EVALUATOR_NUM_EXAMPLES": None}
    given = [f"--gin_file=gin/{name}.gin" for name in files]
    for name, value in ({"MODEL_DIR": str(folder)} | settings).items():
        given.append(f"--gin.{name}={value if str(value).startswith('@') else repr(value)}")
    lines = metrics(folder)
    if not lines or lines[-1]["step"] < settings["TRAIN_STEPS"]:
        began = time.monotonic()
        with open(folder.parent / f"{folder.name}.log", "a") as log:
            subprocess.run([sys.executable, "-m", "lmirl_jax", "train", *given], stderr=log, check=True)
        print(f"{folder.name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        lines = metrics(folder)
    return {"settings": settings} | read(lines)


def metrics(folder: Path) -> list[dict]:
    file = folder / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def read(lines: list[dict]) -> dict:
    last = lines[-1]
    task = "eval/number_paths/"
    results = {"greedy": {}, "sampled": {}}
    for name in EVALUATED:
        for kind, prefix in (("greedy", task), ("sampled", f"{task}sampled/")):
            if prefix + name in last:
                results[kind][name] = round(last[prefix + name], 4)
    names = sorted(name for name in last if name.startswith("train/"))
    means = {name: statistics.fmean(line[name] for line in lines[-LAST:] if name in line) for name in names}
    first = {name: value for name, value in lines[0].items() if name in names}
    return results | {
        "validation_loss_mle": round(last["eval/loss_mle"], 4),
        "first_update": {name: round(value, 5) for name, value in first.items()},
        f"last_{LAST}_updates": {name: round(value, 5) for name, value in means.items()},
        "seconds_per_update": round(
            statistics.median(line["timing/seconds_per_step"] for line in lines[1:]), 3
        ),
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--start_steps", type=int, default=1000)
    parser.add_argument("--updates", type=int, default=300)
    return parser.parse_args()


def main() -> None:
    asked = options()
    asked.folder.mkdir(parents=True, exist_ok=True)
    recipes = asked.recipes.split(",")
    runs = {}

    def train_run(name: str, recipe: str, settings: dict, **named: str) -> None:
        """Trains the run called `name`, with macros that name others."""
        paths = {macro: str(asked.folder / run) for macro, run in named.items()}
        runs[name] = train(asked.folder / name, recipe, settings | paths)
        runs[name]["settings"] |= {macro: f"the run called {run}" for macro, run in named.items()}

    from_start = {"INITIAL_CHECKPOINT_PATH": "start"}
    train_run("start", "mle", {"TRAIN_STEPS": asked.start_steps})
    for rewarding in sorted({REWARDED_BY.get(recipe, "start") for recipe in recipes} - {"start"}):
        online = rewarding == "rewarding_online"
        steps = asked.updates if online else asked.start_steps
        train_run(rewarding, rewarding, {"TRAIN_STEPS": steps}, **(from_start if online else {}))
    for seed in map(int, asked.seeds.split(",")):
        for recipe in recipes:
            settings = {"TRAIN_STEPS": asked.updates, "RANDOM_SEED": seed}
            named = dict(from_start)
            if recipe in ANSWERING:
                settings["PROMPT_SEED"] = 1000 + seed
            if recipe in REWARDED_BY:
                named["REWARD_CHECKPOINT_PATH"] = REWARDED_BY[recipe]
            train_run(f"{recipe}-{seed}", recipe, settings, **named)
    print(json.dumps(provenance(asked) | {"runs": runs}, indent=1))


if __name__ == "__main__":
    main()
