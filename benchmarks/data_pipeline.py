"""Tokens per second that data are prepared and read with, against `datasets` with a torch DataLoader and SeqIO with tf.data.

    launch/local.sh python benchmarks/data_pipeline.py GSM8K.jsonl --vocabulary_path=PATH [--others=PYTHON] [--sets=..]
        [--batch=32] [--inputs=512] [--targets=256] [--seconds=20]

GSM8K.jsonl has `inputs` and `targets`; the vocabulary is a SentencePiece model. Three sets are made in a temporary folder: GSM8K
as it is, 100,000 lines of it with a number before each, and a million lines of 10 to 40 random words. `--others` names a
Python with datasets, torch and sentencepiece. Prints a JSON object for each set. Each number is of a process of its own:
`prepare` and `read` are ours, with two processes and after them (`read` counts tokens of rows, without padding, for some
seconds), and `random` is the time of a random read. `datasets` maps with two processes, then a DataLoader with two workers
shuffles and pads. `seqio` tokenises as it reads, so that it has no preparation, and pads by its feature converter. At last
the tokens that T5 1.1 small trains a second on the same machine (as in train_step.py), and their ratio to what is read.
"""

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from provenance import provenance

SETS = ("gsm8k", "lines", "million")


def write_set(name: str, gsm8k: Path, folder: Path) -> Path:
    """Writes the lines of a set."""
    rows = [json.loads(line) for line in gsm8k.read_text().splitlines()]
    generator = random.Random(0)
    words = sorted({word for row in rows[:500] for word in row["inputs"].split()})
    file = folder / f"{name}.jsonl"
    with file.open("w") as lines:
        for number in range({"gsm8k": len(rows), "lines": 100_000, "million": 1_000_000}[name]):
            row = rows[number % len(rows)]
            if name == "lines":
                row = {**row, "inputs": f"{number}: {row['inputs']}"}
            if name == "million":
                size = generator.randint(5, 20)
                texts = (" ".join(generator.choices(words, k=size)) for _ in "ab")
                row = dict(zip(("inputs", "targets"), texts, strict=True))
            lines.write(json.dumps({key: row[key] for key in ("inputs", "targets")}) + "\n")
    return file


def rate(batches, seconds: float) -> dict:
    """Tokens, without padding, and rows that an iterator gives a second; each batch is a pair of its numbers of both."""
    next(batches)
    began, spent = time.perf_counter(), time.process_time()
    tokens = rows = 0
    while time.perf_counter() - began < seconds:
        more = next(batches, None)
        if more is None:
            break
        tokens, rows = tokens + more[0], rows + more[1]
    wall = time.perf_counter() - began
    cpu = (time.process_time() - spent) / max(rows, 1)
    return {
        "tokens_per_second": round(tokens / wall),
        "rows_per_second": round(rows / wall),
        "cpu_ms_a_row": round(1e3 * cpu, 3),
    }


def ours(step: str, options) -> dict:
    """One of our numbers."""
    from lmirl_jax import data

    task = data.get_task(data=str(options.data), vocabulary_path=options.vocabulary_path)
    began = time.perf_counter()
    records = data.tokenized_records(task.tasks[0], "train", options.cache)
    wall = time.perf_counter() - began
    if step == "prepare":
        return {"seconds": round(wall, 2), "tokens_per_second": round(int(records.lengths.sum()) / wall)}
    if step == "random":
        source, count = records.source.without_features(), 20_000
        order = np.random.default_rng(0).integers(0, len(records), count).tolist()
        began = time.perf_counter()
        for index in order:
            source[index]
        return {"microseconds": round(1e6 * (time.perf_counter() - began) / count, 2)}
    lengths = {"inputs": options.inputs, "targets": options.targets}
    dataset = data.TrainDataset(task, options.batch, lengths, cache_dir=options.cache)
    iterator = dataset.iterator(slice(0, options.batch))
    counted = (
        (int((batch.segment_ids > 0).sum() + (batch.prompt_segment_ids > 0).sum()), options.batch)
        for batch in iterator
    )
    return {"seconds_to_open": round(time.perf_counter() - began, 2)} | rate(counted, options.seconds)


def with_seqio(options) -> dict:
    """SeqIO's own path: tf.data reads, tokenises, trims, shuffles and pads."""
    import seqio
    import tensorflow as tf

    def parsed(split, shuffle_files, seed=None):
        def rows():
            with open(options.data) as lines:
                yield from map(json.loads, lines)

        spec = {key: tf.TensorSpec([], tf.string) for key in ("inputs", "targets")}
        return tf.data.Dataset.from_generator(rows, output_signature=spec)

    feature = seqio.Feature(seqio.SentencePieceVocabulary(options.vocabulary_path), add_eos=True)
    task = seqio.Task(
        "benchmark",
        source=seqio.FunctionDataSource(parsed, splits=("train",)),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
        output_features={"inputs": feature, "targets": feature},
    )
    lengths = {"inputs": options.inputs, "targets": options.targets}
    dataset = task.get_dataset(lengths, "train", shuffle=True, num_epochs=None, seed=0)
    dataset = seqio.EncDecFeatureConverter(pack=False)(dataset, lengths).batch(options.batch).prefetch(8)
    counted = (
        (int((b["encoder_input_tokens"] > 0).sum() + (b["decoder_target_tokens"] > 0).sum()), options.batch)
        for b in dataset.as_numpy_iterator()
    )
    return rate(counted, options.seconds)


# Run by the Python of --others; it is text, because `datasets` is no requirement of ours.
WITH_DATASETS = """
import json, sys, time
import datasets, sentencepiece, torch
options = json.loads(sys.argv[1])
model = options["vocabulary_path"]
processor = None

def encode(rows):
    global processor
    processor = processor or sentencepiece.SentencePieceProcessor(model)
    return {key: [ids + [1] for ids in processor.encode(rows[key])] for key in ("inputs", "targets")}

def pad(rows):
    batch = {}
    for key in ("inputs", "targets"):
        batch[key] = torch.zeros(len(rows), options[key], dtype=torch.int32)
        for number, row in enumerate(rows):
            ids = torch.tensor(row[key][: options[key]], dtype=torch.int32)
            batch[key][number, : len(ids)] = ids
    return batch

if __name__ == "__main__":
    began = time.perf_counter()
    raw = datasets.load_dataset("json", data_files=options["data"], split="train", cache_dir=options["cache"])
    made = raw.map(encode, batched=True, num_proc=2, remove_columns=raw.column_names)
    wall = time.perf_counter() - began
    count = sum(map(len, made[:10000]["inputs"])) + sum(map(len, made[:10000]["targets"]))
    tokens = count * len(made) / min(len(made), 10000)
    loader = torch.utils.data.DataLoader(
        made, batch_size=options["batch"], shuffle=True, num_workers=2, collate_fn=pad, drop_last=True
    )
    batches = iter(loader)
    next(batches)
    began, read, rows = time.perf_counter(), 0, 0
    while time.perf_counter() - began < options["seconds"]:
        batch = next(batches, None)
        if batch is None:
            break
        read += int((batch["inputs"] > 0).sum() + (batch["targets"] > 0).sum())
        rows += options["batch"]
    seconds = time.perf_counter() - began
    print(json.dumps({
        "prepare": {"seconds": round(wall, 2), "tokens_per_second": round(tokens / wall)},
        "read": {"tokens_per_second": round(read / seconds), "rows_per_second": round(rows / seconds)},
    }))
"""


def training_rate(options) -> int:
    """The tokens that T5 1.1 small trains a second, prompts and answers, by MLE; the median of five updates."""
    import statistics

    from train_step import fixed_batch, make_update

    from lmirl_jax import configuration, objectives, sharding

    bindings = ["MODEL_DIR = 'unused'", "TRAIN_STEPS = 1", "DATA = 'unused'"]
    configuration.load(["gin/runs/finetune.gin"], bindings)
    model, mesh = configuration.macro("MODEL"), configuration.macro("MESH")
    with sharding.use(mesh):
        batch = sharding.to_global(mesh, fixed_batch(8, 128, 128), 8)
        update = make_update(objectives.mle, model, mesh, None)
        seconds = [update(batch) for _ in range(6)][1:]
    return round(8 * 256 / statistics.median(seconds))


def run(step: str, options) -> dict:
    """A step in a process of its own, with the most memory that it and each of its own processes had."""
    given = json.dumps(
        {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    )
    command = [sys.executable, __file__, "--step", step, given]
    if step == "datasets":
        script = Path(options.cache) / "with_datasets.py"
        script.write_text(WITH_DATASETS)
        command = [options.others, str(script), given]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{step} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def step_main() -> None:
    """What such a process does."""
    step, options = sys.argv[2], argparse.Namespace(**json.loads(sys.argv[3]))
    if step == "train":
        print(json.dumps({"tokens_per_second": training_rate(options)}))
        return
    result = with_seqio(options) if step == "seqio" else ours(step, options)
    of_self, of_others = (
        resource.getrusage(who).ru_maxrss // 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(json.dumps(result | {"megabytes": of_self, "megabytes_of_a_worker": of_others}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--vocabulary_path", required=True)
    parser.add_argument("--others")
    parser.add_argument("--sets", default=",".join(SETS))
    for name, value in {"batch": 32, "inputs": 512, "targets": 256, "seconds": 20}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    shown = argparse.Namespace(**vars(options) | {"data": None, "vocabulary_path": None, "others": None})
    head = provenance(shown)
    with tempfile.TemporaryDirectory() as folder:
        options.cache = folder
        trained = run("train", options)["tokens_per_second"]
        gsm8k = options.data
        for name in options.sets.split(","):
            options.data = write_set(name, gsm8k, Path(folder))
            steps = ["prepare", "read", "random", "seqio", *(["datasets"] if options.others else [])]
            found = {step: run(step, options) for step in steps}
            ratio = round(found["read"]["tokens_per_second"] / trained, 1)
            result = {"set": name, **found, "trained_tokens_per_second": trained, "read_over_trained": ratio}
            print(json.dumps(head | {"load": round(os.getloadavg()[0], 1)} | result), flush=True)


if __name__ == "__main__":
    step_main() if sys.argv[1] == "--step" else main()
