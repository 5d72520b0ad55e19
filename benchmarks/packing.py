"""Real tokens per second of training on packed rows against rows of one example, on the examples of a file.

    launch/local.sh python benchmarks/packing.py DATA [--size=tiny] [--batch=4] [--inputs=256] [--targets=256] [--runs=15]
        [--vocabulary_path=PATH]

Prints a JSON object: examples in a row, shares of padding over an epoch, tokens per second of both (medians), their ratio
pair by pair, and the machine. Batches of both alternate; each is one the trainer would see, of as many rows.
"""

import argparse
import functools
import json
import statistics
import time

import jax
import numpy as np
import optax
from provenance import provenance

from lmirl_jax import configuration, data, objectives, sharding, training
from lmirl_jax.training.state import build, init_state, state_shardings


def timed(update, state, batch) -> tuple[training.TrainState, float, float]:
    """The next state, the seconds of an update, and the real tokens of prompts and answers in its batch."""
    start = time.perf_counter()
    state, metrics = update(state, batch)
    float(metrics["loss"])
    seconds = time.perf_counter() - start
    tokens = sum(int((np.asarray(ids) > 0).sum()) for ids in (batch.segment_ids, batch.prompt_segment_ids))
    return state, seconds, tokens


def measure(options, datasets, model, mesh) -> dict:
    """Updates on batches of each data set in turn."""
    key, optimizer = jax.random.key(0), optax.sgd(1e-3)
    graph, _ = build(model, key)
    _, shardings = state_shardings(mesh, model, optimizer, key)
    loss = training.TokenLoss(objectives.iqlearn, 0.1)
    settings = {"graph": graph, "loss": loss, "optimizer": optimizer, "key": key, "microbatches": 1}
    update = jax.jit(functools.partial(training.train_step, **settings))
    iterators = {name: each.iterator(slice(0, options.batch)) for name, each in datasets.items()}
    rates: dict[str, list[float]] = {name: [] for name in datasets}
    with sharding.use(mesh):
        state = init_state(shardings, model, optimizer, key)
        for run in range(options.runs + 1):
            for name, iterator in iterators.items():
                state, seconds, tokens = timed(update, state, next(iterator))
                # The first update compiles.
                if run:
                    rates[name].append(tokens / seconds)
    ratios = [packed / alone for packed, alone in zip(rates["packed"], rates["alone"], strict=True)]
    numbers = {f"{name}_tokens_per_second": round(statistics.median(each), 1) for name, each in rates.items()}
    return numbers | {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def padding(dataset) -> float:
    """The share of padding of a data set's rows over an epoch."""
    iterator = dataset.iterator(slice(0, dataset.batch_size))
    real = places = examples = 0
    while examples < dataset.num_examples:
        batch = next(iterator)
        for ids in (batch.segment_ids, batch.prompt_segment_ids):
            real, places = real + int((ids > 0).sum()), places + ids.size
        examples += int(batch.segment_ids.max(axis=1).sum())
    iterator.close()
    return round(1 - real / places, 4)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--vocabulary_path")
    for name, value in {"batch": 4, "inputs": 256, "targets": 256, "runs": 15}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    macros = {"DATA": options.data, "VOCABULARY_PATH": options.vocabulary_path, "DROPOUT_RATE": 0.0}
    macros |= {"MODEL_DIR": "unused", "TRAIN_STEPS": 1}
    files = ["gin/runs/finetune.gin", f"gin/models/t5_1_1/{options.size}.gin"]
    configuration.load(files, [f"{name} = {value!r}" for name, value in macros.items()])
    task, model, mesh = (configuration.macro(name) for name in ("TASK", "MODEL", "MESH"))
    lengths = {"inputs": options.inputs, "targets": options.targets}
    datasets = {
        name: data.TrainDataset(task, options.batch, lengths, pack=name == "packed")
        for name in ("packed", "alone")
    }
    shares = {f"{name}_padding": padding(each) for name, each in datasets.items()}
    # Paths, on which no number depends.
    options.data = options.vocabulary_path = None
    print(
        json.dumps(provenance(options, jax.devices()[0]) | shares | measure(options, datasets, model, mesh))
    )


if __name__ == "__main__":
    main()
