"""Seconds of one update: T5 1.1 on a fixed batch, MLE and IQLearn in turn.

    launch/local.sh python benchmarks/train_step.py [--size=small] [--batch=8] [--inputs=128] [--targets=128] [--runs=15]
        [--dtype=float32] [--remat=none] [--unroll=1] [--block_sizes=None]

Prints a JSON object: medians, minima, the ratio of IQLearn to MLE pair by pair, and the machine; the same for each of the
block sizes (0: dense; None: by size), all in turn. Every timed call returns its loss: a gradient alone lets the compiler
drop MLE's forward pass.
"""

import argparse
import functools
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from provenance import provenance

from lmirl_jax import configuration, objectives, sharding, training
from lmirl_jax.models.abstract import build
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.training.state import init_state, state_shardings
from lmirl_jax.types import Batch


def fixed_batch(rows: int, inputs: int, targets: int) -> Batch:
    """Random prompts and answers of full length, which end."""
    generator = np.random.default_rng(0)
    encoder = generator.integers(3, 32000, (rows, inputs)).astype(np.int32)
    decoder = generator.integers(3, 32000, (rows, targets)).astype(np.int32)
    decoder[:, -1] = 1
    lengths = {"inputs": inputs, "targets": targets}
    examples = zip(encoder, decoder, strict=True)
    return stack_rows([example_row(x, y, lengths=lengths, eos_ids=(1,), discount=1.0) for x, y in examples])


def make_update(objective, model, mesh, block_size):
    """A compiled update, and a function that runs it once and gives its seconds."""
    key, optimizer = jax.random.key(0), training.adafactor(1e-3)
    graph, _ = build(model)
    _, shardings = state_shardings(mesh, model, optimizer)
    step = functools.partial(
        training.train_step,
        graph=graph,
        loss=training.TokenLoss(objective, 0.1, training.SoftQConfig(block_size=block_size)),
        optimizer=optimizer,
        key=key,
        microbatches=1,
    )
    update = jax.jit(step, donate_argnums=0)
    state = [init_state(shardings, model, optimizer, key)]

    def run(batch) -> float:
        began = time.perf_counter()
        state[0], metrics = update(state[0], batch)
        assert np.isfinite(float(metrics["loss"]))
        jax.block_until_ready(state[0])
        return time.perf_counter() - began

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="small")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--block_sizes", default="None")
    for name, default in {"batch": 8, "inputs": 128, "targets": 128, "runs": 15, "unroll": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    settings = [
        "VOCAB_SIZE = 32128",
        "DECODER_START_ID = 0",
        "DROPOUT_RATE = 0.1",
        f"DTYPE = {options.dtype!r}",
        f"REMAT = {options.remat!r}",
    ]
    settings.append(f"models.T5Config.scan_unroll = {options.unroll}")
    configuration.load([f"gin/models/t5_1_1/{options.size}.gin"], settings, complete=False)
    model, mesh = configuration.macro("MODEL"), sharding.make_mesh()
    batch = jax.tree.map(jnp.asarray, fixed_batch(options.batch, options.inputs, options.targets))
    block_sizes = [None if size == "None" else int(size) for size in options.block_sizes.split(",")]
    with sharding.use(mesh):
        updates = {
            f"{name}, block size {size}": make_update(getattr(objectives, name), model, mesh, size)
            for size in block_sizes
            for name in ("mle", "iqlearn")
        }
        times = {name: [update(batch) for _ in range(2)][2:] for name, update in updates.items()}
        for _ in range(options.runs):
            for name, update in updates.items():
                times[name].append(update(batch))

    def ratio(size) -> float:
        pairs = zip(times[f"iqlearn, block size {size}"], times[f"mle, block size {size}"], strict=True)
        return round(statistics.median(a / b for a, b in pairs), 4)

    result = provenance(options, jax.devices()[0]) | {
        "median_seconds": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "best_seconds": {name: round(min(values), 4) for name, values in times.items()},
        "iqlearn_over_mle": {str(size): ratio(size) for size in block_sizes},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
