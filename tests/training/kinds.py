"""Every kind of training on a tiny model, as settings of the trainer; and what each run did, for comparisons bit by bit."""

import dataclasses
import hashlib
import json
import pathlib
import shutil

import jax
import numpy as np

from lmirl_jax import data, objectives, online, training
from lmirl_jax.models import LoRAConfig
from lmirl_jax.online.policy_loss import Loss
from tests.online.fakes import Prompts
from tests.training.fakes import TINY, FakeData, mesh_of

# The steps of a whole run, each of which is saved.
STEPS = 5
# By the number of devices.
MESHES = {1: (1, 1, 1), 8: (2, 2, 2)}
ADAPTERS = LoRAConfig(TINY, rank=2, alpha=4.0, dropout_rate=0.1)
OFFLINE = training.Offline(objectives.iqlearn, 0.5)


class Recorded:
    """A training set that remembers a digest of each batch that was taken from it."""

    def __init__(self, source):
        self._source, self.taken = source, []

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._source, name)

    def iterator(self, rows):
        return _RecordedIterator(self._source.iterator(rows), self.taken)


class _RecordedIterator:
    def __init__(self, batches, taken):
        self._batches, self._taken = batches, taken
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __iter__(self):
        return self

    def __next__(self):
        batch = next(self._batches)
        digest = hashlib.sha256()
        for array in jax.tree.leaves(batch):
            digest.update(
                repr((array.shape, array.dtype.str)).encode() + np.ascontiguousarray(array).tobytes()
            )
        self._taken.append(digest.hexdigest())
        return batch


def iqlearn(prompts):
    rollouts = online.Rollouts(prompts, sample_every=2, replay_size=32)
    return online.OnlineIQLearn(objectives.iqlearn, rollouts, 0.5, 0.3)


def gail(prompts):
    loss = Loss(objectives.gae, kl_weight=0.1, entropy_weight=0.01, mle_weight=1.0)
    rollouts = online.Rollouts(prompts, sample_every=2)
    return online.PolicyGradient(rollouts, online.Adversary(label_smoothing=0.1), loss, training.adamw(1e-2))


def gad(prompts):
    loss = Loss(objectives.group_relative, whiten=False)
    rollouts = online.Rollouts(prompts, samples_per_prompt=2)
    adversary = online.PairwiseAdversary(updates=2, gradient_penalty=0.01)
    return online.PolicyGradient(rollouts, adversary, loss, training.adamw(1e-2))


def evenness(prompt: str, answer: str) -> float:
    """How many of an answer's tokens are even."""
    return float(sum(int(token) % 2 == 0 for token in answer.split()))


def grpo(prompts):
    loss = Loss(objectives.leave_one_out, kl_weight=0.1)
    rollouts = online.Rollouts(prompts, samples_per_prompt=2, sample_every=3)
    return online.PolicyGradient(rollouts, online.RewardFunction(evenness), loss, training.adamw(1e-2))


def own_rows(folder: pathlib.Path, **settings):
    """Rows of a file with prompts and answers of unlike lengths; a run takes them several times."""
    rows = [
        {"inputs": "ab" * (1 + n % 5), "targets": str(n) * (1 + n % 4), "weight": 1.0 + n % 2}
        for n in range(29)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lengths = {"inputs": 16, "targets": 16}
    task = data.get_task(data=str(path))
    return data.TrainDataset(task, 16, lengths, cache_dir=str(folder / "cache"), **settings)


# By kind: the settings that differ from those of offline IQLearn, made in a folder for files.
KINDS = {
    "accumulated": lambda folder: {"microbatches": 2},
    "adapters": lambda folder: {"model": ADAPTERS, "microbatches": 2},
    "packed": lambda folder: {"data": own_rows(folder, pack=True)},
    "bucketed": lambda folder: {"data": own_rows(folder, buckets=3), "optimizer": adafactor()},
    "online iqlearn": lambda folder: {"learner": iqlearn},
    "gail": lambda folder: {"learner": gail, "microbatches": 2},
    "gad": lambda folder: {"learner": gad},
    "grpo": lambda folder: {"learner": grpo},
    "online adapters": lambda folder: {"model": ADAPTERS, "learner": gail},
}


def adafactor():
    return training.adafactor(1e-2, min_dim_size_to_factor=8)


class Training:
    """One kind of training on a number of devices.

    Args:
        kind: a key of `KINDS`.
        folder: a folder for the files of the data, and for the run that adapters are of.
    """

    def __init__(self, kind: str, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._base = folder / "base"
        self._settings = {
            "model": TINY,
            "learner": OFFLINE,
            "data": FakeData(),
            "optimizer": training.adamw(1e-2),
        }
        self._settings |= KINDS[kind](folder)
        # Words of bytes have 259 ids.
        if self._settings["data"].vocab_size > TINY.vocab_size:
            self._settings["model"] = dataclasses.replace(TINY, vocab_size=384)

    def base(self) -> str | None:
        """The run that adapters are of, which is made once; None where the whole model is learnt."""
        if self._settings["model"] is not ADAPTERS:
            return None
        if not self._base.exists():
            train(self._base, 1, model=TINY, learner=OFFLINE, data=FakeData(), optimizer=training.adamw(1e-2))
        return str(self._base)

    def base_in(self, folder: pathlib.Path) -> None:
        """Sets the folder of that run, which processes share."""
        self._base = folder

    def run(self, model_dir: pathlib.Path, devices: int, steps: int = STEPS):
        """Trains until `steps` updates are made; returns the state, and digests of the batches and of the prompts taken."""
        batches, prompts = Recorded(self._settings["data"]), Recorded(Prompts(8))
        learner = self._settings["learner"]
        settings = self._settings | {"data": batches, "initial_checkpoint_path": self.base()}
        settings["learner"] = learner(prompts) if callable(learner) else learner
        state = train(model_dir, steps, devices, **settings)
        return state, batches.taken, prompts.taken


def train(model_dir: pathlib.Path, steps: int, devices: int = 8, **settings):
    checkpoint = training.CheckpointConfig(period=1, keep=None, asynchronous=False)
    return training.train(
        model_dir=str(model_dir),
        train_steps=steps,
        mesh=mesh_of(devices, *MESHES[devices]),
        checkpoint=checkpoint,
        tensorboard=False,
        **settings,
    )


def stopped_after(step: int, whole: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A copy of a run's folder as it was when its process was killed after this step, before the next was saved."""
    shutil.copytree(whole, folder)
    for path in (folder / "checkpoints").iterdir():
        if int(path.name) > step:
            shutil.rmtree(path)
    return folder


def metrics(model_dir: pathlib.Path) -> list[dict[str, float]]:
    """The lines of metrics.jsonl without times."""
    found = [json.loads(line) for line in (model_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("timing/")} for line in found]


def assert_bitwise(state, other) -> None:
    """Raises an AssertionError where two states differ in a bit: step, parameters, optimizer and the learner's own part."""
    flat, others = (jax.tree_util.tree_leaves_with_path(tree) for tree in (state, other))
    assert [path for path, _ in flat] == [path for path, _ in others]
    for (path, mine), (_, theirs) in zip(flat, others, strict=True):
        # Another process has the other shards, and compares them.
        for one, two in zip(mine.addressable_shards, theirs.addressable_shards, strict=True):
            same = np.asarray(one.data).tobytes() == np.asarray(two.data).tobytes()
            assert same and one.index == two.index, f"{jax.tree_util.keystr(path)} differs"
