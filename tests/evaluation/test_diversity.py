import random

import numpy as np
import pytest
import sacrebleu

from lmirl_jax.evaluation import diversity
from lmirl_jax.types import UserError


def direct(samples, tokenize="13a"):
    """Self-BLEU as sacrebleu alone computes it, but that an empty text is predicted whole by another: there it has 0."""
    bleu = sacrebleu.BLEU(effective_order=True, tokenize=tokenize)
    means = []
    for texts in samples:
        scores = [bleu.sentence_score(t, [*texts[:i], *texts[i + 1 :]]).score for i, t in enumerate(texts)]
        empty = [not text.strip() for text in texts]
        if sum(empty) > 1:
            scores = [100.0 if none else score for none, score in zip(empty, scores, strict=True)]
        means.append(sum(scores) / len(scores))
    return sum(means) / len(means)


def random_samples(seed, words, prompts=5, count=4, longest=12):
    rng = random.Random(seed)
    text = lambda: " ".join(rng.choice(words) for _ in range(rng.randint(0, longest)))  # noqa: E731
    return [[text() for _ in range(count)] for _ in range(prompts)]


@pytest.mark.parametrize("tokenize", ["13a", "char", "none", "intl"])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_sacrebleu(seed, tokenize):
    samples = random_samples(seed, ["a", "b", "a,", "x-y.", "3+8=11", "&amp;", "ü"])
    assert diversity.self_bleu(samples, tokenize=tokenize) == pytest.approx(
        direct(samples, tokenize), rel=1e-12
    )


def test_agrees_with_sacrebleu_on_arithmetic():
    samples = [["3+8=11 5+9=14 11+14=25", "3+5=8 8+9=17 17+8=25", "3+8=11 11+5=16 16+9=25", "25", ""]]
    assert diversity.self_bleu(samples) == pytest.approx(direct(samples), rel=1e-12)


def test_agrees_with_sacrebleu_on_trailing_and_inner_white_space():
    samples = [["a b c \n", "a b\nc", "  a\tb c d"], ["-\nx y", "x y", "y x"]]
    assert diversity.self_bleu(samples) == pytest.approx(direct(samples), rel=1e-12)


def test_hand_worked_values():
    assert diversity.self_bleu([["a b c d", "a b c d"]]) == pytest.approx(100.0)
    assert diversity.self_bleu([["a b c d", "e f g h"]]) == 0.0
    # "a b" against "a c": 1 of 2 unigrams, 0 of 1 bigrams, smoothed to 1/2: sqrt(1/2 * 1/2).
    assert diversity.self_bleu([["a b", "a c"]]) == pytest.approx(50.0)
    # Each prompt counts once, however many samples it has.
    assert diversity.self_bleu([["a b", "a b"], ["c d", "e f", "g h", "i j"]]) == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([["", ""]], [100.0]),
        ([["", " \n"]], [100.0]),
        ([["", "", ""], ["a b", "a b"]], [100.0, 100.0]),
        ([["", "a b"]], [0.0]),  # Nothing of one in the other.
        ([["", "", "a b"]], [200 / 3]),  # Two are predicted whole, one not at all.
        ([["a", "a"]], [100.0]),
        ([["a b", "a b"], ["a b"] * 3], [100.0, 100.0]),  # One prompt may have more samples than another.
    ],
)
def test_equal_and_empty_samples(samples, expected):
    assert diversity.self_bleu_per_prompt(samples) == pytest.approx(expected)
    assert diversity.self_bleu(samples) == pytest.approx(sum(expected) / len(expected))


def test_self_bleu_per_prompt():
    assert diversity.self_bleu_per_prompt([["a b", "a b"], ["a b", "c d"]]) == pytest.approx([100.0, 0.0])


def test_a_count_is_clipped_at_the_best_reference():
    samples = [["a a a b", "a a b b", "a b"], ["a a a", "a a a", "a"]]
    assert diversity.self_bleu(samples) == pytest.approx(direct(samples), rel=1e-12)


def test_fast_enough():
    import time

    samples = random_samples(0, [str(i) for i in range(50)], prompts=50, count=16, longest=120)
    start = time.process_time()
    diversity.self_bleu(samples)
    assert time.process_time() - start < 3  # A twentieth of the minute that 1,000 prompts may take.


@pytest.mark.parametrize(
    "samples, message",
    [
        ([], "no samples"),
        ("ab", "samples is a str; give a list"),
        (["ab", "ac"], "prompt 0 is a str and no list of samples"),
        ([["a", "b"], "ab"], "prompt 1 is a str and no list of samples"),
        ([["a", "b"], ["a"]], "prompt 1 has 1 sample"),
        ([["a", "b"], []], "prompt 1 has 0 sample"),
    ],
)
def test_too_few_or_wrong_samples(samples, message):
    with pytest.raises(UserError, match=message) as error:
        diversity.self_bleu(samples)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([["a", "b"], None], "prompt 1 is a NoneType and no list of samples"),
        ({"a": ["b", "c"]}, "samples is a dict"),
        ([["a", None]], "prompt 0 has a NoneType among its samples"),
        ([[["a", "b"], ["a"]]], "prompt 0 has a list among its samples"),
        ([["a", 3]], "prompt 0 has a int among its samples"),
    ],
)
def test_samples_of_another_type(samples, message):  # Tests check the annotated types of what is public.
    with pytest.raises(UserError, match=message):
        diversity._check_samples("Self-BLEU", samples, least=2)


def test_unknown_tokenizer_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'char'"):
        diversity.self_bleu([["a", "b"]], tokenize="chars")
    with pytest.raises(UserError, match=r"choose one of .*13a"):
        diversity.self_bleu([["a", "b"]], tokenize="qqqqqq")


def test_distinct_n():
    samples = [["a b a", "a b"], ["a b c"]]
    assert diversity.distinct_n(samples, 1) == pytest.approx(3 / 8)
    assert diversity.distinct_n(samples, 2) == pytest.approx(3 / 5)  # ab ba ab ab bc
    assert diversity.distinct_n(samples, 3) == pytest.approx(2 / 2)
    assert diversity.distinct_n(samples, 4) == 0.0


def test_distinct_n_per_prompt():
    samples = [["a b a", "a b"], ["a b c"], ["x"]]
    assert diversity.distinct_n_per_prompt(samples, 1) == pytest.approx([2 / 5, 1.0, 1.0])
    assert diversity.distinct_n_per_prompt(samples, 2) == pytest.approx([2 / 3, 1.0, 0.0])


def test_distinct_n_errors():
    with pytest.raises(UserError, match="n is 0"):
        diversity.distinct_n([["a"]], 0)
    for function in (diversity.distinct_n, diversity.distinct_n_per_prompt):
        for empty in ([], [[], []]):
            with pytest.raises(UserError, match="no samples"):
                function(empty, 1)
        with pytest.raises(UserError, match=r"prompt 1 has 0 sample\(s\), at least 1"):
            function([["a"], []], 1)
        with pytest.raises(UserError, match="prompt 0 is a str and no list of samples"):
            function(["a b", "a c"], 1)


CHINESE = [["今天天气很好", "今天天气很坏"], ["今天天气很好", "我不喜欢下雨"]]


def test_scripts_without_spaces_are_compared_by_character():
    """As sacrebleu's own tokenizer of Chinese; at spaces each sentence would be one word, and any two as diverse as can be."""
    bleu = sacrebleu.BLEU(tokenize="zh", effective_order=True)
    expected = [
        (bleu.sentence_score(a, [b]).score + bleu.sentence_score(b, [a]).score) / 2 for a, b in CHINESE
    ]
    found = diversity.self_bleu_per_prompt(CHINESE)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[0] > 70 > found[1]
    assert diversity.self_bleu([["ร้อนมาก", "ร้อนมาก"]]) == pytest.approx(100)
    # 今 天 天 气 很 好 and 今 天 天 气 很 坏: 6 different characters of 12, and 6 different pairs of 10.
    assert diversity.distinct_n(CHINESE[:1], 1) == 6 / 12
    assert diversity.distinct_n_per_prompt(CHINESE[:1], 2) == [6 / 10]
    mixed = [["a 今天 b", "a 今天 b"]]
    assert diversity.distinct_n(mixed, 1) == 4 / 8
