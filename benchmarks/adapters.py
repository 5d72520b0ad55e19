"""Memory of training with adapters (LoRA) against training the whole model, offline and online with a KL term.

    launch/local.sh python benchmarks/adapters.py [--model=smollm2/smollm2_135m] [--batch=8] [--inputs=64] [--targets=64]
        [--rank=16] [--forms=full,lora,lora_bfloat16] [--dtype=float32]
        [--remat=minimal] [--memory_only]

A model of random parameters and AdamW. `grpo` is a policy gradient whose KL term is from the first policy,
which is a copy of the whole model, or with adapters the base without them. Memory is what the compiler reports of an update,
its inputs (state and batch) and its temporary arrays, and, without --memory_only, the peak resident memory of a process that
makes two updates, in which libraries, compilation and the making of the first state count too. Each form has its own process.
"""

import argparse
import json
import resource
import subprocess
import sys

import jax
import numpy as np
import online as online_benchmark
from provenance import provenance
from train_step import fixed_batch

from lmirl_jax import configuration, objectives, online, sharding, training
from lmirl_jax.models import LoRAConfig, parameter_count
from lmirl_jax.models.trainable import trainable

SAMPLES = 2


def reward(prompt: str, answer: str) -> float:
    """Any function will do: nothing here depends on it."""
    return float(len(answer))


class Prompts(online_benchmark.Prompts):
    """The fixed batch as prompts, whose texts are their numbers of tokens."""

    def decode_inputs(self, tokens) -> str:
        return str(len(tokens))

    decode = decode_inputs


def learner(kind: str, options):
    if kind == "mle":
        return training.Offline(objectives.mle)
    loss = online.Loss(objectives.group_relative, kl_weight=0.1, whiten=False)
    prompts = Prompts(argparse.Namespace(**{**vars(options), "batch": options.batch // SAMPLES}))
    rollouts = online.Rollouts(prompts, samples_per_prompt=SAMPLES, sample_every=online_benchmark.NEVER)
    return online.PolicyGradient(rollouts, online.RewardFunction(reward), loss)


def network(form: str, options):
    settings = ["VOCAB_SIZE = 49152", "DECODER_START_ID = 0", "DROPOUT_RATE = 0.0"]
    settings += [f"DTYPE = {options.dtype!r}", f"REMAT = {options.remat!r}"]
    configuration.load([f"gin/models/{options.model}.gin"], settings, complete=False)
    base = configuration.macro("MODEL")
    if form == "full":
        return base
    return LoRAConfig(base, options.rank, 2 * options.rank, base_dtype=form.partition("_")[2] or "float32")


def measure(form: str, kind: str, options) -> dict:
    """The memory of one form, in MB."""
    model, mesh = network(form, options), sharding.make_mesh()
    setting = training.Setting(model, training.adamw(1e-3), mesh, jax.random.key(0), options.batch)
    batch = fixed_batch(options.batch, options.inputs, options.targets)
    shapes = setting.policy_state[0].params
    found = {
        "parameters": parameter_count(model),
        "trained": sum(leaf.size for leaf in jax.tree.leaves(trainable(shapes))),
        **online_benchmark.memory(learner(kind, options), setting, batch),
    }
    if not options.memory_only:
        with sharding.use(mesh):
            placed = sharding.to_global(mesh, batch, options.batch)
            timed = online_benchmark.TimedLearner(learner(kind, options), setting, placed)
            seconds = [timed.update() for _ in range(2)]
        found["peak resident"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
        found["seconds"] = round(float(np.min(seconds)), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2/smollm2_135m")
    parser.add_argument("--forms", default="full,lora,lora_bfloat16")
    parser.add_argument("--kinds", default="mle,grpo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--remat", default="minimal")
    parser.add_argument("--memory_only", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    for name, default in {"batch": 8, "inputs": 64, "targets": 64, "rank": 16}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(*options.one.split(":"), options)))
        return
    result: dict = provenance(options, jax.devices()[0]) | {"memory_mb": {}}
    for kind in options.kinds.split(","):
        for form in options.forms.split(","):
            command = [sys.executable, *sys.argv, f"--one={form}:{kind}"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            result["memory_mb"].setdefault(kind, {})[form] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
