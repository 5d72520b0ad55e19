"""Rewards of the lines of an answer: at which tokens they are paid, and what is refused in one line."""

import math

import pytest

from lmirl_jax import data
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.step_rewards import line_ends
from lmirl_jax.types import UserError

ROW = {"inputs": "a", "targets": "bc\nd"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))


def example(path, **settings):
    return tokenized_records(data.get_task(data=path, **settings).tasks[0], "train").source[0]


def test_each_is_paid_at_the_last_token_of_its_line(write_jsonl):
    """Of bytes: b, c, newline, d, EOS."""
    assert example(write_jsonl([ROW | {"step_rewards": [0.5, -1]}])).features["rewards"] == [0, 0.5, 0, -1, 0]


def test_empty_lines_have_none(write_jsonl):
    row = {"inputs": "a", "targets": "b \n\n c\n", "step_rewards": [1, 2]}
    assert example(write_jsonl([row])).features["rewards"] == [1, 0, 0, 0, 0, 2, 0, 0]
    assert line_ends("") == [] and line_ends("\n \n") == []


def test_pieces_of_several_characters(write_jsonl, words_model):
    """The piece that ends the line; a model without a newline reads white space there."""
    row = {"inputs": "a", "targets": "compare 1 and 2\nthen x = 3", "step_rewards": [0.5, 2]}
    found = example(write_jsonl([row]), vocabulary_path=str(words_model))
    vocabulary = data.vocabulary(str(words_model))
    places = [place for place, reward in enumerate(found.features["rewards"]) if reward]
    assert [found.features["rewards"][place] for place in places] == [0.5, 2]
    tokens = found.targets.tolist()
    assert vocabulary.decode(tokens[: places[0] + 1]).strip() == "compare 1 and 2"
    assert vocabulary.decode(tokens[: places[1] + 1]).strip() == "compare 1 and 2 then x = 3"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"step_rewards": [1]}, "step_rewards has 1 numbers and the answer has 2 lines"),
        ({"step_rewards": 1}, "step_rewards is int, not a list"),
        ({"step_rewards": [1, None]}, "number 2 of step_rewards is NoneType, not a number"),
        ({"step_rewards": [1, math.nan]}, "number 2 of step_rewards is nan"),
        ({"step_rewards": [1, 2], "reward": 1}, "both 'step_rewards' and 'reward'"),
    ],
)
def test_what_is_refused(write_jsonl, more, words):
    with pytest.raises(UserError) as caught:
        example(write_jsonl([ROW | more]))
    assert words in str(caught.value) and "\n" not in str(caught.value)
