"""Every objective learns the same from the same examples, however their rows are laid out, cut up and computed."""

import dataclasses
import operator

import jax
import numpy as np
import pytest

from lmirl_jax import configuration, training
from lmirl_jax.rows import stack_rows
from tests.models.families import FAMILIES
from tests.training.fakes import mesh_of
from tests.training.forms import assert_same, batch_of, train

OBJECTIVES = [path for path in configuration.bundled_files() if path.startswith("gin/objectives/")]
# One family reads prompts with an encoder, the other in the row itself; objectives take turns.
NAMES = ("t5_1_1", "qwen3")


@pytest.fixture(scope="module", params=OBJECTIVES)
def loss(request):
    """The loss of a gin file, with its weight of the TD part and what it needs of soft Q-values."""
    with configuration.restore_afterwards():
        given = ["MODEL_DIR = '/tmp/none'", "TRAIN_STEPS = 1", "MIXTURE_OR_TASK_NAME = 'number_paths'"]
        configuration.load(["gin/runs/finetune.gin", request.param], given)
        config = configuration.with_configuration(training.SoftQConfig)()
        yield training.TokenLoss(configuration.macro("OBJECTIVE"), configuration.macro("TD_WEIGHT"), config)


def test_rows_of_any_form_on_any_mesh(request, loss):
    """Rows of one example each on one device; and packed and padded, in parts of unequal numbers of tokens (of which a mean of
    means would be another), on eight devices, recomputed in the backward pass, and with the layers unrolled.
    """
    number = OBJECTIVES.index(request.node.callspec.params["loss"])
    config = dataclasses.replace(FAMILIES[NAMES[number % 2]], dropout_rate=0.0)
    packed = batch_of(True)
    rows = [jax.tree.map(operator.itemgetter(row), packed) for row in range(6)]
    other = jax.tree.map(lambda array: np.pad(array, ((0, 0), (0, 3))), stack_rows(rows, 8))
    assert (other.segment_ids.max(axis=1) > 2).any() and other.segment_ids[6:].max() == 0
    computed = dataclasses.replace(config, remat="full", scan_unroll=2)
    after = train(computed, other, loss=loss, steps=2, microbatches=2, mesh=mesh_of(8, 2, 2, 2))
    assert_same(after, train(config, batch_of(False), loss=loss, steps=2))
