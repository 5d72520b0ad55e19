"""Padding and real tokens per second of training: packed rows, length buckets, and rows of one example, on a file.

    launch/local.sh python benchmarks/packing.py DATA [--size=tiny] [--batch=4] [--inputs=256] [--targets=256] [--runs=15]
        [--buckets=4,8,16] [--vocabulary_path=PATH]

Prints a JSON object: for each kind of rows its share of padding, its rows and their places over an epoch, the number of shapes,
and tokens per second (all tokens by all seconds, without compilations); the ratio of packed to one example each, pair by pair;
and the machine. Batches of all kinds take turns; each is one the trainer would see, of as many rows. `--runs=0` measures no time.
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
from lmirl_jax.models.abstract import build
from lmirl_jax.training.state import init_state, state_shardings


def timed(update, state, batch) -> tuple[training.TrainState, float, float]:
    """The next state, the seconds of an update, and the real tokens of prompts and answers in its batch."""
    start = time.perf_counter()
    state, metrics = update(state, batch)
    float(metrics["loss"])
    seconds = time.perf_counter() - start
    tokens = sum(int((np.asarray(ids) > 0).sum()) for ids in (batch.segment_ids, batch.prompt_segment_ids))
    return state, seconds, tokens


def measure(options, datasets, model, mesh) -> dict:
    """Updates on batches of each data set in turn, without those that compile."""
    key, optimizer = jax.random.key(0), optax.sgd(1e-3)
    graph, _ = build(model)
    _, shardings = state_shardings(mesh, model, optimizer)
    loss = training.TokenLoss(objectives.iqlearn, 0.1)
    settings = {"graph": graph, "loss": loss, "optimizer": optimizer, "key": key, "microbatches": 1}
    update = jax.jit(functools.partial(training.train_step, **settings))
    iterators = {name: each.iterator(slice(0, options.batch)) for name, each in datasets.items()}
    measured: dict[str, list[tuple[int, float]]] = {name: [] for name in datasets}
    compiled = set()
    with sharding.use(mesh):
        state = init_state(shardings, model, optimizer, key)
        while min(map(len, measured.values())) < options.runs:
            for name, iterator in iterators.items():
                batch = next(iterator)
                shape = batch.tokens.shape, batch.prompt_tokens.shape
                state, seconds, tokens = timed(update, state, batch)
                if shape in compiled:
                    measured[name].append((tokens, seconds))
                compiled.add(shape)
    numbers = {}
    for name, each in measured.items():
        tokens, seconds = (sum(column) for column in zip(*each, strict=True))
        numbers[f"{name}_tokens_per_second"] = round(tokens / seconds, 1)
    rates = {name: [tokens / seconds for tokens, seconds in each] for name, each in measured.items()}
    ratios = [packed / alone for packed, alone in zip(rates["packed"], rates["alone"], strict=False)]
    return numbers | {
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def padding(dataset) -> dict:
    """The share of padding of a data set's rows over an epoch, their number and their places, and the number of shapes."""
    iterator = dataset.iterator(slice(0, dataset.batch_size))
    real = places = examples = rows = 0
    shapes = set()
    while examples < dataset.num_examples:
        batch = next(iterator)
        rows += len(batch.tokens)
        shapes.add((batch.tokens.shape, batch.prompt_tokens.shape))
        for ids in (batch.segment_ids, batch.prompt_segment_ids):
            real, places = real + int((ids > 0).sum()), places + ids.size
        examples += int(batch.segment_ids.max(axis=1).sum())
    iterator.close()
    return {"padding": round(1 - real / places, 4), "rows": rows, "places": places, "shapes": len(shapes)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--vocabulary_path")
    parser.add_argument("--buckets", default="4,8,16")
    for name, value in {"batch": 4, "inputs": 256, "targets": 256, "runs": 15}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    macros = {"DATA": options.data, "VOCABULARY_PATH": options.vocabulary_path, "DROPOUT_RATE": 0.0}
    macros |= {"MODEL_DIR": "unused", "TRAIN_STEPS": 1}
    files = ["gin/runs/finetune.gin", f"gin/models/t5_1_1/{options.size}.gin"]
    configuration.load(files, [f"{name} = {value!r}" for name, value in macros.items()])
    task, model, mesh = (configuration.macro(name) for name in ("TASK", "MODEL", "MESH"))
    lengths = {"inputs": options.inputs, "targets": options.targets}
    kinds: dict = {"packed": {"pack": True}, "alone": {}}
    kinds |= {f"buckets_{count}": {"buckets": int(count)} for count in options.buckets.split(",")}
    datasets = {name: data.TrainDataset(task, options.batch, lengths, **kind) for name, kind in kinds.items()}
    shares = {}
    for name, each in datasets.items():
        shares |= {f"{name}_{number}": value for number, value in padding(each).items()}
    # Paths, on which no number depends.
    options.data = options.vocabulary_path = None
    speed = measure(options, datasets, model, mesh) if options.runs else {}
    print(json.dumps(provenance(options, jax.devices()[0]) | shares | speed))


if __name__ == "__main__":
    main()
