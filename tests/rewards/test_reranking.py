"""Samples are scored by a checkpoint: by their own tokens, in order, and by which of them is the best."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from flax import nnx

from lmirl_jax import data, runs, sharding
from lmirl_jax.evaluation import Answers
from lmirl_jax.models import T5Config
from lmirl_jax.objectives import implied_rewards
from lmirl_jax.rewards import Reranker, Scorer
from lmirl_jax.soft_q import from_model
from lmirl_jax.tasks import number_paths  # noqa: F401  Registers the task.
from tests.batches import rollout_batch_of
from tests.training.fakes import mesh_of

LENGTHS = {"inputs": 8, "targets": 23}
MODEL = T5Config(
    vocab_size=384,
    emb_dim=16,
    num_heads=4,
    head_dim=4,
    mlp_dim=32,
    num_encoder_layers=1,
    num_decoder_layers=1,
    dropout_rate=0.0,
)


@pytest.fixture(scope="module")
def prompts():
    return data.EvalDataset(data.get_task("number_paths"), LENGTHS, num_examples=6)


def run(prompts, seed=0, discount=1.0, mesh=None):
    mesh = mesh or mesh_of(1, 1, 1, 1)
    graph, state = nnx.split(MODEL.build(jax.random.key(seed)))
    params = jax.tree.map(lambda x: 4 * x, nnx.to_pure_dict(state))
    params = jax.device_put(params, sharding.parameter_shardings(mesh, state))
    return runs.Policy(epath.Path("unused"), MODEL, graph, params, mesh, prompts.task, LENGTHS, discount)


@pytest.fixture(scope="module")
def answers(prompts):
    """Four samples a prompt, of which the third is truncated."""
    random, found = np.random.default_rng(0), []
    for example in prompts.examples:
        tokens = [
            (*random.integers(3, 100, size - 1).tolist(), 7 if size == 23 else 1) for size in (6, 7, 23, 6)
        ]
        log_probs = tuple(tuple(-random.random(len(own))) for own in tokens)
        found.append(Answers(example, ("",) * 4, tuple(tokens), log_probs))
    return found


def dense(policy, prompts, answers, discount):
    """Returns, lengths and log-likelihoods, [prompts, samples], sample by sample without packing."""
    [(batch, _)] = prompts.batches(len(answers))
    count = len(answers[0].tokens)
    tokens = np.zeros((len(answers) * count, LENGTHS["targets"]), np.int32)
    for row, own in enumerate(own for answer in answers for own in answer.tokens):
        tokens[row, : len(own)] = own
    inputs = jnp.repeat(jnp.asarray(batch.prompt_tokens), count, axis=0)

    shown = rollout_batch_of(inputs, tokens, discount)

    @jax.jit
    def read(params):
        out = from_model(nnx.merge(policy.graph, params), shown)
        kept = shown.td_weights * implied_rewards(out, shown.discounts)
        faded = kept * discount ** jnp.arange(tokens.shape[1], dtype=jnp.float32)[None]
        return (
            faded.sum(axis=-1),
            shown.td_weights.sum(axis=-1),
            (shown.weights * (out.q - out.v)).sum(axis=-1),
        )

    return [np.asarray(x).reshape(-1, count) for x in read(policy.params)]


def with_own_likelihoods(answers, log_likelihoods):
    return [
        dataclasses.replace(answer, log_probs=tuple((float(x),) for x in own))
        for answer, own in zip(answers, log_likelihoods, strict=True)
    ]


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_scores_are_those_of_each_sample_alone(prompts, answers, discount):
    policy = run(prompts, discount=discount)
    returns, lengths, _ = dense(policy, prompts, answers, discount)
    scorer = Scorer(policy, batch_size=8, lengths=LENGTHS)
    found = list(Reranker(scorer)(prompts, iter(answers)))
    for row, answer in enumerate(found):
        np.testing.assert_allclose(answer.scores["return"], returns[row], rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(
            answer.scores["normalised_return"], (returns / lengths)[row], rtol=1e-5, atol=1e-4
        )
        sums = [sum(values) for values in answer.log_probs]
        np.testing.assert_allclose(answer.scores["log_likelihood"], sums, rtol=1e-6)
        assert answer.best["return"] == returns[row].argmax()
        assert dataclasses.replace(answer, scores={}) == answers[row]


def test_from_any_prompt_on_and_on_any_mesh_the_scores_are_the_same(prompts, answers):
    policy = run(prompts)
    whole = [answer.scores for answer in Reranker(Scorer(policy, batch_size=8))(prompts, iter(answers))]
    spread = run(prompts, mesh=mesh_of(8, 2, 2, 2))
    for model, skip in ((policy, 2), (policy, 5), (spread, 0)):
        found = list(Reranker(Scorer(model, batch_size=8))(prompts, iter(answers[skip:]), skip))
        assert len(found) == len(answers) - skip
        for answer, scores in zip(found, whole[skip:], strict=True):
            for name, values in scores.items():
                np.testing.assert_allclose(answer.scores[name], values, rtol=1e-5, atol=1e-4)


def test_at_gamma_1_the_return_under_the_policy_itself_chooses_as_its_log_likelihood(prompts, answers):
    """Of whole samples: the return has the prompt's value beside it. At another gamma, or by another checkpoint, it may not."""
    policy = run(prompts)
    answers = [without_third(answer) for answer in answers]
    answers = with_own_likelihoods(answers, dense(policy, prompts, answers, 1.0)[2])

    def choices(model):
        found = Reranker(Scorer(model, lengths=LENGTHS, batch_size=8))(prompts, iter(answers))
        best = [answer.best for answer in found]
        return [one["return"] for one in best], [one["log_likelihood"] for one in best]

    by_return, by_likelihood = choices(policy)
    assert by_return == by_likelihood
    for other in (run(prompts, discount=0.5), run(prompts, seed=5)):
        assert choices(other)[0] != by_likelihood and choices(other)[1] == by_likelihood


def without_third(answer: Answers) -> Answers:
    """The truncated one has no last reward."""

    def kept(values):
        return (*values[:2], *values[3:])

    fields = ("texts", "tokens", "log_probs")
    return dataclasses.replace(answer, **{name: kept(getattr(answer, name)) for name in fields})
