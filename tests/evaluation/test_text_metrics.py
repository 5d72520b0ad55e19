"""BLEU, ChrF, ROUGE and exact match: hand-worked values, agreement with the libraries called directly, and intervals."""

import functools
import gzip
import inspect
import json

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from lmirl_jax import evaluation
from lmirl_jax.evaluation.bootstrap import resampling_weights
from lmirl_jax.types import UserError

TARGETS = [
    "The cat sat on the mat.",
    ["A dog barks.", "The dog is barking loudly."],
    ["One, two, three, four."] * 3,
]
PREDICTIONS = ["the cat sat on a mat.", "The dog barks.", "One, two, four."]
METRICS = [
    evaluation.bleu,
    evaluation.chrf,
    evaluation.sentence_bleu,
    evaluation.rouge,
    evaluation.exact_match,
]


def streams(targets):
    """References as sacrebleu takes them, padded with None."""
    lists = [[target] if isinstance(target, str) else target for target in targets]
    return [[own[i] if i < len(own) else None for own in lists] for i in range(max(map(len, lists)))]


@pytest.fixture(scope="module")
def captions(shared_data):
    """Of 100 pictures: the first English caption as a prediction, the other four as references."""
    folder = shared_data / "multi30k_en_de"
    files = [folder / f"test_2016.{n}.en.gz" for n in range(1, 6)]
    texts = [gzip.decompress(file.read_bytes()).decode().splitlines()[:100] for file in files]
    return [list(own) for own in zip(*texts[1:])], texts[0]


@pytest.fixture(scope="module")
def summaries(shared_data):
    """Of 60 papers: an abstract's first sentences, a line each, and several summaries."""
    lines = (shared_data / "scitldr" / "test.jsonl").read_text().splitlines()[:60]
    papers = [json.loads(line) for line in lines]
    return [paper["target"] for paper in papers], ["\n".join(paper["source"][:3]) for paper in papers]


def test_by_hand():
    # Of 4, 3, 2, 1 n-grams all are there; two words too few: exp(1 - 6/4).
    assert evaluation.bleu(["a b c d e f"], ["a b c d"])["bleu"] == pytest.approx(100 * np.exp(-0.5))
    # 1 of 2 words, 0 of 1 bigrams, smoothed to 1/2: sqrt(1/2 * 1/2).
    assert evaluation.sentence_bleu(["a c"], ["a b"])["sentence_bleu"] == pytest.approx(50.0)
    # Precision 2/3 and recall 2/4 of words: F = 4/7; of bigrams 1/2 and 1/3: F = 2/5; the subsequence "a b".
    scores = evaluation.rouge(["a b c d"], ["a b x"])
    assert scores == {k: pytest.approx(100 * v) for k, v in zip(scores, (4 / 7, 2 / 5, 4 / 7), strict=True)}
    assert evaluation.chrf(["abc"], ["abc"])["chrf"] == pytest.approx(100.0)
    assert evaluation.exact_match(["a", ["b", "c"], 3, "d "], ["a", "c", 3, "d"]) == {"exact_match": 0.75}


def test_of_several_references_rouge_takes_the_best_for_each_kind():
    alone = [evaluation.rouge([target], ["a b c d"]) for target in ("d c b a", "a b")]
    both = evaluation.rouge([["d c b a", "a b"]], ["a b c d"])
    assert both == {name: max(scores[name] for scores in alone) for name in both}
    assert both["rouge1"] == 100.0 and both["rouge2"] == pytest.approx(50.0)


@pytest.mark.parametrize("settings", [{}, {"tokenize": "intl", "lowercase": True}, {"tokenize": "char"}])
def test_bleu_agrees_with_sacrebleu(settings):
    metric = sacrebleu.BLEU(**settings)
    direct = metric.corpus_score(PREDICTIONS, streams(TARGETS)).score
    assert evaluation.bleu(TARGETS, PREDICTIONS, **settings) == {"bleu": direct}
    assert evaluation.bleu_signature(None, **settings) == str(metric.get_signature())


@pytest.mark.parametrize("settings", [{}, {"word_order": 2, "lowercase": True}])
def test_chrf_agrees_with_sacrebleu(settings):
    metric = sacrebleu.CHRF(**settings)
    direct = metric.corpus_score(PREDICTIONS, streams(TARGETS)).score
    assert evaluation.chrf(TARGETS, PREDICTIONS, **settings) == {"chrf": direct}
    assert evaluation.chrf_signature(None, **settings) == str(metric.get_signature())


def test_signatures():
    version = sacrebleu.__version__
    assert evaluation.bleu_signature() == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{version}"
    assert evaluation.chrf_signature(4) == f"nrefs:4|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{version}"


def test_captions_agree_with_the_libraries(captions):
    targets, predictions = captions
    bleu = sacrebleu.BLEU()
    assert (
        evaluation.bleu(targets, predictions)["bleu"]
        == bleu.corpus_score(predictions, streams(targets)).score
    )
    assert evaluation.bleu_signature(4) == str(bleu.get_signature())
    chrf = sacrebleu.CHRF().corpus_score(predictions, streams(targets)).score
    assert evaluation.chrf(targets, predictions)["chrf"] == chrf
    sentence = sacrebleu.BLEU(effective_order=True)
    direct = [sentence.sentence_score(text, own).score for text, own in zip(predictions, targets)]
    assert evaluation.by_prompt(evaluation.sentence_bleu, targets, predictions)["sentence_bleu"] == direct
    assert evaluation.bleu([own[:1] for own in targets], predictions) == evaluation.bleu(
        [own[0] for own in targets], predictions
    )


@pytest.mark.parametrize("stemmer", [False, True])
def test_summaries_agree_with_rouge_score(summaries, stemmer):
    targets, predictions = summaries
    assert len({len(own) for own in targets}) > 1
    scorer = RougeScorer(["rouge1", "rouge2", "rougeLsum"], use_stemmer=stemmer)
    direct = [scorer.score_multi(own, text) for text, own in zip(predictions, targets)]
    found = evaluation.by_prompt(
        functools.partial(evaluation.rouge, use_stemmer=stemmer), targets, predictions
    )
    for name, values in found.items():
        assert values == pytest.approx([100 * scores[name].fmeasure for scores in direct])
    whole = evaluation.rouge(targets, predictions, use_stemmer=stemmer)
    assert whole == {name: pytest.approx(np.mean(values)) for name, values in found.items()}


def test_by_prompt_averages_samples():
    found = evaluation.by_prompt(evaluation.exact_match, ["a", ["b", "c"]], [["a", "x"], ["b", "c"]])
    assert found == {"exact_match": [0.5, 1.0]}


@pytest.mark.parametrize(
    "metric, interval",
    [(evaluation.bleu, evaluation.bleu_interval), (evaluation.chrf, evaluation.chrf_interval)],
)
def test_corpus_intervals(metric, interval):
    """Of 12 prompts: the scores of all draws, their ends widened for the prompts that differ, and none of few or equal ones."""
    score = lambda targets, texts: metric(targets, texts).popitem()[1]  # noqa: E731
    generator = np.random.default_rng(0)
    words = [generator.choice(list("abcdef"), 6).tolist() for _ in range(12)]
    targets = [" ".join(own) for own in words]
    texts = [" ".join(own[: 2 + i % 5] + ["x"] * (i % 3)) for i, own in enumerate(words)]
    drawn = []
    for weights in np.rint(12 * resampling_weights(12, 0)).astype(int):
        places = np.repeat(np.arange(12), weights)
        drawn.append(score([targets[i] for i in places], [texts[i] for i in places]))
    low, high = interval(targets, texts)
    assert low in drawn and high in drawn and low < score(targets, texts) < high
    assert np.mean(drawn < np.float64(low)) < 0.025 and np.mean(drawn > np.float64(high)) < 0.025
    narrow = interval(targets, texts, coverage=0.4)
    assert low < narrow[0] < narrow[1] < high
    # Samples that are all the same are as good as one.
    assert interval(targets, [[text] * 3 for text in texts]) == pytest.approx((low, high))
    assert interval(targets[:9], texts[:9]) == (None, None)
    assert interval(targets, [*targets[:5], *texts[5:]])[0] is None  # Only 7 are not perfect.
    assert interval(targets, targets) == (None, None)


def test_the_interval_of_captions(captions):
    targets, predictions = captions
    low, high = evaluation.bleu_interval(targets, predictions)
    assert 0 < low < evaluation.bleu(targets, predictions)["bleu"] < high < 100
    assert 1 < high - low < 20
    assert (
        evaluation.bleu_interval(targets, predictions)
        == (low, high)
        != evaluation.bleu_interval(targets, predictions, seed=1)
    )


def test_seqio_can_list_them():
    for metric in METRICS:
        parameters = inspect.signature(metric).parameters.values()
        assert [p.name for p in parameters if p.default is p.empty] == ["targets", "predictions"]


@pytest.mark.parametrize("metric", METRICS)
def test_lists_that_do_not_fit(metric):
    for targets, predictions, message in (
        (["a"], ["a", "b"], "2 predictions for 1 targets"),
        ([], [], "there are no predictions"),
    ):
        with pytest.raises(UserError, match=message) as error:
            metric(targets, predictions)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("metric", METRICS[:-1])
@pytest.mark.parametrize("empty", [[], "", ["", " "]])
def test_empty_references(metric, empty):
    with pytest.raises(UserError, match="prompt 1 has no reference, or empty ones only") as error:
        metric(["a b", empty], ["a b", "a"])
    assert "\n" not in str(error.value)


def test_other_mistakes():
    with pytest.raises(UserError, match="BLEU: sacrebleu has no tokenizer '13b'; did you mean '13a'"):
        evaluation.bleu(["a"], ["a"], tokenize="13b")
    with pytest.raises(UserError, match="ChrF: word_order is -1"):
        evaluation.chrf(["a"], ["a"], word_order=-1)
    with pytest.raises(UserError, match="BLEU: prompt 0 has no samples"):
        evaluation.bleu_interval(["a"], [[]])
    with pytest.raises(UserError, match="BLEU: prompts have different numbers of samples"):
        evaluation.bleu_interval(["a", "b"], [["a"], ["b", "c"]])
