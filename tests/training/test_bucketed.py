"""Short batches train as the same rows in full length do, for every kind of learner; what is compiled, and when."""

import dataclasses
import json

import jax
import jax.monitoring
import numpy as np
import optax
import pytest

from lmirl_jax import objectives, online, training
from lmirl_jax.data import Packer
from lmirl_jax.online.policy_loss import Loss
from lmirl_jax.training.learner import Setting
from lmirl_jax.training.state import init_params
from lmirl_jax.types import UserError
from tests.models.families import FAMILIES
from tests.online import fakes
from tests.training.fakes import FakeData, FakeIterator, make_batch, mesh_of

KEY = jax.random.key(0)
EOS = 1
# The longest prompt has 8 tokens, and the longest answer 9.
SHORT, FULL = {"inputs": 8, "targets": 12}, {"inputs": 24, "targets": 32}


def batch_of(lengths, with_rewards=True):
    """Examples of all kinds in rows of these lengths: weighted, rewarded, truncated, and a conversation."""
    random = np.random.default_rng(0)

    def tokens(size, ends=True):
        ids = random.integers(3, 60, size).astype(np.int32)
        ids[-1:] = EOS if ends else 7
        return ids

    conversation = tokens(9)
    conversation[2] = EOS
    found = [
        (tokens(8), tokens(4), {"weight": 2.5}),
        (tokens(2), tokens(3), {"weight": 0.0}),
        (tokens(2), tokens(3), {"rewards": np.array([0.5, -1.0, 2.0], np.float32)}),
        (tokens(4), tokens(5, ends=False), {"weight": 0.5}),
        (tokens(0), tokens(1), {}),
        (tokens(3), conversation, {"turns": [(0, 3), (6, 9)], "weight": 1.5}),
    ]
    rows = Packer(8, lengths=lengths, discount=0.9, eos_ids=(EOS,), packed=False, with_rewards=with_rewards)
    for inputs, targets, more in found:
        if not with_rewards:
            more.pop("rewards", None)
        assert rows.add(inputs, targets, **more) is not None
    return rows.batch()


def trained(config, learner, batch, steps=3, microbatches=1):
    """The parameters and the metrics of some updates."""
    setting = Setting(config, optax.sgd(0.05), mesh_of(1, 1, 1, 1), KEY, 8, microbatches)
    updates = learner.start(setting)
    params = init_params(config, KEY)
    state = training.TrainState(
        np.zeros((), np.int32), params, setting.optimizer.init(params), updates.extra(params, KEY)
    )
    history = []
    for step in range(1, steps + 1):
        if updates.draws_before(step):
            state = updates.draw(state)
        state, metrics = updates.step(state, batch)
        history.append({name: float(value) for name, value in jax.device_get(metrics).items()})
    return jax.device_get(state.params), history


def assert_same(one, other):
    for ours, theirs in zip(one[1], other[1], strict=True):
        assert ours.keys() == theirs.keys() and ours["padding_share"] < theirs["padding_share"] - 0.1
        for name in ours.keys() - {"padding_share"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, atol=1e-6, err_msg=name)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), one[0], other[0])


def model(name):
    return dataclasses.replace(FAMILIES[name], vocab_size=128, dropout_rate=0.0)


@pytest.mark.parametrize(
    ("name", "objective"), [("t5_1_1", "iqlearn"), ("llama", "iqlearn"), ("llama", "mle")]
)
def test_short_batches_train_as_long_ones_do(name, objective):
    """Loss, norm of the gradient and parameters in each step."""
    learner = training.Offline(getattr(objectives, objective), 0.3 if objective == "iqlearn" else 0.0)
    ours, theirs = (trained(model(name), learner, batch_of(lengths)) for lengths in (SHORT, FULL))
    assert_same(ours, theirs)


def test_in_parts_and_in_blocks_of_tokens():
    learner = training.Offline(objectives.iqlearn, 0.3, training.SoftQConfig(block_size=7))
    ours, theirs = (
        trained(model("t5_1_1"), learner, batch_of(lengths), microbatches=2) for lengths in (SHORT, FULL)
    )
    assert_same(ours, theirs)


def gail():
    """The discriminator and the policy's own loss both read the demonstrations."""
    loss = Loss(objectives.gae, mle_weight=0.5)
    prompts = online.Rollouts(fakes.Prompts(8))
    return online.PolicyGradient(prompts, online.Adversary(), loss, optimizer=optax.sgd(0.1))


def online_iqlearn():
    return online.OnlineIQLearn(objectives.iqlearn, online.Rollouts(fakes.Prompts(8)), 0.3, 0.3)


@pytest.mark.parametrize("make", [online_iqlearn, pytest.param(gail, marks=pytest.mark.slow)])
def test_online_learners_take_short_demonstrations(make):
    """The rollouts are equal, since their prompts have one shape."""
    ours, theirs = (
        trained(model("t5_1_1"), make(), batch_of(lengths, with_rewards=False), steps=2)
        for lengths in (SHORT, FULL)
    )
    assert_same(ours, theirs)


def test_prompts_of_rollouts_have_one_shape():
    prompts = fakes.Prompts(4)
    prompts.buckets = 2
    with pytest.raises(UserError, match=r"are bucketed, .* \(prompts/data.TrainDataset.buckets = 1\)"):
        online.Rollouts(prompts)


class Shapes(FakeData):
    """Batches of several shapes; notes how much has been compiled before each."""

    # Lengths of prompts and answers. The last one only has other prompts than the first.
    order = (7, 6), (7, 6), (7, 6), (5, 4), (7, 6), (5, 4), (6, 6), (5, 4), (7, 6), (6, 6), (7, 6)

    def __init__(self):
        super().__init__()
        self.compiled, self.noted = 0, []

    def heard(self, event, seconds, **_):
        self.compiled += event == "/jax/core/compile/backend_compile_duration"

    def iterator(self, rows):
        data = self

        class Iterator(FakeIterator):
            def __next__(self):
                data.noted.append(data.compiled)
                inputs, length = data.order[self._next % len(data.order)]
                self._next += 1
                return jax.tree.map(lambda x: x[rows], make_batch(self._next, 16, inputs, length))

        return Iterator(self.batch_size, rows)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 11 steps on two devices, and what it says."""
    folder, said = tmp_path_factory.mktemp("run"), []
    data = Shapes()
    jax.monitoring.register_event_duration_secs_listener(data.heard)
    patch = pytest.MonkeyPatch()
    patch.setattr("lmirl_jax.training.progress.Progress.say", lambda self, text: said.append(text))
    learner = training.Offline(objectives.iqlearn, 0.1)
    checkpoint = training.CheckpointConfig(period=100)
    fakes.train(folder, 11, data=data, model=fakes.MODEL, learner=learner, checkpoint=checkpoint)
    patch.undo()
    jax.monitoring.unregister_event_duration_listener(data.heard)
    return folder, data, said


def test_each_shape_is_compiled_once(run):
    _, data, _ = run
    # A step is compiled where its batch is asked for and the next one is not yet.
    compiles = np.diff(data.noted) > 0
    assert np.flatnonzero(compiles).tolist() == [0, 3, 6]


def test_what_each_shape_means_is_said_once(run):
    said = [text for text in run[2] if "soft Q-values" in text]
    assert len(said) == 2 and ["48 tokens" in text or "32 tokens" in text for text in said] == [True, True]


def test_compilations_are_no_times_of_steps(run):
    """The step before a compilation ends while the next one is compiled."""
    lines = [json.loads(line) for line in (run[0] / "metrics.jsonl").read_text().splitlines()]
    timed = [line["step"] for line in lines if "timing/seconds_per_step" in line]
    assert timed == [2, 4, 5, 7, 8, 9, 10, 11]
