"""Packed rows train as rows of one example each do, for both kinds of model; and the share of padding."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from lmirl_jax import objectives, online, training
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.training.learner import Setting
from lmirl_jax.training.state import init_params
from lmirl_jax.training.sums import padding_share
from lmirl_jax.types import UserError
from tests.models.families import FAMILIES
from tests.online import fakes
from tests.training.fakes import FakeData, mesh_of
from tests.training.forms import EOS, assert_same, batch_of, train

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("name", "episodes"),
    [*((name, "turns") for name in ("t5_1_1", "t5gemma", "gemma3", "prefix")), ("gemma3", "conversation")],
)
def test_packed_rows_train_as_rows_of_one_example_do(name, episodes):
    """Loss, norm of the gradient and parameters in each step; windows and relative positions included."""
    config = dataclasses.replace(FAMILIES[name], dropout_rate=0.0)
    packed, alone = (batch_of(packed, episodes) for packed in (True, False))
    assert (packed.segment_ids.max(axis=1) > 2).any() and alone.segment_ids.max() == 1
    ours, theirs = train(config, packed), train(config, alone)
    assert_same(ours, theirs)
    assert ours[1][0]["padding_share"] < theirs[1][0]["padding_share"] - 0.1


def test_in_parts_as_in_one():
    config = dataclasses.replace(FAMILIES["llama"], dropout_rate=0.0)
    whole, parts = (train(config, batch_of(True), microbatches=count) for count in (1, 2))
    assert_same(whole, parts)
    assert whole[1][0]["padding_share"] == parts[1][0]["padding_share"]


def test_the_share_of_padding_by_hand():
    settings = {"lengths": {"inputs": 3, "targets": 5}, "discount": 1.0, "eos_ids": (EOS,)}
    texts = [([5, 1], [6, 7, 1]), ([1], [1])]
    rows = [example_row(np.array(a, np.int32), np.array(b, np.int32), **settings) for a, b in texts]
    assert padding_share(stack_rows(rows)) == pytest.approx(1 - 7 / 16)
    assert padding_share(stack_rows(rows, 4)) == pytest.approx(1 - 7 / 32)


def test_online_iqlearn_takes_packed_demonstrations():
    """The rollouts are equal, since their prompts are not packed."""
    config = dataclasses.replace(FAMILIES["t5_1_1"], vocab_size=128, dropout_rate=0.0)
    histories = []
    for packed in (True, False):
        batch = dataclasses.replace(batch_of(packed), rewards=None)
        prompts = fakes.Prompts(4)
        learner = online.OnlineIQLearn(objectives.iqlearn, online.Rollouts(prompts), 0.3, 0.3)
        setting = Setting(config, optax.sgd(0.05), mesh_of(1, 1, 1, 1), KEY, batch.tokens.shape[0])
        updates = learner.start(setting)
        params = init_params(config, KEY)
        state = training.TrainState(
            np.zeros((), np.int32), params, setting.optimizer.init(params), updates.extra(params, KEY)
        )
        state, metrics = updates.step(updates.draw(state), batch)
        histories.append((state.params, [{k: float(v) for k, v in metrics.items()}]))
    assert_same(*histories)


def packed_setting():
    config = FAMILIES["t5_1_1"]
    return Setting(config, optax.sgd(0.1), mesh_of(1, 1, 1, 1), KEY, 4, packed=True)


def test_a_discriminator_refuses_packed_demonstrations():
    loss = online.Loss(objectives.gae)
    learner = online.PolicyGradient(
        online.Rollouts(fakes.Prompts(4)), online.Adversary(), loss, optax.sgd(0.1)
    )
    with pytest.raises(UserError, match=r"PACK=True: the discriminator .* set it to False"):
        learner.start(packed_setting())


def test_prompts_of_rollouts_may_not_be_packed():
    prompts = fakes.Prompts(4)
    prompts.packed = True
    with pytest.raises(UserError, match="pack = False"):
        online.Rollouts(prompts)


def test_the_trainer_tells_learners_whether_demonstrations_are_packed(tmp_path):
    class Data(FakeData):
        def __init__(self):
            super().__init__()
            self.packed = True

    asked = []

    class Learner:
        def start(self, setting):
            asked.append(setting.packed)
            raise UserError("enough")

    with pytest.raises(UserError, match="enough"):
        fakes.train(tmp_path / "run", 1, data=Data(), model=fakes.MODEL, learner=Learner())
    assert asked == [True]
