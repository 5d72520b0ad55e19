import json
import runpy
from decimal import Decimal

import pytest
import seqio

from lmirl_jax import data
from lmirl_jax.tasks import gsm8k
from lmirl_jax.tasks.gsm8k_calculator import with_calculator
from tests.tasks import layouts


@pytest.fixture(scope="module")
def answers(shared_data):
    files = [shared_data / "gsm8k_jsonl" / f"{split}.jsonl" for split in ("train", "test")]
    return [json.loads(line)["answer"] for file in files for line in file.read_text().splitlines()]


def test_both_ways_by_hand():
    answer = "She has 48/2 = <<48/2=24>>24.\n\nIn 2/5*[X - (1/4*X)] she; and [1 + 2] too.\n#### 24"
    plain = "She has 48/2 = [48/2=24]24. ;  ; In 2/5*[X - (1/4*X)] she; and [1 + 2] too. ; #### 24"
    assert gsm8k.to_plain(answer) == plain
    assert gsm8k.from_plain(plain) == answer
    assert gsm8k.from_plain(plain.replace("  ", " ")) == answer  # As T5's vocabulary decodes it.


def test_every_answer_comes_back_from_bytes(answers):
    assert len(answers) == 8792
    vocabulary = data.vocabulary()
    assert all(
        gsm8k.from_plain(vocabulary.decode(vocabulary.encode(gsm8k.to_plain(a)))) == a for a in answers
    )


def test_answers_come_back_from_t5s_vocabulary(answers, shared_data):
    vocabulary = data.vocabulary(str(shared_data / "t5_vocab" / "spiece.model"))
    back = [gsm8k.from_plain(vocabulary.decode(vocabulary.encode(gsm8k.to_plain(a)))) for a in answers]
    assert sum(b == a for a, b in zip(answers, back, strict=True)) == 8652
    assert all(
        b.count("<<") == a.count("<<") and b.count("\n") == a.count("\n")
        for a, b in zip(answers, back, strict=True)
    )
    assert all(gsm8k.final_number(b) == gsm8k.final_number(a) for a, b in zip(answers, back, strict=True))


def test_the_final_number():
    found = [
        gsm8k.final_number(text)
        for text in ("#### 1,234", "x ####-7", "#### $18.50.", "#### 18.0", "18", "####")
    ]
    assert found == [1234, -7, Decimal("18.5"), 18, None, None]


def test_accuracy_with_and_without_the_calculator():
    targets = ["#### 24", "#### 2", "#### 3"]
    slip = "48/2 = <<48/2=25>>25\n#### 25"
    found = gsm8k.accuracy(targets, [slip, "so\n#### 2.0", "no"])
    assert found == {"accuracy": pytest.approx(1 / 3), "accuracy_with_calculator": pytest.approx(2 / 3)}
    # As a model with T5's vocabulary writes it.
    assert gsm8k.accuracy(targets[:1], [gsm8k.from_plain(gsm8k.to_plain(slip))]) == {
        "accuracy": 0.0,
        "accuracy_with_calculator": 1.0,
    }


def test_the_calculator_changes_no_right_answer(answers):
    assert [a for a in answers if with_calculator(a) != a] == []


def test_the_lenient_task_takes_a_number_without_its_mark():
    targets, predictions = ["#### 24", "#### 2", "#### -3"], ["So 24.", r"\boxed{2} of 7", "#### −$3.00"]
    assert gsm8k.accuracy(targets, predictions)["accuracy"] == pytest.approx(1 / 3)
    assert gsm8k.accuracy(targets, predictions, lenient=True)["accuracy"] == 1.0
    task = seqio.TaskRegistry.get("gsm8k_lenient")
    assert task.metric_fns[0](targets, predictions) == {"accuracy": 1.0, "accuracy_with_calculator": 1.0}
    samples = {"samples": [["24", "25 and 24", "3"]]}
    assert gsm8k.votes(["#### 24"], [""], samples, lenient=True)["maj_at_3"] == 1.0
    assert gsm8k.votes(["#### 24"], [""], samples)["pass_at_3"] == 0.0


def test_votes_go_by_the_final_number():
    samples = [["#### 24", "a #### 24.0", "#### 3"], ["#### 1", "#### 2", "none"]]
    assert gsm8k.votes(["#### 24", "#### 2"], ["", ""], {"samples": samples}) == {
        "pass_at_3": 1.0,
        "maj_at_3": 0.75,
    }


def test_votes_may_be_weighted():
    aux_values = {"samples": [["#### 1", "#### 2", "#### 1"]], "scores": {"return": [[0.0, 1.0, 0.0]]}}
    found = gsm8k.votes(["#### 2"], [""], aux_values)
    assert found == {"pass_at_3": 1.0, "maj_at_3": 0.0, "weighted_maj_at_3_by_return": 1.0}  # e against 2.


def test_from_small_data_of_its_layout(tmp_path):
    layouts.write_gsm8k(tmp_path)
    data.set_tfds_data_dir(str(tmp_path))
    try:
        task, lengths = data.get_task("gsm8k"), {"inputs": 64, "targets": 64}
        train = data.EvalDataset(task, lengths, "train", cache_dir=str(tmp_path / "cache"))
        tests = [
            data.EvalDataset(task, lengths, split, cache_dir=str(tmp_path / "cache"))
            for split in ("validation", "test")
        ]
    finally:
        data.set_tfds_data_dir(None)
    assert (len(train), *map(len, tests)) == (3, 2, 2)
    first = tests[0].examples[0]
    assert task.decode_inputs(first["inputs"]) == "What is 4 + 4?"
    assert task.decode(first["targets"]) == "It is 4+4=[4+4=8]8. ; #### 8"
    assert tests[0].target(first) == "It is 4+4=<<4+4=8>>8.\n#### 8"
    assert tests[1].metrics(["4+4=[4+4=9]9 ; #### 9", "#### 10"]) == {
        "accuracy": 0.5,
        "accuracy_with_calculator": 1.0,
    }


@pytest.mark.parametrize("vocabulary", [None, "spiece.model"])
def test_as_a_seqio_task(shared_data, tmp_path, vocabulary, answers):
    data.set_tfds_data_dir(str(shared_data / "tfds"))
    try:
        path = None if vocabulary is None else str(shared_data / "t5_vocab" / vocabulary)
        task = data.get_task("gsm8k", vocabulary_path=path)
        lengths = {"inputs": 1024, "targets": 1280}
        train = data.TrainDataset(task, 2, lengths, truncate=False, cache_dir=str(tmp_path))
        test = data.EvalDataset(task, lengths, truncate=False, cache_dir=str(tmp_path))
    finally:
        data.set_tfds_data_dir(None)
    assert (train.num_examples, len(test)) == (7473, 1319)
    targets = [test.decode(example["targets"]) for example in test.examples]
    assert test.metrics(targets) == {"accuracy": 1.0, "accuracy_with_calculator": 1.0}
    whole = set(answers)
    found = sum(test.target(example) in whole for example in test.examples)
    assert found == 1319 if vocabulary is None else found > 1280


def test_running_the_file_twice_is_safe():  # Not by importlib.reload: gin would know two of everything in it from then on.
    before = seqio.TaskRegistry.names()
    runpy.run_path(gsm8k.__file__)
    assert seqio.TaskRegistry.names() == before
