"""Scores against a float64 computation from dense logits, and what they must not depend on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lmirl_jax import data, rewards, runs
from lmirl_jax.rewards.scoring import Scorer
from lmirl_jax.rows import example_row, stack_rows
from lmirl_jax.types import UserError
from tests.fakes import make_run
from tests.training.fakes import mesh_of

LENGTHS = {"inputs": 12, "targets": 30}
PROMPTS = ["3+8+5+9", "1+2", "7+7+7+7", "9+1+1", "2+2"]
ANSWERS = ["3+8=11 5+9=14 11+14=25", "3", "14+14=28", "9+1=10 10+1=11", "é"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring")
    return [str(make_run(folder / str(seed), seed=seed)) for seed in (0, 1)]


@pytest.fixture(scope="module")
def run(folders):
    return runs.load(folders[0], mesh_of(1, 1, 1, 1))


@pytest.fixture(scope="module")
def reference(folders):
    return runs.load(folders[1], mesh_of(1, 1, 1, 1))


@pytest.fixture(scope="module")
def pairs(run):
    made = zip(PROMPTS, ANSWERS, strict=True)
    return [data.make_pair(run.task, x, y, example=n) for n, (x, y) in enumerate(made)]


def dense(run, pair, discount):
    """q, v, reward and entropy of an answer alone, in float64 from the logits on."""
    row = example_row(pair.input_tokens, pair.target_tokens, lengths=LENGTHS, discount=discount, eos_ids=(1,))
    model = nnx.merge(run.graph, run.params)
    hidden = np.asarray(model.hidden(jax.tree.map(jnp.asarray, stack_rows([row]))), np.float64)[0]
    unembedding = model.unembedding()
    logits = unembedding.scale * hidden @ np.asarray(unembedding.kernel, np.float64)
    count = int(row.weights.sum())
    logits = logits[:count]
    v = np.log(np.exp(logits).sum(axis=-1))
    q = logits[np.arange(count), row.tokens[:count]]
    p = np.exp(logits - v[:, None])
    entropy = -(p * (logits - v[:, None])).sum(axis=-1)
    return q, v, q - discount * np.append(v[1:], 0.0), entropy


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_scores_are_those_of_dense_logits_in_float64(run, pairs, discount):
    found = list(Scorer(run, batch_size=2, lengths=LENGTHS, discount=discount)(pairs))
    assert [answer.targets for answer in found] == ANSWERS
    for pair, answer in zip(pairs, found, strict=True):
        q, v, reward, entropy = dense(run, pair, discount)
        close = {"rtol": 0, "atol": 1e-5}
        np.testing.assert_allclose(answer.q, q, **close)
        np.testing.assert_allclose(answer.v, v, **close)
        np.testing.assert_allclose(answer.reward, reward, **close)
        np.testing.assert_allclose(answer.log_prob, q - v, **close)
        np.testing.assert_allclose(answer.entropy, entropy, **close)
        total = sum(discount**t * r for t, r in enumerate(reward))
        np.testing.assert_allclose(answer.total, total, **close)
        np.testing.assert_allclose(answer.normalised_return, total / len(q), **close)
        np.testing.assert_allclose(answer.v_0, v[0], **close)
        np.testing.assert_allclose(answer.log_likelihood, (q - v).sum(), **close)
        # Telescoping: the discounted rewards are v_0 and the discounted log-likelihood.
        shares = discount ** np.arange(len(q))
        np.testing.assert_allclose(answer.total, answer.v_0 + shares @ answer.log_prob, rtol=0, atol=2e-5)


def by_number(answers):
    return {
        (a.example, a.candidate): np.concatenate([a.q, a.v, a.reward, a.log_prob, a.entropy]) for a in answers
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"packed": False},
        {"batch_size": 1},
        {"batch_size": 8},
        {"lengths": {"inputs": 40, "targets": 90}, "batch_size": 1},
    ],
)
def test_nothing_depends_on_the_batch_the_row_or_the_padding(run, pairs, settings):
    alone = by_number(Scorer(run, batch_size=2, lengths=LENGTHS, packed=False)(pairs))
    others = by_number(Scorer(run, **{"batch_size": 2, "lengths": LENGTHS} | settings)(pairs[::-1]))
    for number, values in alone.items():
        np.testing.assert_allclose(others[number], values, rtol=0, atol=1e-5)


def test_rows_are_shared(run, pairs):
    """Prompts of 8, 4, 8, 6 and 4 tokens with answers of 23, 2, 9, 15 and 3, in rows of 12 and 30."""
    counts = [
        len(list(Scorer(run, batch_size=1, lengths=LENGTHS, packed=bool(p))._batches(pairs, 0)))
        for p in (0, 1)
    ]
    assert counts == [5, 3]


@pytest.mark.parametrize("shape", [(2, 2, 2), (8, 1, 1), (1, 4, 2)])
def test_nor_on_the_mesh(run, folders, pairs, shape):
    one = by_number(Scorer(run, batch_size=8, lengths=LENGTHS)(pairs))
    eight = by_number(Scorer(runs.load(folders[0], mesh_of(8, *shape)), batch_size=8, lengths=LENGTHS)(pairs))
    for number, values in one.items():
        np.testing.assert_allclose(eight[number], values, rtol=0, atol=1e-5)


def test_correction_by_a_reference(run, reference, pairs):
    plain, other = (list(Scorer(model, lengths=LENGTHS)(pairs)) for model in (run, reference))
    corrected = list(Scorer(run, lengths=LENGTHS, reference=reference, beta=0.5)(pairs))
    for p, o, c in zip(plain, other, corrected, strict=True):
        assert c.reference_log_prob == o.log_prob and p.reference_log_prob is None
        expected = np.array(p.reward) - 0.5 * np.array(o.log_prob)
        np.testing.assert_allclose(c.reward, expected, rtol=0, atol=2e-6)
        np.testing.assert_allclose(c.total, expected.sum(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_shaping_by_the_value_leaves_log_pi(run, pairs, discount):
    plain = list(Scorer(run, lengths=LENGTHS, discount=discount)(pairs))
    shaped = list(Scorer(run, lengths=LENGTHS, discount=discount, shaping="value")(pairs))
    for p, s in zip(plain, shaped, strict=True):
        np.testing.assert_allclose(s.reward, p.log_prob, rtol=0, atol=5e-6)
        np.testing.assert_allclose(s.total, p.total - p.v_0, rtol=0, atol=2e-5)  # They telescope.


def test_a_truncated_answer_has_no_last_reward(run):
    pair = data.make_pair(run.task, "1+2", "1+2=3 3+3=6")
    (answer,) = Scorer(run, lengths={"inputs": 12, "targets": 6})([pair])
    assert answer.truncated and answer.pieces == ("1", "+", "2", "=", "3", " ")
    assert answer.reward[-1] is None and None not in answer.reward[:-1]
    np.testing.assert_allclose(answer.total, sum(answer.reward[:-1]), atol=1e-5)
    np.testing.assert_allclose(answer.normalised_return, answer.total / 5, atol=1e-5)
    np.testing.assert_allclose(answer.log_likelihood, sum(answer.log_prob), atol=1e-5)
    whole = next(iter(Scorer(run, lengths={"inputs": 12, "targets": 12})([pair])))
    assert not whole.truncated and whole.pieces[-1] == "" and None not in whole.reward
    np.testing.assert_allclose(whole.q[:6], answer.q, rtol=0, atol=1e-5)


def test_returns_are_centred_within_a_prompt(run):
    scores = rewards.score(run, "1+2", ["3", "4", "3"])
    mean = scores.total.mean()
    np.testing.assert_allclose([a.centred_return for a in scores], scores.total - mean, atol=2e-6)
    assert scores.answers[0].centred_return == scores.answers[2].centred_return
    assert next(iter(rewards.score(run, ["1+2"], ["3"]))).centred_return is None


@pytest.mark.parametrize("skip", range(10))
def test_it_goes_on_from_any_place_with_the_very_same_numbers(run, skip):
    made = [
        data.make_pair(run.task, "1+2", "3" * (n + 1), example=n // 3, candidate=n % 3, candidates=3)
        for n in range(9)
    ]
    scorer = Scorer(run, batch_size=1, lengths=LENGTHS)
    assert list(scorer(made, skip)) == list(scorer(made))[skip:]


def test_scores_as_arrays(run):
    scores = rewards.score(run, ["1+2", "3+4"], ["3", "12"], discount=0.9)
    assert len(scores) == 2 and scores.q.shape == scores.reward.shape == (2, 3)
    assert np.isnan(scores.q[0]).tolist() == [False, False, True] and scores.tokens[0].tolist() == [54, 1, 0]
    assert scores.pieces == [("3", ""), ("1", "2", "")]
    np.testing.assert_array_equal(scores.total, [a.total for a in scores])
    np.testing.assert_allclose(np.nansum(scores.log_prob, axis=1), scores.log_likelihood, atol=1e-5)
    cut = rewards.score(run, ["1+2"], ["333"], lengths={"inputs": 4, "targets": 2})
    assert cut.truncated.tolist() == [True] and np.isnan(cut.reward[0]).tolist() == [False, True]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"discount": 1.5}, "discount=1.5 must be a number from 0 to 1"),
        ({"beta": -1.0}, r"beta=-1\.0 must be a number of 0 or more"),
        ({"shaping": "vale"}, "shaping='vale' must be 'value', or None"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number of 1 or more"),
        ({"batch_size": True}, "batch_size=True must be a whole number of 1 or more"),
    ],
)
def test_settings_out_of_range(run, settings, message):
    with pytest.raises(UserError, match=message):
        Scorer(run, **settings)


def test_texts_that_do_not_pair(run):
    with pytest.raises(UserError, match="2 prompts and 1 answers; give one for each, or one prompt for all"):
        rewards.score(run, ["a", "b"], ["c"])
    with pytest.raises(UserError, match="targets must be a list of answers"):
        rewards.score(run, "a", "b")


def test_a_line_comes_back(run):
    (answer,) = rewards.score(run, ["1+2"], ["3"])
    row = dataclasses.replace(answer, metrics={"accuracy": 1.0}).to_row()
    assert row["return"] == answer.total and row["offsets"] == [[0, 1], [1, 1]]
    assert rewards.ScoredAnswer.from_row(row, "here").metrics == {"accuracy": 1.0}
    del row["q"]
    with pytest.raises(UserError, match="here: no q, so this is no line of lmirl score"):
        rewards.ScoredAnswer.from_row(row, "here")
