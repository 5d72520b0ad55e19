"""What damages do to rewards, on values written by hand."""

import pytest

from lmirl_jax.rewards.corruption_effects import effects_of_corruptions
from lmirl_jax.rewards.corruptions import Corruption
from lmirl_jax.rewards.scored import ScoredAnswer


def scored(targets, reward, log_prob=None, truncated=False):
    """A character a token, EOS last unless the answer is truncated."""
    ends = [(i, i + 1) for i in range(len(targets))] + [(len(targets), len(targets))] * (not truncated)
    assert len(reward) == len(ends)
    total = sum(r for r in reward if r is not None)
    log_prob = tuple(log_prob or (r or 0.0 for r in reward))
    tokens = tuple(map(ord, targets)) + (1,) * (not truncated)
    return ScoredAnswer(
        *(0, 0, "p", targets, None, None, truncated, tokens, tuple(targets) + ("",) * (not truncated)),
        *(tuple(ends), log_prob, (0.0,) * len(ends), tuple(reward), log_prob, (0.0,) * len(ends), None),
        *(total, total / sum(r is not None for r in reward), None, 0.0, sum(log_prob), {}),
    )


ORIGINAL = scored("7+2", [0, 0, 0, 0])
DIGIT = Corruption("7+3", (2, 3), (2, 3), "digit")


def test_a_drop_at_the_place():
    pair = (ORIGINAL, scored("7+3", [0, -1, -3, 0], [0, 0, 1, 0]), DIGIT)
    (effect,) = effects_of_corruptions([pair])
    assert (effect.kind, effect.count) == ("digit", 1)
    assert (effect.return_drops, effect.normalised_return_drops) == (1, 1)
    assert (effect.site_drops, effect.located, effect.site_log_prob_drops) == (1, 1, 0)
    one_of_one = pytest.approx((1 / (1 + 1.959964**2), 1))
    assert effect.return_drops_interval == effect.site_drops_interval == effect.located_interval == one_of_one
    assert effect.examples == ((*pair[:2], (2, 3)),)


def test_a_drop_elsewhere_is_not_located_and_none_is_no_drop():
    elsewhere = (ORIGINAL, scored("7+3", [0, 0, -1, -2]), DIGIT)
    nowhere = (ORIGINAL, scored("7+3", [0, 0, 0, 0]), DIGIT)
    rises = (ORIGINAL, scored("7+3", [0, 0, 1, 0]), DIGIT)
    (effect,) = effects_of_corruptions([elsewhere, nowhere, rises])
    assert effect.return_drops == effect.site_drops == pytest.approx(1 / 3)
    assert effect.located == 0
    # (1/3 + z^2/6 -+ z sqrt(2/27 + z^2/36)) / (1 + z^2/3), z = 1.96.
    assert effect.return_drops_interval == pytest.approx((0.06149, 0.79234), abs=1e-4)
    # From the largest drop of the return to the smallest.
    assert [damaged.total for _, damaged, _ in effect.examples] == [-3, 0, 1]


def test_words_that_moved_are_compared_with_themselves():
    original = scored("ab cd", [-1, -1, -5, -2, -2, 0])
    dropped = scored("cd", [-3, -2, 0])
    (effect,) = effects_of_corruptions([(original, dropped, Corruption("cd", (0, 2), (3, 5), "dropped"))])
    # By itself the place fell from -2 to -2.5; the answer lost 9 nats of other words.
    assert (effect.return_drops, effect.normalised_return_drops, effect.site_drops) == (0, 0, 1)
    assert effect.located == 1


def test_an_empty_place_is_eos():
    early = Corruption("a", (1, 1), (3, 3), "early")
    pair = (scored("a b", [0, 0, 0, 0]), scored("a", [0, -4]), early)
    (effect,) = effects_of_corruptions([pair])
    assert (effect.site_drops, effect.located) == (1, 1)


def test_without_a_reward_there_is_no_place():
    cut = scored("7+3", [0, 0, None], truncated=True)
    (effect,) = effects_of_corruptions([(ORIGINAL, cut, DIGIT)])
    assert (effect.return_drops, effect.count) == (0, 1)
    assert (
        effect.site_drops
        is effect.site_drops_interval
        is effect.located
        is effect.located_interval
        is effect.site_log_prob_drops
        is None
    )
    (effect,) = effects_of_corruptions(
        [(ORIGINAL, cut, DIGIT), (ORIGINAL, scored("7+3", [0, 0, -1, 0]), DIGIT)]
    )
    assert (effect.return_drops, effect.site_drops) == (0.5, 1)


def test_kinds_keep_their_order():
    other = Corruption("7+3", (2, 3), (2, 3), "a")
    pairs = [(ORIGINAL, ORIGINAL, DIGIT), (ORIGINAL, ORIGINAL, other), (ORIGINAL, ORIGINAL, DIGIT)]
    assert [(effect.kind, effect.count) for effect in effects_of_corruptions(pairs)] == [
        ("digit", 2),
        ("a", 1),
    ]
    assert effects_of_corruptions([]) == []
