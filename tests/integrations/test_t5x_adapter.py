"""The adapter for T5X on a stand-in with T5X's signatures, so that it is tested where T5X is not installed."""

import functools
import importlib
import math
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmirl_jax import objectives, soft_q
from lmirl_jax.rows import empty_row, put_example, stack_rows
from lmirl_jax.training import annealed
from lmirl_jax.types import UserError

FAKE = pathlib.Path(__file__).resolve().parent / "fake_t5x"
ADAPTER = "lmirl_jax.integrations.t5x"
EOS = 1
LOG2 = math.log(2)


@pytest.fixture(scope="module")
def t5x():
    """`lmirl_jax.integrations.t5x` over the stand-in, whether T5X is installed or not."""

    def loaded() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] == "t5x" or name == ADAPTER]

    installed = {name: sys.modules.pop(name) for name in loaded()}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FAKE)
        yield importlib.import_module(ADAPTER)
    for name in loaded():
        del sys.modules[name]
    sys.modules.update(installed)


def make_model(t5x, kind="EncoderDecoderModel", eos_id=EOS, **options):
    """A model whose parameters are its logits; dropout makes them twice as large."""
    vocabulary = types.SimpleNamespace(eos_id=eos_id)
    module = lambda params, batch, dropout_rng: params if dropout_rng is None else 2 * params  # noqa: E731
    return getattr(t5x.models, kind)(module, vocabulary, vocabulary, **options)


def computed(metrics: dict) -> dict[str, float]:
    return {name: float(metric.compute()) for name, metric in metrics.items()}


# A packed row: an answer that ends with EOS, one that is truncated, and padding.
PACKED = {
    "encoder_input_tokens": jnp.array([[7, 1, 8, 0, 0, 0]]),
    "encoder_segment_ids": jnp.array([[1, 1, 2, 0, 0, 0]]),
    "decoder_target_tokens": jnp.array([[2, 1, 3, 3, 0]]),
    "decoder_segment_ids": jnp.array([[1, 1, 2, 2, 0]]),
    "decoder_loss_weights": jnp.array([[1.0, 1.0, 1.0, 1.0, 0.0]]),
}
# So that q is 2, 1, log 5 and 0 times log 2, and v is log 8 in each place but the last two, where it is log 4.
LOGITS = jnp.log(
    jnp.array([[[1.0, 1, 4, 2], [1, 2, 3, 2], [1, 1, 1, 5], [1, 1, 1, 1], [1, 1, 1, 1]]], jnp.float32)
)
CROSS_ENTROPY = LOG2 + 2 * LOG2 + math.log(8 / 5) + 2 * LOG2
REWARDS = np.array([-LOG2, LOG2, math.log(5 / 4)])


def test_iqlearn_by_hand(t5x):
    """The first answer's rewards are log 4 - log 8 and log 2; the second's first is log 5 - log 4, and its last has none."""
    model = t5x.with_objective(make_model(t5x), objective=objectives.iqlearn, td_weight=0.5)
    loss, metrics = model.loss_fn(LOGITS, PACKED, None)
    penalty = 0.5 * np.sum(REWARDS**2)
    np.testing.assert_allclose(loss, CROSS_ENTROPY + penalty, rtol=1e-6)
    found = computed(metrics)
    entropies = [1.75 * LOG2, 3 * LOG2 - (4 * LOG2 + 3 * math.log(3)) / 8, math.log(8) - 5 / 8 * math.log(5)]
    expected = {
        "loss": CROSS_ENTROPY + penalty,
        "z_loss": 0.0,
        "cross_ent_loss": CROSS_ENTROPY,
        "cross_ent_loss_per_nonpadding_target_token": CROSS_ENTROPY / 4,
        "cross_ent_loss_per_all_target_tokens": CROSS_ENTROPY / 5,
        "td_loss": penalty,
        "td_loss_per_nonpadding_target_token": penalty / 4,
        "td_loss_per_all_target_tokens": penalty / 5,
        "reward": np.mean(REWARDS),
        "entropy": (sum(entropies) + math.log(4)) / 4,
        "tokens/encoder": 3,
        "tokens/decoder": 4,
    }
    assert found == pytest.approx(expected, rel=1e-6)


def test_gamma_weights_and_the_loss_normalizing_factor_by_hand(t5x):
    """The weights of an example count its likelihood, its penalty and its reward so often; a number divides the loss."""
    batch = PACKED | {"decoder_loss_weights": jnp.array([[3.0, 3.0, 1.0, 1.0, 0.0]])}
    plain = make_model(t5x, loss_normalizing_factor=10.0)
    model = t5x.with_objective(plain, objective=objectives.iqlearn, td_weight=0.5, discount=0.5)
    loss, metrics = model.loss_fn(LOGITS, batch, None)
    rewards = np.array([2 * LOG2 - 1.5 * LOG2, LOG2, math.log(5) - LOG2])
    likelihood = 3 * 3 * LOG2 + math.log(8 / 5) + 2 * LOG2
    penalty = 0.5 * np.sum([3, 3, 1] * rewards**2)
    np.testing.assert_allclose(loss, (likelihood + penalty) / 10, rtol=1e-6)
    found = computed(metrics)
    assert found["td_loss"] == pytest.approx(penalty / 10, rel=1e-6)
    assert found["reward"] == pytest.approx(np.sum([3, 3, 1] * rewards) / 7, rel=1e-6)


# One answer that ends with EOS and a truncated one, without segment ids and with weights in whole numbers, as T5X has rows.
UNPACKED = {
    "encoder_input_tokens": jnp.array([[7, 1], [8, 0]]),
    "decoder_target_tokens": jnp.array([[2, 1, 0], [3, 3, 3]]),
    "decoder_loss_weights": jnp.array([[1, 1, 0], [1, 1, 1]]),
}


def test_padding_ends_a_row_that_is_not_packed(t5x):
    discounts, has_reward = t5x.episodes(UNPACKED, EOS, 0.9)
    np.testing.assert_allclose(discounts, [[0.9, 0, 0], [0.9, 0.9, 0]])
    np.testing.assert_array_equal(has_reward, [[1, 1, 0], [1, 1, 0]])
    model = t5x.with_objective(make_model(t5x), objective=objectives.iqlearn, td_weight=0.5)
    found = computed(model.loss_fn(jnp.zeros((2, 3, 4)), UNPACKED, None)[1])
    assert found["tokens/encoder_input_tokens"] == 3 and found["tokens/decoder_target_tokens"] == 5


def random_packed(seed: int) -> tuple[dict, object]:
    """Rows of three random answers each, some truncated: T5X's batch, and ours by `lmirl_jax.rows`."""
    random = np.random.default_rng(seed)
    rows = []
    for _ in range(4):
        row, place = empty_row({"inputs": 1, "targets": 16}), 0
        for segment in (1, 2, 3):
            targets = random.integers(2, 9, random.integers(1, 5))
            targets[-1] = EOS if random.random() < 0.6 else 5
            put_example(
                row,
                np.array([3]),
                targets,
                eos_ids=(EOS,),
                discount=0.9,
                place=(0, place, segment),
            )
            place += len(targets)
        rows.append(row)
    batch = stack_rows(rows)
    theirs = {
        "encoder_input_tokens": batch.prompt_tokens,
        "decoder_target_tokens": batch.tokens,
        "decoder_segment_ids": batch.segment_ids,
        "decoder_loss_weights": batch.weights,
    }
    return jax.tree.map(jnp.asarray, theirs), jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize("seed", range(5))
def test_packed_targets_are_marked_as_our_rows_are(t5x, seed):
    theirs, ours = random_packed(seed)
    discounts, has_reward = t5x.episodes(theirs, EOS, 0.9)
    np.testing.assert_allclose(discounts, ours.discounts)
    np.testing.assert_array_equal(has_reward, ours.td_weights)


def with_prompts(theirs: dict, ours: object) -> tuple[dict, np.ndarray]:
    """The rows of a decoder-only model: a prompt of two tokens, the second EOS, before each answer; and where answers lie."""
    rows, answers = [], []
    for tokens, segments in zip(*(np.asarray(x) for x in (ours.tokens, ours.segment_ids)), strict=True):
        made, kept = [], []
        for segment in range(1, segments.max() + 1):
            answer = tokens[segments == segment]
            made += [(6, segment, 0), (EOS, segment, 0), *((token, segment, 1) for token in answer)]
            kept += [False, False, *[True] * len(answer)]
        padding = 24 - len(made)
        rows.append(made + [(0, 0, 0)] * padding)
        answers.append(kept + [False] * padding)
    tokens, segments, weights = np.moveaxis(np.array(rows), 2, 0)
    batch = {
        "decoder_target_tokens": tokens,
        "decoder_segment_ids": segments,
        "decoder_loss_weights": weights,
    }
    return jax.tree.map(jnp.asarray, batch), np.array(answers)


@pytest.mark.parametrize("seed", range(3))
def test_answers_of_a_decoder_only_model_are_marked_as_those_of_an_encoder_decoder(t5x, seed):
    """Packed and not; no token of a prompt has a discount or a reward, its EOS neither."""
    theirs, ours = random_packed(seed)
    batch, answers = with_prompts(theirs, ours)
    real = np.asarray(ours.segment_ids) > 0
    for found, expected in zip(t5x.episodes(batch, EOS, 0.9), (ours.discounts, ours.td_weights), strict=True):
        np.testing.assert_allclose(found[answers], expected[real])
        np.testing.assert_array_equal(found[~answers], 0.0)
    one = {name: x[:1, :6] for name, x in batch.items() if name != "decoder_segment_ids"}
    discounts, _ = t5x.episodes(one, EOS, 0.9)
    np.testing.assert_array_equal(discounts[0, :2], 0.0)


@pytest.mark.parametrize("name", ["iqlearn", "gem"])
def test_a_decoder_only_model_has_the_loss_of_its_answers(t5x, name):
    """Logits of the prompts change neither the loss nor the metrics of the answers; their gradient is 0."""
    objective, options = OBJECTIVES[name]
    theirs, ours = random_packed(7)
    batch, answers = with_prompts(theirs, ours)
    real = np.asarray(ours.segment_ids) > 0
    logits = jax.random.normal(jax.random.key(0), (4, 16, 11))
    everywhere = 3 * jax.random.normal(jax.random.key(1), (4, 24, 11))
    everywhere = everywhere.at[jnp.asarray(answers)].set(logits[real])
    losses = {"loss_normalizing_factor": "NUM_REAL_TARGET_TOKENS"}
    settings = {"objective": objective, "td_weight": 0.3, "discount": 0.9, **options}
    model = t5x.with_objective(make_model(t5x, "DecoderOnlyModel", **losses), **settings)
    other = t5x.with_objective(make_model(t5x, **losses), **settings)
    (loss, metrics), gradient = jax.value_and_grad(model.loss_fn, has_aux=True)(everywhere, batch, None)
    (expected, expected_metrics), expected_gradient = jax.value_and_grad(other.loss_fn, has_aux=True)(
        logits, theirs, None
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient[answers], expected_gradient[real], atol=1e-7)
    np.testing.assert_array_equal(gradient[~answers], 0.0)
    found, expected = computed(metrics), computed(expected_metrics)
    for key in ("reward", "entropy"):
        assert found[key] == pytest.approx(expected[key], rel=1e-6), key


OBJECTIVES = {
    "iqlearn": (objectives.iqlearn, {}),
    "hellinger": (functools.partial(objectives.iqlearn, phi=objectives.hellinger), {}),
    "gem": (objectives.gem, {"temperature": 0.7}),
    "dft": (objectives.dft, {}),
    "focal": (objectives.focal, {}),
    "entropy": (objectives.entropy_regularised_mle, {}),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradient_are_those_of_the_objective(t5x, name):
    """The mean over target tokens, as our trainer computes it, where T5X is told to divide by their number."""
    objective, options = OBJECTIVES[name]
    theirs, ours = random_packed(7)
    logits = 2 * jax.random.normal(jax.random.key(0), (4, 16, 11))
    model = t5x.with_objective(
        make_model(t5x, loss_normalizing_factor="NUM_REAL_TARGET_TOKENS"),
        objective=objective,
        td_weight=0.3,
        discount=0.9,
        **options,
    )

    def our_loss(logits):
        out = soft_q.from_logits(logits, ours.tokens, with_entropy=True, **options)
        td = {"discounts": ours.discounts, "td_weight": 0.3 * ours.td_weights}
        per_token = objective(out, **(td if name in ("iqlearn", "hellinger") else {}))
        return jnp.sum(ours.weights * per_token) / jnp.sum(ours.weights)

    (loss, metrics), gradient = jax.value_and_grad(model.loss_fn, has_aux=True)(logits, theirs, None)
    expected, expected_gradient = jax.value_and_grad(our_loss)(logits)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gradient, expected_gradient, atol=1e-7)
    assert ("td_loss" in metrics) == (name in ("iqlearn", "hellinger"))


@pytest.mark.parametrize(
    "objective",
    [objectives.mle, functools.partial(objectives.iqlearn, td_weight=0.0)],
    ids=["mle", "iqlearn at 0"],
)
def test_maximum_likelihood_is_t5xs_own_loss(t5x, objective):
    """With its label smoothing and z-loss, bit for bit; its metrics of the same names too."""
    theirs, _ = random_packed(3)
    logits = jax.random.normal(jax.random.key(0), (4, 16, 11))
    plain = make_model(t5x, label_smoothing=0.1, z_loss=1e-2, loss_normalizing_factor=3.0)
    model = t5x.with_objective(plain, objective=objective)
    (loss, metrics), gradient = jax.value_and_grad(model.loss_fn, has_aux=True)(logits, theirs, None)
    (own_loss, own_metrics), own_gradient = jax.value_and_grad(plain.loss_fn, has_aux=True)(
        logits, theirs, None
    )
    assert loss == own_loss
    np.testing.assert_array_equal(gradient, own_gradient)
    found = computed(metrics)
    assert {name: found[name] for name in own_metrics} == computed(own_metrics)
    assert found["z_loss"] > 0


def test_label_smoothing_and_z_loss_stay_beside_another_objective(t5x):
    theirs, _ = random_packed(3)
    logits = jax.random.normal(jax.random.key(0), (4, 16, 11))

    def loss_of(objective, **options):
        model = t5x.with_objective(make_model(t5x, **options), objective=objective, td_weight=0.3)
        return model.loss_fn(logits, theirs, None)[0]

    options = {"label_smoothing": 0.1, "z_loss": 1e-2}
    added = loss_of(objectives.mle, **options) - loss_of(objectives.mle)
    assert abs(added) > 1
    np.testing.assert_allclose(
        loss_of(objectives.iqlearn, **options) - loss_of(objectives.iqlearn), added, rtol=1e-4
    )


def test_without_weights_each_token_counts_once_as_in_t5x(t5x):
    theirs, _ = random_packed(3)
    del theirs["decoder_loss_weights"]
    logits = jax.random.normal(jax.random.key(0), (4, 16, 11))
    plain = make_model(t5x)
    model = t5x.with_objective(plain, objective=objectives.mle)
    assert model.loss_fn(logits, theirs, None)[0] == plain.loss_fn(logits, theirs, None)[0]


def test_all_else_stays_the_models(t5x):
    """Evaluation has the same loss, without dropout; the model that was given keeps its own."""
    plain = make_model(t5x)
    model = t5x.with_objective(plain, objective=objectives.iqlearn, td_weight=0.5)
    assert isinstance(model, t5x.models.EncoderDecoderModel) and model.module is plain.module
    trained, _ = model.loss_fn(LOGITS, PACKED, jax.random.key(0))
    evaluated, _ = model.eval_fn(LOGITS, PACKED)
    assert evaluated == model.loss_fn(params=LOGITS, batch=PACKED, dropout_rng=None)[0] != trained
    np.testing.assert_allclose(plain.loss_fn(LOGITS, PACKED, None)[0], CROSS_ENTROPY, rtol=1e-6)


def own_loss_model(t5x):
    class WithAuxiliaryLoss(t5x.models.EncoderDecoderModel):
        def loss_fn(self, params, batch, dropout_rng):
            raise NotImplementedError

    vocabulary = types.SimpleNamespace(eos_id=EOS)
    return WithAuxiliaryLoss(None, vocabulary, vocabulary)


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda t5x: make_model(t5x, "BaseTransformerModel"), {}, "Model is no EncoderDecoderModel or Dec"),
        (own_loss_model, {}, "WithAuxiliaryLoss has a loss of its own"),
        (lambda t5x: make_model(t5x, eos_id=None), {}, "the output vocabulary has no EOS"),
        (make_model, {"objective": objectives.gem}, "SOFT_Q_TEMPERATURE"),
        (make_model, {"objective": objectives.chi_squared}, "objective=@chi_squared must be a loss"),
        (make_model, {"td_weight": annealed(0.0, 1.0, 0, 10)}, "td_weight=.* must be a number of 0 or more"),
        (make_model, {"discount": 1.5}, "discount=1.5 must be a number from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(t5x, make, options, words):
    with pytest.raises(UserError, match=words) as caught:
        t5x.with_objective(make(t5x), **({"objective": objectives.iqlearn} | options))
    assert "\n" not in str(caught.value)


def python(code: str, *path: pathlib.Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": ":".join(map(str, path)), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.e2e
def test_t5x_is_imported_only_when_asked_for(repository):
    code = (
        "import sys, lmirl_jax.integrations; print([name for name in ('t5x', 'clu') if name in sys.modules])"
    )
    assert python(code, repository) == "[]\n"


@pytest.mark.e2e
def test_the_gin_file_makes_the_model(repository):
    """Over whatever model T5X's files bind, with the objective files of ours after it; found as T5X finds its own files."""
    code = """
import gin, types
from t5x import models
class Vocabulary: eos_id = 1
gin.add_config_file_search_path(ROOT)
def read(*files, bindings=()):
    gin.clear_config()
    gin.parse_config_files_and_bindings(files, ["models.EncoderDecoderModel.module = 1",
        "models.EncoderDecoderModel.input_vocabulary = None", "models.EncoderDecoderModel.z_loss = 0.5",
        "models.EncoderDecoderModel.output_vocabulary = @Vocabulary()", *bindings])
    model = gin.query_parameter("%MODEL").scoped_configurable_fn()
    loss = model.loss_fn
    print(type(model).__name__, loss.objective.__name__, loss.td_weight, loss.discount, loss.temperature, model._z_loss)
gin.register(Vocabulary)
read("lmirl_jax/integrations/t5x.gin")
read("lmirl_jax/integrations/t5x.gin", bindings=["TD_WEIGHT = 0.5", "DISCOUNT = 0.9"])
read("lmirl_jax/integrations/t5x.gin", "gin/objectives/gem.gin")
""".replace("ROOT", repr(str(repository)))
    assert python(code, FAKE, repository).splitlines() == [
        "EncoderDecoderModel iqlearn 0.1 1.0 None 0.5",
        "EncoderDecoderModel iqlearn 0.5 0.9 None 0.5",
        "EncoderDecoderModel gem 0.0 1.0 0.7 0.5",
    ]
