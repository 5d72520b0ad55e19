"""Labels of right and wrong answers: their rows, their rewards, and what is no label."""

import pytest

from lmirl_jax import data
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.split_checks import warn_once
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 8, "targets": 5}
RIGHT = {"inputs": "one", "targets": "12", "label": True}
WRONG = {"inputs": "one", "targets": "3", "label": False}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    warn_once.cache_clear()


def dataset_of(path, columns=None, **settings):
    settings = {"batch_size": 2, "lengths": LENGTHS, "shuffle": False} | settings
    return data.TrainDataset(data.get_task(data=path, columns=columns), **settings)


def first_batch(dataset):
    return next(dataset.iterator(slice(0, dataset.batch_size)))


def test_a_label_marks_the_tokens_and_is_the_reward(write_jsonl, caplog):
    path = write_jsonl([RIGHT, WRONG, WRONG | {"reward": -2.0}, RIGHT | {"rewards": [1.0, 2.0, 3.0]}])
    dataset = dataset_of(path, batch_size=4)
    batch = first_batch(dataset)
    assert dataset.has_labels and dataset.has_rewards
    assert batch.labels.tolist() == [[1, 1, 1, 0, 0], [0] * 5, [0] * 5, [1, 1, 1, 0, 0]]
    assert batch.rewards.tolist() == [[0, 0, 1, 0, 0], [0] * 5, [0, -2, 0, 0, 0], [1, 2, 3, 0, 0]]
    assert batch.weights.tolist() == [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert caplog.messages == ["examples, train: 2 of 4 answers are labelled right"]
    ((held_out, _),) = data.EvalDataset(data.get_task(data=path), LENGTHS, "train").batches(4)
    assert held_out.labels.tolist() == batch.labels.tolist()


def test_packed_rows_have_the_labels_of_their_examples(write_jsonl):
    batch = first_batch(dataset_of(write_jsonl([RIGHT, WRONG]), batch_size=1, pack=True))
    assert batch.labels.tolist() == [[1, 1, 1, 0, 0]] and batch.weights.tolist() == [[1] * 5]


def test_without_labels_there_are_none(write_jsonl):
    dataset = dataset_of(write_jsonl([{"inputs": "a", "targets": "b"}] * 2))
    assert not dataset.has_labels and first_batch(dataset).labels is None


@pytest.mark.parametrize("label", [0, 1, 2, "positive", None, [True]])
def test_the_label_of_a_class_is_not_read(write_jsonl, label, caplog):
    dataset = dataset_of(write_jsonl([RIGHT | {"label": label}] * 2))
    assert not dataset.has_labels and first_batch(dataset).labels is None
    assert "examples, train: keys that are not read, and have no effect: 'label' (2 of 2)" in caplog.text


def test_columns_names_another_column_in_which_0_and_1_will_do(write_jsonl):
    rows = [{"inputs": "a", "targets": "b", "correct": number} for number in (0, 1)]
    batch = first_batch(dataset_of(write_jsonl(rows), {"label": "correct"}))
    assert batch.labels[:, 0].tolist() == [0, 1]
    with pytest.raises(UserError, match="line 1: the label is 2; write true for a right answer"):
        dataset_of(
            write_jsonl([{"inputs": "a", "targets": "b", "correct": 2}], "two.jsonl"), {"label": "correct"}
        )


def test_a_table_of_texts_has_them_too(tmp_path):
    (tmp_path / "rows.csv").write_text("inputs,targets,label\na,b,true\nc,d,false\n")
    batch = first_batch(dataset_of(str(tmp_path / "rows.csv")))
    assert batch.labels[:, 0].tolist() == [1, 0]


def test_what_leaves_nothing_to_imitate_is_refused(write_jsonl):
    with pytest.raises(UserError, match="every answer is labelled wrong"):
        dataset_of(write_jsonl([WRONG]))
    with pytest.raises(UserError, match="1 of 2 examples have a label; write true or false in every row"):
        dataset_of(write_jsonl([RIGHT, {"inputs": "a", "targets": "b"}], "some.jsonl"))


def test_other_labels_are_other_data(write_jsonl):
    files = {name: write_jsonl([RIGHT, RIGHT | {"label": name == "a"}], f"{name}.jsonl") for name in "ab"}
    contents = {
        name: tokenized_records(data.get_task(data=path).tasks[0], "train").content
        for name, path in files.items()
    }
    assert contents["a"] != contents["b"]
