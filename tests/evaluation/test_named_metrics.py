"""Metrics by name, against the libraries called directly and answers judged by hand."""

import sys

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from lmirl_jax import evaluation
from lmirl_jax.data.answer_metric import AnswerMetric
from lmirl_jax.types import UserError

REFERENCES = ["the cat sat on the mat", "a dog barked at the moon"]
ANSWERS = ["the cat lay on the mat", "the dog barked"]


def values(names, targets=REFERENCES, predictions=ANSWERS, **options):
    found = {}
    for function in evaluation.metric_functions(names, **options):
        found |= function(targets, predictions)
    return found


def test_names_give_what_the_libraries_do():
    found = values(["rouge", "bleu", "chrf", "exact_match"])
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeLsum"], use_stemmer=False)
    scores = [scorer.score(*pair) for pair in zip(REFERENCES, ANSWERS, strict=True)]
    for name in ("rouge1", "rouge2", "rougeLsum"):
        assert found[name] == pytest.approx(50 * sum(score[name].fmeasure for score in scores))
    assert found["bleu"] == sacrebleu.corpus_bleu(ANSWERS, [REFERENCES]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(ANSWERS, [REFERENCES]).score
    assert found["exact_match"] == 0.0
    assert evaluation.metric_functions(None) is None


def test_tokenizers_of_languages():
    reference, answer = ["我们今天去学校学习"], ["我们今天去公园学习"]
    assert values(["bleu"], reference, answer, bleu_tokenizer="zh") == {
        "bleu": sacrebleu.corpus_bleu(answer, [reference], tokenize="zh").score
    }
    assert values(["rouge"], reference, answer, rouge_tokenizer="ascii")["rouge1"] == 0.0
    # 7 of 9 characters are the same.
    assert values(["rouge"], reference, answer)["rouge1"] == pytest.approx(100 * 7 / 9)


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" (B)", "B"),
        ("B. both of them", "B"),
        ("**B**", "B"),
        ("B) both", "B"),
        ("A looks right, but the answer is (C).", "C"),
        ("Answer: D", "D"),
        ("The correct option is B because A is not.", "B"),
        ("It could be (A). No, it is (D)", "D"),
        ("A dog barks", None),
        ("Because", None),
        ("", None),
        ("The answer is not known", None),
    ],
)
def test_the_letter_that_an_answer_chooses(answer, letter):
    assert evaluation.chosen_letter(answer) == letter


def test_numbers_and_choices():
    answers = ["so it is 1,200.", "#### 7", "none", "about 3 or 4"]
    assert values(["number"], ["1200", "#### 8", "5", ["3", "4.0"]], answers) == {"number": 0.5}
    assert values(["multiple_choice"], ["B", "(C)"], ["B. yes", "the answer is D"]) == {
        "multiple_choice": 0.5
    }
    with pytest.raises(UserError, match="number: the reference of prompt 1 has none, 'many'"):
        values(["number"], ["1", "many"], ["1", "2"])
    with pytest.raises(UserError, match="multiple choice: the reference of prompt 0 has none, 'a dog'"):
        values(["multiple_choice"], ["a dog"], ["B"])


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "my_own_metrics.py").write_text(
        "def longer(prompt, answer, reference):\n    return len(answer) - len(reference) + len(prompt)\n"
        "def two(prompt, answer):\n    return 1\n"
        "def none(prompt, answer, reference):\n    return None\n"
        "def fails(prompt, answer, reference):\n    return 1 / 0\n"
        "number = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "my_own_metrics"
    sys.modules.pop("my_own_metrics", None)


def test_a_function_of_the_users_own(mine):
    (metric,) = evaluation.metric_functions([f"{mine}.longer"])
    assert isinstance(metric, AnswerMetric)
    # 3 - 1 + 2 = 4, and with two references the larger of 2 - 4 + 1 and 2 - 2 + 1.
    assert metric(["ab", "a"], ["x", ["four", "tw"]], ["abc", "ab"]) == {"longer": 2.5}
    assert metric([], [], []) == {}


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["rogue"], "METRICS: there is no 'rogue'; write 'rouge', or name a function"),
        (["zzz"], "METRICS: there is no 'zzz'; choose of exact_match"),
        (["bleu", "bleu"], "METRICS has 'bleu' twice"),
        (["my_own_metrics.two"], "cannot be called with a prompt, an answer and a reference"),
        (["my_own_metrics.number"], "my_own_metrics.number is no function"),
        (["my_own_metrics.absent"], "module 'my_own_metrics' has no 'absent'"),
        (["no_such_module_here.f"], "there is no module 'no_such_module_here'"),
        ([], "a list of one or more of exact_match"),
        ("bleu", "a list of one or more of exact_match"),
    ],
)
def test_mistakes_are_one_line(mine, names, line):
    with pytest.raises(UserError) as caught:
        evaluation.metric_functions(names)
    assert line in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"bleu_tokenizer": "zhh"}, {"rouge_tokenizer": "zh"}])
def test_unknown_tokenizers(options):
    with pytest.raises(UserError, match="_TOKENIZER"):
        evaluation.metric_functions(None, **options)


@pytest.mark.parametrize(
    ("name", "line"), [("none", "gave None for the answer 'a' to 'p'"), ("fails", "raised ZeroDivisionError")]
)
def test_a_function_that_gives_no_number(mine, name, line):
    (metric,) = evaluation.metric_functions([f"{mine}.{name}"])
    with pytest.raises(UserError, match=f"the metric {name} {line}"):
        metric(["p"], ["r"], ["a"])
