"""The policy-gradient learner: every recipe on any mesh and in parts, at chance, resumed, and whether it learns at all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lmirl_jax import objectives, online, training
from lmirl_jax.online.policy_loss import Loss
from lmirl_jax.types import UserError
from tests.batches import rollout_batch_of
from tests.online import fakes
from tests.online.fakes import MODEL, Prompts, lines
from tests.training.fakes import mesh_of


def favourite(prompt: str, answer: str) -> float:
    """How many of an answer's tokens are even."""
    return float(sum(int(token) % 2 == 0 for token in answer.split()))


def learner(
    reward=None,
    advantages=objectives.gae,
    rollouts=None,
    share_trunk=False,
    rows=16,
    optimizer=optax.sgd(0.1),
    **loss,
):
    return online.PolicyGradient(
        online.Rollouts(Prompts(rows), **(rollouts or {})),
        online.Adversary() if reward is None else reward,
        Loss(advantages, **loss),
        optimizer,
        share_trunk,
    )


def gail(**changes):
    settings = {"kl_weight": 0.1, "entropy_weight": 0.01, "mle_weight": 1.0}
    return learner(online.Adversary(label_smoothing=0.1), **settings | changes)


def gad(**changes):
    groups = {"samples_per_prompt": 2}
    return learner(
        online.PairwiseAdversary(updates=2, gradient_penalty=0.01),
        objectives.group_relative,
        groups,
        rows=8,
        whiten=False,
        **changes,
    )


RECIPES = {
    "gail": gail,
    "shared": lambda: gail(share_trunk=True),
    "gad": gad,
    "grpo": lambda: learner(
        online.RewardFunction(favourite),
        objectives.leave_one_out,
        {"samples_per_prompt": 4, "sample_every": 2},
        rows=4,
        kl_weight=0.1,
    ),
    "grpo of answers": lambda: learner(
        online.RewardFunction(favourite),
        objectives.group_relative,
        {"samples_per_prompt": 4},
        rows=4,
        whiten=False,
        mean_over="answers",
        mask_truncated=True,
    ),
}


@pytest.fixture(scope="module", params=list(RECIPES))
def recipe(request, updates_of):
    """A recipe, and two updates with it on one device."""
    make = RECIPES[request.param]
    return make, updates_of(make())


def test_any_mesh_and_parts_equal_one_device(recipe, updates_of):
    """Policy, values, discriminator and first policy on a mesh of all axes; with groups of answers in two parts at once."""
    make, (state, history) = recipe
    grouped = make().rollouts.samples_per_prompt > 1
    mesh, parts = (mesh_of(4, 1, 2, 2), 2) if grouped else (mesh_of(8, 2, 2, 2), 1)
    spread, metrics = updates_of(make(), mesh, microbatches=parts)
    for ours, theirs in zip(metrics, history, strict=True):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5, err_msg=name)
    one, other = (x.extra["replay"].experience.answers.tokens for x in (spread, state))
    np.testing.assert_array_equal(one, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), spread.params, state.params)


def test_what_is_watched(recipe):
    make, (state, history) = recipe
    metrics = history[-1]
    asked = {"loss", "loss_policy", "clip_share", "samples/return", "samples/advantage_std", "target_tokens"}
    asked |= {"kl", "kl_weight"} if make().loss.needs_reference else set()
    asked |= {"value/loss"} if make().loss.needs_values else set()
    if make().adversary is not None:
        asked |= {"discriminator/loss", "discriminator/accuracy"}
        np.testing.assert_allclose(history[0]["samples/return"], 0, atol=1e-6)  # At chance.
    assert asked <= set(metrics)
    assert history[0]["samples/log_prob_gap"] < 1e-5
    names = set(state.extra) - {"replay", "reference"}
    assert names == ({"_and_".join(make().heads)} if make().share_trunk else set(make().heads))


def test_at_chance_the_policy_does_not_move(updates_of):
    """Heads begin at 0: no reward, no advantage, and no gradient, however long the answers are."""
    _, history = updates_of(learner(), steps=1)
    assert history[0]["gradient_norm"] == 0
    assert history[0]["samples/advantage_std"] == 0
    assert history[0]["discriminator/gradient_norm"] > 0


def test_what_the_loss_is_a_mean_over():
    """By hand, of answers of three tokens and of one, EOS included, and one that was truncated after four."""
    tokens = jnp.array([[5, 6, 1, 0], [5, 6, 7, 8], [1, 0, 0, 0]])
    answers = rollout_batch_of(np.ones((3, 1)), tokens)
    losses = np.array([[1.0, 2.0, 6.0, 99.0], [10.0, 20.0, 30.0, 40.0], [8.0, 99.0, 99.0, 99.0]])

    def mean(**settings):
        weights = np.asarray(Loss(objectives.leave_one_out, **settings).weights(answers))
        return np.sum(weights * losses) / np.sum(weights)

    assert mean() == pytest.approx(117 / 8)
    assert mean(mean_over="answers") == pytest.approx((3 + 25 + 8) / 3)
    assert mean(mask_truncated=True) == pytest.approx(17 / 4)
    assert mean(mean_over="answers", mask_truncated=True) == pytest.approx((3 + 8) / 2)


def test_a_draw_of_truncated_answers_alone_moves_nothing(updates_of):
    masked = learner(
        online.RewardFunction(favourite),
        objectives.leave_one_out,
        {"samples_per_prompt": 2},
        rows=1,
        mask_truncated=True,
    )
    _, history = updates_of(masked, steps=6)
    alone = [m for m in history if m["samples/truncated"] == 1]
    assert alone and all(m["loss"] == 0 and m["gradient_norm"] == 0 for m in alone)


def even(prompt, answer, tokens):
    return [token % 2 == 0 for token in tokens]


def test_policy_value_and_discriminator_learn_by_adafactor(updates_of):
    """Each with factored moments of its own layers."""
    optimizer = training.adafactor(1e-2, min_dim_size_to_factor=8)
    state, history = updates_of(gail(optimizer=optimizer), mesh_of(8, 2, 2, 2), steps=2, optimizer=optimizer)
    assert np.isfinite(history[-1]["loss"])
    trunks = [state, state.extra["value"], state.extra["discriminator"]]
    for of, params in zip(trunks, ["", "trunk/", "trunk/"], strict=True):
        moments = {
            jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(of.opt_state)
        }
        (rows,) = [x for name, x in moments.items() if f"v_row/{params}decoder/layers/mlp/wo/kernel" in name]
        assert rows.shape == (MODEL.num_decoder_layers, MODEL.mlp_dim, 1) and np.all(rows > 0)


def test_a_reward_function_is_learnt(updates_of):
    """The share of even tokens rises from a half: by PPO with a learned value and several updates a draw."""
    adam = optax.adam(1e-2)
    ppo = learner(online.RewardFunction(even), rollouts={"sample_every": 2}, rows=64, optimizer=adam)
    _, history = updates_of(ppo, steps=24, optimizer=adam)
    shares = [float(m["samples/return"] / m["samples/length"]) for m in history]
    assert np.mean(shares[-4:]) > np.mean(shares[:2]) + 0.15
    assert history[0]["clip_share"] == 0


def train(model_dir, train_steps=4, **changes):
    settings = {"model": MODEL, "learner": gail(rollouts={"sample_every": 2})}
    return fakes.train(model_dir, train_steps, **settings | changes)


def test_resumed_between_two_draws_equals_uninterrupted(tmp_path, caplog):
    """Three networks, the first policy and the answers in use are part of the checkpoint."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    state = train(whole)
    assert "from scratch: rollouts of random parameters teach nothing" in caplog.text
    train(parts, train_steps=3)
    again = train(parts)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(again), jax.device_get(state))
    assert lines(parts) == lines(whole)
    with pytest.raises(UserError, match=r"made by another learner: discriminator/\S+ is .* missing here"):
        train(parts, train_steps=5, learner=gail(rollouts={"sample_every": 2}, share_trunk=True))


def test_a_run_begins_as_its_checkpoint(tmp_path):
    """Policy, first policy and trunks: at the first update the divergence is 0 and only heads differ from a fresh one."""
    train(tmp_path / "mle", learner=training.Offline(objectives.mle), train_steps=2)
    frozen = training.adamw(training.constant(0.0))
    still = online.PolicyGradient(
        online.Rollouts(Prompts(16)), online.Adversary(), Loss(objectives.gae, kl_weight=1.0), frozen
    )
    state = train(
        tmp_path / "gail",
        learner=still,
        optimizer=frozen,
        train_steps=1,
        initial_checkpoint_path=str(tmp_path / "mle"),
    )
    params = jax.device_get(state.params)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.extra["reference"]), params)
    for name in ("value", "discriminator"):
        trunk = jax.device_get(state.extra[name].params["trunk"])
        jax.tree.map(np.testing.assert_array_equal, trunk, {k: params[k] for k in trunk})
    assert lines(tmp_path / "gail")[0]["train/kl"] == 0


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: learner(rollouts={"replay_size": 32}), r"REPLAY_SIZE=32: a policy gradient learns from its"),
        (lambda: learner(rollouts={"temperature": 0.5}), r"SAMPLE_TEMPERATURE=0.5: a policy gradient is of"),
        (
            lambda: learner(advantages=objectives.group_relative),
            r"SAMPLES_PER_PROMPT=1: ADVANTAGES=@objectives.group_relative compares .*@objectives.gae",
        ),
        (lambda: learner(clip=-0.1), r"clip=-0.1 must be a number of 0 or more"),
        (lambda: learner(kl_weight=-1), r"kl_weight=-1 must be a number of 0 or more, or a schedule"),
        (lambda: learner(mean_over="prompts"), r"mean_over='prompts' must be 'tokens' or 'answers'"),
        (lambda: learner(mle_weight=-1), r"mle_weight=-1 must be a number of 0 or more"),
        (lambda: online.RewardFunction("accuracy"), r"function='accuracy' must be a function"),
    ],
)
def test_settings_out_of_range_are_one_line(make, line):
    with pytest.raises(UserError, match=line):
        make()
