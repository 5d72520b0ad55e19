"""One of several processes of one mesh of four devices, which runs the commands of `lmirl` one after the other.

    python -m tests.launch.commands_in_processes ADDRESS COUNT INDEX FOLDER COMMAND...

The current folder has train.jsonl and validation.jsonl. Everything is written below FOLDER, which all processes share.
"""

import sys
from collections.abc import Sequence

import jax
import numpy as np

from lmirl_jax import configuration
from lmirl_jax.cli import main as lmirl
from lmirl_jax.cli import processes
from lmirl_jax.sharding import meshes

DEVICES = 4
MODEL = [
    "--gin_file=gin/models/t5_1_1/tiny.gin",
    "--gin.models.T5Config.emb_dim=16",
    "--gin.models.T5Config.mlp_dim=32",
]
FEW = {"EVALUATOR_NUM_EXAMPLES": 8, "EVAL_BATCH_SIZE": 4, "NUM_SAMPLES": 2}


def train(run: str, steps: int) -> list[str]:
    macros = {
        "MODEL_DIR": run,
        "TRAIN_STEPS": steps,
        "DATA": "train.jsonl",
        "VALIDATION_DATA": "validation.jsonl",
        "TASK_FEATURE_LENGTHS": {"inputs": 8, "targets": 8},
        "BATCH_SIZE": 8,
        "CHECKPOINT_PERIOD": 2,
        "EVAL_PERIOD": 2,
        "EVAL_STEPS": 1,
        "EVALUATOR_NUM_EXAMPLES": 8,
        "EVAL_BATCH_SIZE": 4,
        "WARMUP_STEPS": 0,
        "LEARNING_RATE": 3e-2,
        "sharding.make_mesh.data": 2,
        "sharding.make_mesh.fsdp": 2,
    }
    return ["train", "--gin_file=gin/runs/finetune.gin", *MODEL, *bind(macros)]


def bind(macros: dict) -> list[str]:
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def of_run(command: str, **macros: object) -> list[str]:
    return [command, f"--gin_file=gin/runs/{command}.gin", *bind(macros)]


def commands(folder: str) -> list[list[str]]:
    """All that is done with several processes: a training that is stopped and resumed, and what reads its checkpoint."""
    run = f"{folder}/run"
    several = {"RUNS": {"IQLearn": [run]}, "EVAL_SPLIT": "validation", **FEW}
    front = {"TEMPERATURES": [0.5], "QUALITY": "exact_match", "DIVERSITY": ["self_bleu"]}
    return [
        train(run, 2),
        train(run, 4),
        of_run("eval", CHECKPOINT_PATH=run, EVAL_SPLIT="validation", TEMPERATURES=[0.0, 1.0], **FEW),
        of_run("infer", CHECKPOINT_PATH=run, OUTPUT_PATH=f"{folder}/answers.jsonl", EVAL_BATCH_SIZE=4),
        of_run("score", CHECKPOINT_PATH=run, OUTPUT_PATH=f"{folder}/scores.jsonl", SCORE_BATCH_SIZE=4),
        of_run("sweep", OUTPUT_DIR=f"{folder}/sweep", **front, **several),
        of_run("report", OUTPUT_DIR=f"{folder}/report", SCORE_BATCH_SIZE=4, **several),
        ["convert", *bind({"CHECKPOINT_PATH": run, "OUTPUT_PATH": f"{folder}/converted", "FORMAT": "orbax"})],
    ]


def interleave(sizes: tuple[int, ...], devices: Sequence[jax.Device]) -> np.ndarray:
    """The devices of all processes in turn, as in the rings of a TPU: the rows of a process do not lie together."""
    count = jax.process_count()
    return np.reshape(np.reshape(np.array(devices), (count, -1)).T, sizes)


def main(address: str, count: str, index: str, folder: str, *chosen: str) -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES // int(count))
    if count != "1":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(address, int(count), int(index))
    meshes.arrange = interleave
    for command in commands(folder):
        if command[0] not in chosen:
            continue
        with configuration.restore_afterwards():
            code = lmirl(command)
        if code != 0:
            print(f"{command[0]} ended with {code}", file=sys.stderr)
            processes.leave(code)
            sys.exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
