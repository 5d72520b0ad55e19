"""`rewards.reward_function`: a plain callable for the trainers of other libraries."""

import numpy as np
import pytest

from lmirl_jax import rewards, runs
from lmirl_jax.tasks import number_paths
from lmirl_jax.types import UserError

PROMPTS = ["3+2+7+7", "3+2+7+7", "1+1"]
COMPLETIONS = ["7+7=14 3+2=5 14+5=19", "7+7=14", "1+1=2"]


@pytest.fixture(scope="module")
def reward():
    return rewards.reward_function(number_paths.model())


def test_a_completion_has_its_return(reward):
    given = reward(prompts=PROMPTS, completions=COMPLETIONS, completion_ids=[[1]], trainer_state=None)
    assert all(type(value) is float for value in given)
    expected = rewards.score(runs.load(number_paths.model()), PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(given, expected.total, atol=1e-4)
    # Telescoping: at gamma 1 the return is v_0 + log pi(completion).
    np.testing.assert_allclose(given, expected.v_0 + expected.log_likelihood, atol=1e-3)
    assert reward.__name__ == "lmirl_reward"


def test_conversations_of_one_message_are_texts(reward):
    def message(text):
        return [{"role": "user", "content": text}]

    texts = reward(PROMPTS[:1], COMPLETIONS[:1])
    assert reward([message(PROMPTS[0])], [message(COMPLETIONS[0])]) == texts


def test_a_long_completion_is_scored_whole(reward):
    short, long = reward(["1+1", "1+1"], ["1+1=2", "1+1=2 " * 60])
    assert np.isfinite([short, long]).all() and long < short


def test_the_mean_and_another_discount():
    mean = rewards.reward_function(number_paths.model(), normalised=True)
    total = rewards.reward_function(number_paths.model(), discount=0.0)
    scores = rewards.score(runs.load(number_paths.model()), PROMPTS, COMPLETIONS)
    np.testing.assert_allclose(mean(PROMPTS, COMPLETIONS), scores.normalised_return, atol=1e-4)
    np.testing.assert_allclose(total(PROMPTS, COMPLETIONS), scores.q[:, 0], atol=1e-4)


@pytest.mark.parametrize(
    ("prompts", "completions", "message"),
    [
        ([[{"content": "a"}, {"content": "b"}]], ["x"], "conversations of one message"),
        ([3], ["x"], "reads texts, or conversations"),
        (["a", "b"], ["x"], "2 prompts and 1 answers"),
        ([], [], "targets must be a list of answers"),
    ],
)
def test_what_it_cannot_read_is_told_in_one_line(reward, prompts, completions, message):
    with pytest.raises(UserError, match=message):
        reward(prompts, completions)
