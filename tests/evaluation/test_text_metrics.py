"""BLEU, ChrF, ROUGE and exact match: hand-worked values, agreement with the libraries called directly, and intervals."""

import functools
import gzip
import inspect
import json

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.scoring import BootstrapAggregator

from lmirl_jax import evaluation
from lmirl_jax.evaluation import words
from lmirl_jax.evaluation.metric_intervals import OF_CORPUS
from lmirl_jax.statistics.bootstrap import resampling_weights
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


HINDI = "मौसम आज बहुत अच्छा है"


@pytest.mark.parametrize(
    "text",
    [
        HINDI,
        "今天天气很好",
        "東京タワーへ行く",
        "ภาษาไทยง่าย",
        "Погода сегодня",
        "오늘 날씨",
        "الطقس اليوم",
        "Thời tiết hôm nay",
    ],
)
def test_rouge_of_a_text_against_itself_is_100_in_any_language(text, caplog):
    words._warned.clear()
    assert evaluation.rouge([text], [text]) == {"rouge1": 100.0, "rouge2": 100.0, "rougeLsum": 100.0}
    assert evaluation.rouge([text], ["English"])["rouge1"] == 0.0
    assert len(caplog.messages) == 1 and "tokenize='unicode'" in caplog.text


def test_rouge_in_other_languages_by_hand():
    # Two of the five words stay, and the first of four pairs.
    assert evaluation.rouge([HINDI], ["मौसम आज ठीक नहीं था"]) == pytest.approx(
        {"rouge1": 40.0, "rouge2": 25.0, "rougeLsum": 40.0}
    )
    # Five of six characters, of which four follow each other: 3 of 5 pairs.
    assert evaluation.rouge(["今天天气很好"], ["今天天气不好"]) == pytest.approx(
        {"rouge1": 100 * 5 / 6, "rouge2": 60.0, "rougeLsum": 100 * 5 / 6}
    )
    # Full width is half width, and marks may be composed with their letter or not.
    assert evaluation.rouge(["ＡＢＣ 데이터"], ["abc 데이터"])["rouge2"] == pytest.approx(100.0)
    assert evaluation.rouge(["mu\u0308de"], ["müde"], tokenize="unicode")["rouge1"] == 100.0


def test_a_warning_names_words_that_rouge_scores_tokenizer_cuts_once(caplog):
    words._warned.clear()
    target, prediction = "the Müller family lives here", "the Möller family lives here"
    for _ in range(2):
        # rouge-score's words are the, m, ller, family, lives, here: umlauts are spaces.
        assert evaluation.rouge([target], [prediction])["rouge1"] == pytest.approx(100.0)
        assert evaluation.rouge([target], [prediction], tokenize="unicode")["rouge1"] == pytest.approx(80.0)
    assert len(caplog.messages) == 1 and "'müller'" in caplog.text
    assert evaluation.rouge(["?!"], ["?!"])["rouge1"] == 0.0
    assert len(caplog.messages) == 2 and "without a word" in caplog.text


@pytest.mark.parametrize("use_stemmer", [False, True])
def test_rouge_of_english_is_rouge_scores_whatever_the_tokenizer(summaries, use_stemmer):
    targets, predictions = summaries
    scorer = RougeScorer(["rouge1", "rouge2", "rougeLsum"], use_stemmer=use_stemmer)
    pairs = [(own, text) for own, text in zip(targets, predictions) if all(map(str.isascii, [*own, text]))]
    assert len(pairs) > 20
    direct = [scorer.score_multi(own, text) for own, text in pairs]
    expected = {k: pytest.approx(100 * np.mean([s[k].fmeasure for s in direct])) for k in direct[0]}
    for tokenize in ("auto", "ascii", "unicode"):
        assert evaluation.rouge(*zip(*pairs), use_stemmer=use_stemmer, tokenize=tokenize) == expected
    with pytest.raises(UserError, match="no tokenizer 'words'; choose one of auto, ascii, unicode"):
        evaluation.rouge(["a"], ["a"], tokenize="words")


def test_the_metrics_of_t5(captions, summaries):
    """As t5/evaluation/metrics.py calls the libraries; its median of resampled means lies by ours."""
    targets, predictions = captions
    single = [own[0] for own in targets]
    direct = sacrebleu.corpus_bleu(predictions, [single], tokenize="intl", use_effective_order=False)
    assert evaluation.t5_bleu(single, predictions) == {"t5_bleu": direct.score}
    unicode_quotes = ["“Yes”, he said – no", "a b c d"]
    plain = ["Yes , he said – no", "a b c d"]
    assert (
        evaluation.t5_bleu(plain, unicode_quotes)["t5_bleu"] != evaluation.bleu(plain, unicode_quotes)["bleu"]
    )

    targets = [" . ".join(own).replace(".", " . ") for own in summaries[0]]
    predictions = [text.replace(".", " . ") for text in summaries[1]]
    scorer, sampled = RougeScorer(["rouge1", "rouge2", "rougeLsum"]), BootstrapAggregator()
    scores = []
    for target, text in zip(targets, predictions, strict=True):
        lines = [t.replace(" . ", " .\n") for t in (target, text)]
        scores.append(scorer.score(target=lines[0], prediction=lines[1]))
        sampled.add_scores(scores[-1])
    found = evaluation.t5_rouge(targets, predictions)
    for name, middle in sampled.aggregate().items():
        assert found[f"t5_{name}"] == pytest.approx(100 * np.mean([s[name].fmeasure for s in scores]))
        assert found[f"t5_{name}"] == pytest.approx(100 * middle.mid.fmeasure, abs=0.5)
    assert found["t5_rougeLsum"] != pytest.approx(evaluation.rouge(targets, predictions)["rougeLsum"], abs=1)


def test_one_text_in_place_of_a_list_is_refused():
    with pytest.raises(UserError, match="BLEU: targets is one text; give a list"):
        evaluation.bleu("a b", "a b")
    with pytest.raises(UserError, match="exact match: predictions is one text"):
        evaluation.exact_match(["a"], "a")


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


def test_t5s_bleu_has_the_interval_of_its_tokenizer(captions):
    plain, interval, signature = OF_CORPUS[evaluation.t5_bleu]
    targets, predictions = captions
    assert plain == "t5_bleu"
    assert interval(targets, predictions) == evaluation.bleu_interval(targets, predictions, tokenize="intl")
    assert "|tok:intl|" in signature(1)


def test_a_tokenizer_that_takes_a_sentence_for_one_word_is_warned_of_once(caplog):
    words._warned.clear()
    for _ in range(2):
        assert (
            evaluation.bleu(["今天天气很好", "我们去公园吧"], ["今天天气很坏", "我们去公园吧"])["bleu"]
            == sacrebleu.corpus_bleu(
                ["今天天气很坏", "我们去公园吧"], [["今天天气很好", "我们去公园吧"]]
            ).score
        )
    assert caplog.text.count("this tokenizer takes a run of characters without spaces for one word") == 1
    caplog.clear()
    evaluation.bleu(["今天天气很好"], ["今天天气很好"], tokenize="zh")
    evaluation.bleu(["a good day"], ["a good day"])
    assert not caplog.text
