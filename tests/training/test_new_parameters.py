"""Runs that start from a checkpoint which lacks some of their parameters: refused, unless these are named."""

import dataclasses
import logging

import jax
import numpy as np
import optax
import pytest

from lmirl_jax import objectives, training
from lmirl_jax.training.state import init_params
from lmirl_jax.types import UserError
from tests.training.fakes import TINY, FakeData, mesh_of

TIED = dataclasses.replace(TINY, logits_via_embedding=True)
NEW = "logits_dense/kernel"


def train(model_dir, model, **changes):
    """One update that changes nothing."""
    settings = {
        "learner": training.Offline(objectives.iqlearn, 0.5),
        "optimizer": optax.set_to_zero(),
        "data": FakeData(),
        "mesh": mesh_of(1, 1, 1, 1),
        "seed": 5,
        "train_steps": 1,
        "tensorboard": False,
    }
    return training.train(model_dir=str(model_dir), model=model, **settings | changes)


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """A run whose unembedding is its embedding, and its parameters."""
    folder = tmp_path_factory.mktemp("tied")
    return str(folder), jax.device_get(train(folder, TIED, seed=1).params)


def test_a_checkpoint_that_lacks_a_parameter_is_refused_with_the_remedy(tied, tmp_path):
    with pytest.raises(UserError, match=rf"{NEW} is missing there.*NEW_PARAMETERS=\['{NEW}'\]"):
        train(tmp_path / "run", TINY, initial_checkpoint_path=tied[0])
    assert not (tmp_path / "run").exists()


def test_named_parameters_begin_at_random_and_the_others_as_the_checkpoints(tied, tmp_path, caplog):
    start = {"initial_checkpoint_path": tied[0], "new_parameters": ["logits_dense/.*"]}
    with caplog.at_level(logging.WARNING, "lmirl_jax"):
        params = dict(train(tmp_path / "run", TINY, **start).params)
    assert f"begin at random, not from {tied[0]}: {NEW}" in caplog.text
    new = params.pop("logits_dense")["kernel"]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), tied[1])
    random = init_params(TINY, jax.random.key(5))["logits_dense"]["kernel"]
    np.testing.assert_allclose(new, random, rtol=1e-6)
    # A resumed run has them from its own checkpoint.
    again = train(tmp_path / "run", TINY, train_steps=2, **start).params
    np.testing.assert_array_equal(again["logits_dense"]["kernel"], new)


@pytest.mark.parametrize(
    ("new", "path", "line"),
    [
        (["logit_dense/kernel"], True, f"matches no parameter; the nearest is '{NEW}'"),
        ([NEW], False, "goes with INITIAL_CHECKPOINT_PATH"),
        (["("], True, "new_parameters"),
    ],
)
def test_wrong_names_are_one_line(tied, tmp_path, new, path, line):
    with pytest.raises(UserError, match=line):
        train(tmp_path / "run", TINY, initial_checkpoint_path=tied[0] if path else None, new_parameters=new)
    assert not (tmp_path / "run").exists()
