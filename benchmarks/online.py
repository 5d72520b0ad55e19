"""Seconds of online updates against MLE's, sampling apart; and the compiler's memory of three networks against one.

    launch/local.sh python benchmarks/online.py [--size=small] [--batch=8] [--inputs=128] [--targets=128] [--runs=7]
        [--remat=none] [--memory_only [--compile_for=v5e:2x2 --mesh=1,4,1]]

T5 1.1 with random parameters in float32, and as many rollouts as demonstrations, all of full length, because such a policy
samples EOS once in 32,000 tokens. The forms take turns; it prints medians, and ratios to MLE's update of the same turn.
`online` is the update on both kinds of rows and `sampling` the time of a draw of rollouts, so that a run that draws every k
updates pays `online + sampling / k`. GAIL's update includes policy, value and discriminator, with the first policy for its
KL. Memory is what the compiler reports: the inputs and outputs of a compiled update, and its temporary arrays; for each chip
where --compile_for asks the TPU compiler, which needs no TPU (`pip install libtpu`).
"""

import argparse
import json
import math
import statistics
import time

import jax
import numpy as np
from provenance import provenance
from train_step import fixed_batch

from lmirl_jax import configuration, objectives, online, sharding, training
from lmirl_jax.training.state import init_state

# The number of updates between draws: either the update or the draw is timed.
NEVER = 10**9


class Prompts:
    """The fixed batch again and again, as a training set."""

    vocab_size, eos_ids, rows_together, buckets = 32000, (1,), 1, 1
    has_rewards = has_labels = has_preferences = packed = False

    def __init__(self, options):
        self.batch_size = options.batch
        self.lengths = {"inputs": options.inputs, "targets": options.targets}

    def iterator(self, rows: slice):
        return iter(lambda: fixed_batch(self.batch_size, *self.lengths.values()), None)


def learners(options) -> dict:
    def rollouts():
        return online.Rollouts(Prompts(options), sample_every=NEVER)

    def gail(share_trunk: bool):
        loss = online.Loss(objectives.gae, kl_weight=0.1, mle_weight=1.0)
        return online.PolicyGradient(
            rollouts(), online.Adversary(), loss, training.adafactor(1e-3), share_trunk
        )

    return {
        "mle": training.Offline(objectives.mle),
        "iqlearn": training.Offline(objectives.iqlearn, 0.1),
        "online": online.OnlineIQLearn(objectives.iqlearn, rollouts()),
        "gail": gail(False),
        "gail, shared trunk": gail(True),
    }


class TimedLearner:
    """A learner at work on the fixed batch."""

    def __init__(self, learner, setting, batch):
        self.updates, self.batch = learner.start(setting), batch
        self.state = init_state(
            self.updates.shardings, setting.model, setting.optimizer, setting.key, extra=self.updates.extra
        )
        if self.updates.draws_before(1):
            self.state = self.updates.draw(self.state)

    def update(self) -> float:
        began = time.perf_counter()
        self.state, metrics = self.updates.step(self.state, self.batch)
        assert np.isfinite(float(metrics["loss"]))
        jax.block_until_ready(self.state)
        return time.perf_counter() - began

    def sample(self) -> float:
        began = time.perf_counter()
        self.state = jax.block_until_ready(self.updates.draw(self.state))
        return time.perf_counter() - began


def topology_mesh(options) -> jax.sharding.Mesh:
    """A mesh of TPU chips that this machine lacks, for compilation only."""
    from jax.experimental import topologies

    sizes = dict(zip(("data", "fsdp", "tensor"), map(int, options.mesh.split(",")), strict=True))
    chips = topologies.get_topology_desc(platform="tpu", topology_name=options.compile_for).devices
    with sharding.use_devices(chips[: math.prod(sizes.values())]):
        return sharding.make_mesh(**sizes)


def memory(learner, setting, batch) -> dict[str, float]:
    """The memory of a compiled update, in MB."""
    updates = learner.start(setting)
    with sharding.use(setting.mesh):
        analysis = updates.step.lower(updates.shapes, batch).compile().memory_analysis()
    arguments, between = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
    return {"state and batch": round(arguments / 1e6), "in between": round(between / 1e6)}


def time_forms(options, all_learners, setting, batch) -> dict:
    chosen = [name for name in options.forms.split(",") if name != "sampling"]
    forms = {name: TimedLearner(all_learners[name], setting, batch) for name in chosen}
    calls = {name: form.update for name, form in forms.items()}
    if "sampling" in options.forms.split(","):
        calls["sampling"] = forms["online"].sample
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(options.runs + 1):
        for name, call in calls.items():
            duration = call()
            if turn:
                seconds[name].append(duration)
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(values, seconds["mle"], strict=True)), 3)
        for name, values in seconds.items()
    }
    every = {
        str(k): round(ratios["online"] + ratios["sampling"] / k, 2)
        for k in (1, 2, 4, 8)
        if "sampling" in ratios and "online" in ratios
    }
    return {
        "median_seconds": {name: round(statistics.median(values), 3) for name, values in seconds.items()},
        "over_mle": ratios,
        "online_iqlearn_over_mle_by_sample_every": every,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="small")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--forms", default="mle,iqlearn,online,sampling,gail")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--memory_only", action="store_true")
    parser.add_argument("--compile_for")
    parser.add_argument("--mesh", default="1,4,1")
    for name, default in {"batch": 8, "inputs": 128, "targets": 128, "runs": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    settings = ["VOCAB_SIZE = 32128", "DECODER_START_ID = 0", "DROPOUT_RATE = 0.1"]
    settings += [f"DTYPE = {options.dtype!r}", f"REMAT = {options.remat!r}"]
    configuration.load([f"gin/models/t5_1_1/{options.size}.gin"], settings, complete=False)
    model = configuration.macro("MODEL")
    mesh = topology_mesh(options) if options.compile_for else sharding.make_mesh()
    setting = training.Setting(model, training.adafactor(1e-3), mesh, jax.random.key(0), options.batch)
    batch = fixed_batch(options.batch, options.inputs, options.targets)
    if not options.memory_only:
        batch = sharding.to_global(mesh, batch, options.batch)
    result = provenance(options, jax.devices()[0])
    all_learners = learners(options)
    if options.memory_only:
        result["memory_mb"] = {
            name: memory(learner, setting, batch) for name, learner in all_learners.items()
        }
    else:
        with sharding.use(mesh):
            result |= time_forms(options, all_learners, setting, batch)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
