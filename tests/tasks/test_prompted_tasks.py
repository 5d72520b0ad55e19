"""Summaries and translations: each task built from small data of its real layout, and on the real data where they lie."""

import functools

import pytest
import sacrebleu.utils
import seqio
from rouge_score.rouge_scorer import RougeScorer
from seqio import test_utils

from lmirl_jax import data, evaluation
from lmirl_jax.data.prompted_references import prompt_and_references
from lmirl_jax.data.seqio_library import tf
from lmirl_jax.tasks import gsm8k, multi30k_en_de, number_paths, scitldr, tldr, wmt22_en_de, xsum  # noqa: F401
from lmirl_jax.types import UserError
from tests.tasks import layouts

LENGTHS = {"inputs": 64, "targets": 32}
# For each task and split the number of examples, the first prompt, and its references.
SPLITS = {
    "xsum": {
        "train": (12, "summarize: News of train 0.\nMore.", ["train 0"]),
        "validation": (2, "summarize: News of validation 0.\nMore.", ["validation 0"]),
        "test": (3, "summarize: News of test 0.\nMore.", ["test 0"]),
    },
    "tldr": {
        "train": (5, "summarize: Post 4000", ["sum 4000"]),
        "validation": (2000, "summarize: Post 0", ["sum 0"]),
        "test": (2000, "summarize: Post 2000", ["sum 2000"]),
    },
    "scitldr": {
        "train": (3, "summarize: It is hard. We do it.", ["We do it."]),
        "validation": (2, "summarize: It is hard. We do it.", ["One.", "Two words.", "Three."]),
        "test": (1, "summarize: It is hard. We do it.", ["Five."]),
    },
    "multi30k_en_de": {
        "train": (3, "translate English to German: A\u2028dog.", ["Ein\u2028Hund."]),
        "validation": (1, "translate English to German: Two dogs.", ["Zwei Hunde."]),
        "test": (1, "translate English to German: A man.", ["Ein Mann."]),
        "test_descriptions": (
            1,
            "translate English to German: A person.",
            [f"Person {i}." for i in range(1, 6)],
        ),
    },
    "wmt22_en_de": {
        "train": (2, "translate English to German: Good day.", ["Guten Tag."]),
        "validation": (1, "translate English to German: No.", ["Nein."]),
        "test": (2, "translate English to German: The cat sat.", ["Die Katze saß.", "Da saß die Katze."]),
        "test_a": (2, "translate English to German: The cat sat.", ["Die Katze saß."]),
    },
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Holds the data of all tasks."""
    folder = tmp_path_factory.mktemp("data")
    for write in (
        layouts.write_xsum,
        layouts.write_reddit,
        layouts.write_wmt,
        layouts.write_scitldr,
        layouts.write_multi30k,
    ):
        write(folder)
    layouts.write_sacrebleu(folder / "sacrebleu")
    data.set_tfds_data_dir(str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sacrebleu.utils, "SACREBLEU_DIR", str(folder / "sacrebleu"))
        patch.setenv("LMIRL_CACHE_DIR", str(folder / "cache"))
        yield folder
    data.set_tfds_data_dir(None)


@pytest.mark.parametrize(("name", "split"), [(name, split) for name in SPLITS for split in SPLITS[name]])
def test_a_split(name, split):
    count, prompt, references = SPLITS[name][split]
    task = data.get_task(name)
    found = data.EvalDataset(task, LENGTHS, split)
    first = found.examples[0]
    assert len(found) == count
    assert task.decode_inputs(first["inputs"]) == prompt
    assert task.decode(first["targets"]) == references[0]
    assert found.target(first) == references
    assert first["targets"][-1] in task.eos_ids
    metrics = found.metrics([found.reference(example) for example in found.examples])
    expected = {"rouge1", "rouge2", "rougeLsum"} if "summarize" in prompt else {"bleu", "chrf"}
    assert set(metrics) == expected
    # A reference of three words has neither bigrams nor longer n-grams; whole matches are 100 otherwise.
    assert metrics.get("rouge1", metrics.get("chrf")) == pytest.approx(100)


@pytest.mark.parametrize(
    ("name", "split"), [("scitldr", "train"), ("multi30k_en_de", "train"), ("wmt22_en_de", "test")]
)
def test_seqio_reads_the_same(name, split):
    """As T5X does, with lengths, shuffling and shards; a split of one shard is divided by its examples."""
    task = seqio.TaskRegistry.get(name)
    ours = [
        example["targets"].tolist()
        for example in data.EvalDataset(data.get_task(name), LENGTHS, split).examples
    ]
    settings = {"sequence_length": LENGTHS, "split": split, "shuffle": False}
    whole = [row["targets"].tolist() for row in task.get_dataset(**settings).as_numpy_iterator()]
    shards = [seqio.ShardInfo(index, 2) for index in range(2)]
    parts = [task.get_dataset(**settings, shard_info=shard).as_numpy_iterator() for shard in shards]
    assert whole == ours
    assert sorted(row["targets"].tolist() for part in parts for row in part) == sorted(ours)
    shuffled = task.get_dataset(LENGTHS, split, shuffle=True, seed=1)
    assert sorted(row["targets"].tolist() for row in shuffled.as_numpy_iterator()) == sorted(ours)


@pytest.mark.parametrize("name", SPLITS)
def test_all_splits_are_tried(name):
    assert tuple(SPLITS[name]) == tuple(seqio.TaskRegistry.get(name).splits)


def test_training_on_a_subset_that_a_seed_fixes():
    task, draw = data.get_task("xsum"), functools.partial(data.TrainDataset, batch_size=1, lengths=LENGTHS)
    prints = [
        draw(task, num_examples=count, examples_seed=seed, seed=order).fingerprint
        for count, seed, order in ((4, 0, 0), (4, 0, 0), (4, 1, 0), (8, 0, 0))
    ]
    assert prints[0] == prints[1] and len(set(prints)) == 3


def test_wmt_reports_sacrebleus_own_score_and_signature():
    task = data.get_task("wmt22_en_de")
    answers = ["Die Katze saß da.", "Es regnet sehr stark."]
    lines = {split: data.EvalDataset(task, LENGTHS, split) for split in ("test", "test_a")}
    a = ["Die Katze saß.", "Es regnet sehr."]
    b = ["Da saß die Katze.", "Es regnet in Strömen."]
    for split, references in {"test": [a, b], "test_a": [a]}.items():
        metric = sacrebleu.BLEU()
        score = metric.corpus_score(answers, references)
        metrics = lines[split].metrics(answers)
        assert metrics["bleu"] == score.score
        assert metrics["chrf"] == sacrebleu.CHRF().corpus_score(answers, references).score
        assert evaluation.signatures(lines[split], 2)["bleu"] == str(metric.get_signature())
    # What the command `sacrebleu -t wmt22 -l en-de` compares with.
    assert "nrefs:1|" in evaluation.signatures(lines["test_a"], 2)["bleu"]


def test_rouge_by_hand_and_by_its_library():
    prediction, references = "the cat sat", ["a cat sat down", "the cat"]
    raw = {"validation": {"source": ["x"], "target": references}}
    found = test_utils.test_postprocessing("scitldr", raw, predict_output=[prediction])
    # The second is nearer in all: 2 of 3 and 2 of 2 words, 1 of 2 and 1 of 1 bigrams, and a common subsequence of 2 words.
    values = {name: found[name] for name in ("rouge1", "rouge2", "rougeLsum")}
    assert values == {
        "rouge1": pytest.approx(80),
        "rouge2": pytest.approx(200 / 3),
        "rougeLsum": pytest.approx(80),
    }
    direct = RougeScorer(list(values)).score_multi(references, prediction)
    assert values == {name: pytest.approx(100 * score.fmeasure) for name, score in direct.items()}


def test_bleu_by_hand():
    raw = {"validation": {"en": "x", "de": ["a b c d f", "x"]}}
    found = test_utils.test_postprocessing("multi30k_en_de", raw, predict_output=["a b c d e"])
    # 4 of 5 words, 3 of 4 bigrams, 2 of 3 and 1 of 2 longer ones; as long as the nearest reference.
    assert found["bleu"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


RAW = {
    "xsum": {"document": "Long.", "summary": "Short."},
    "tldr": {"content": "Long.", "summary": "Short.", "id": "x"},
    "scitldr": {"source": ["Lo", "ng."], "target": ["Short.", "Brief."]},
    "multi30k_en_de": {"en": "Long.", "de": ["Lang."]},
    "wmt22_en_de": {"en": "Long.", "de": "Lang."},
    "gsm8k": {"question": "1+1?", "answer": "So <<1+1=2>>2\n#### 2"},
    "gsm8k_lenient": {"question": "1+1?", "answer": "So <<1+1=2>>2\n#### 2"},
    "number_paths": {"inputs": "1+2", "targets": "1+2=3"},
}


def evaluate(name: str, answer: str) -> dict:
    """The metrics of an answer to the row of a task by SeqIO's Evaluator, with two samples where metrics ask for samples."""
    tokens = [(0, test_utils.encode_str(name, answer))]
    with test_utils.DataInjector(name, {"validation": RAW[name]}):
        evaluator = seqio.Evaluator(name, feature_converter=seqio.EncDecFeatureConverter(pack=False))
        found, _ = evaluator.evaluate(
            compute_metrics=True,
            predict_fn=lambda dataset, lengths=None: tokens,
            predict_with_aux_fn=lambda dataset, lengths=None: (tokens, {"samples": [[answer, "2"]]}),
        )
    return found.result()[name]


@pytest.mark.parametrize("name", RAW)
def test_seqios_own_checks(name):
    """Preprocessing of one row, and its own target as the prediction, which metrics find right."""
    output = test_utils.test_preprocessing_single(name, {"validation": RAW[name]})
    text = output["targets_pretokenized"].decode()
    for feature in ("inputs", "targets"):
        expected = test_utils.encode_str(
            name, output[f"{feature}_pretokenized"].decode(), output_feature_name=feature
        )
        assert output[feature].tolist() == [*expected, 1]
    metrics = evaluate(name, text)
    best = {"rouge1": 100, "chrf": 100, "accuracy": 1, "pass_at_2": 1, "distinct_valid": 1}
    assert [metrics[key] for key in best if key in metrics] == [
        pytest.approx(value) for key, value in best.items() if key in metrics
    ]


def test_the_preprocessor_with_seqios_assertion():
    rows = {
        "text": tf.constant([" One\ntwo ", "", "Three"]),
        "refs": tf.ragged.constant([["", "a\n b", "c "], ["d"], [" "]]),
    }
    dataset = tf.data.Dataset.from_tensor_slices(rows)
    expected = {"inputs": "tl: One\ntwo", "targets": "a b", "references": ["a b", "c"]}
    found = prompt_and_references(dataset, prefix="tl: ", source="text", target="refs")
    test_utils.assert_dataset(found, expected, {"inputs": tf.string, "targets": tf.string})


def test_a_test_set_that_sacrebleu_has_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(sacrebleu.utils, "SACREBLEU_DIR", str(tmp_path))
    with pytest.raises(
        UserError, match=r"no test set of WMT22 in .*: run sacrebleu -t wmt22 -l en-de --echo src"
    ):
        data.EvalDataset(data.get_task("wmt22_en_de"), LENGTHS, "test")


@pytest.mark.parametrize(
    ("name", "split", "error"),
    [
        ("xsum", "train", "no TFDS data set xsum:1.1.0 in"),
        ("wmt22_en_de", "train", "no TFDS data set wmt19_translate/de-en:1.0.0 in"),
        ("scitldr", "validation", r"no file dev.jsonl \(or dev.jsonl.gz\) in .*scitldr: put the files"),
        ("multi30k_en_de", "train", r"no file train.en \(or train.en.gz\) in"),
    ],
)
def test_data_that_are_not_there(folder, tmp_path, name, split, error):
    data.set_tfds_data_dir(str(tmp_path))
    try:
        with pytest.raises(UserError, match=error):
            data.tokenized_records(seqio.TaskRegistry.get(name), split)
    finally:
        data.set_tfds_data_dir(str(folder))


@pytest.mark.parametrize(
    ("name", "counts", "split", "references"),
    [
        ("scitldr", {"train": 1992, "validation": 619, "test": 618}, "test", 4),
        (
            "multi30k_en_de",
            {"train": 29000, "validation": 1014, "test": 1000, "test_descriptions": 1000},
            "test_descriptions",
            5,
        ),
    ],
)
def test_on_the_real_data(folder, shared_data, name, counts, split, references):
    data.set_tfds_data_dir(str(shared_data))
    try:
        source = seqio.TaskRegistry.get(name).source
        sizes = {
            split: int(source.get_dataset(split, shuffle=False).cardinality()) for split in source.splits
        }
        task = data.get_task(name, vocabulary_path=str(shared_data / "t5_vocab" / "spiece.model"))
        found = data.EvalDataset(task, {"inputs": 1024, "targets": 512}, split, truncate=False)
    finally:
        data.set_tfds_data_dir(str(folder))
    assert sizes == counts
    assert max(len(found.target(each)) for each in found.examples) == references
    answers = [found.target(example)[-1] for example in found.examples]
    metrics = found.metrics(answers)
    assert metrics.get("rouge1", metrics.get("chrf")) == pytest.approx(100)


def test_in_the_form_of_a_chat(shared_data):
    folder = shared_data / "checkpoints" / "smollm2_135m_instruct"
    task = data.get_task("xsum", vocabulary_path=str(folder))
    example = data.EvalDataset(task, LENGTHS, "validation").examples[0]
    tokens = example["inputs"].tolist()
    assert task.decode_inputs(example["inputs"]) == "summarize: News of validation 0.\nMore."
    assert task.input_vocabulary.encode_prompt("summarize: News of validation 0.\nMore.") == tokens
    assert tokens[-4:] == task.input_vocabulary.encode("<|im_start|>assistant\n")
    assert task.decode(example["targets"]) == "validation 0"
