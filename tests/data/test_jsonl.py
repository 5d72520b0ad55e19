import pytest

from lmirl_jax import data
from lmirl_jax.data.file_task import exact_match
from lmirl_jax.types import UserError

GOOD = {"inputs": "one", "targets": "1"}


def train(path, tmp_path, **settings):
    settings = {
        "batch_size": 2,
        "lengths": {"inputs": 8, "targets": 8},
        "cache_dir": str(tmp_path / "cache"),
    } | settings
    return data.TrainDataset(data.get_task(data=path), **settings)


def test_examples_come_through_as_bytes(write_jsonl, tmp_path):
    path = write_jsonl([GOOD, "", {"inputs": "zwei", "targets": "ü 2", "note": 3}])
    dataset = train(path, tmp_path, shuffle=False)
    batch = next(dataset.iterator(slice(0, 2)))
    assert [dataset.task.decode(row) for row in batch.tokens] == ["1", "ü 2"]
    assert batch.prompt_tokens[0].tolist() == [114, 113, 104, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{'inputs': 1}", r"examples\.jsonl, line 3: not JSON"),
        ('["a", "b"]', r"examples\.jsonl, line 3: not a JSON object"),
        ('{"inputs": "a"}', r"examples\.jsonl, line 3: no key 'targets' \(found: inputs\)"),
        ('{"inputs": "a", "targets": 7}', r"examples\.jsonl, line 3: targets is int, not a string"),
        (
            '{"inputs": "\\ud800", "targets": "b"}',
            r"examples\.jsonl, line 3: inputs holds half of a surrogate pair",
        ),
    ],
)
def test_a_bad_line_is_named(write_jsonl, tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        train(write_jsonl([GOOD, "", line, GOOD]), tmp_path)
    assert not list((tmp_path / "cache").iterdir())  # Nothing half-written.


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ('"2"', r"examples\.jsonl, line 2: weight is str, not a number; write a number of 0 or more"),
        ("true", r"examples\.jsonl, line 2: weight is bool, not a number"),
        ("-1", r"examples\.jsonl, line 2: weight is -1; write a number of 0 or more that float32 holds"),
        ("NaN", r"examples\.jsonl, line 2: weight is nan"),
        ("Infinity", r"examples\.jsonl, line 2: weight is inf"),
        ("1e-46", r"examples\.jsonl, line 2: weight is 1e-46; .* \(0, or 1\.2e-38 to 3\.4e38\)"),
        ("1e39", r"examples\.jsonl, line 2: weight is 1e\+39"),
    ],
)
def test_a_bad_weight_is_named(write_jsonl, tmp_path, weight, message):
    with pytest.raises(UserError, match=message):
        train(write_jsonl([GOOD, '{"inputs": "a", "targets": "b", "weight": ' + weight + "}"]), tmp_path)
    assert not list((tmp_path / "cache").iterdir())


def test_examples_have_the_weights_of_their_lines(write_jsonl, tmp_path):
    path = write_jsonl([{**GOOD, "weight": 2}, GOOD, {**GOOD, "weight": 0.5}, {**GOOD, "weight": 0}])
    batch = next(train(path, tmp_path, batch_size=4, shuffle=False).iterator(slice(0, 4)))
    assert batch.weights[:, :3].tolist() == [[2, 2, 0], [1, 1, 0], [0.5, 0.5, 0], [0, 0, 0]]
    assert batch.td_weights[:, :3].tolist() == [[1, 1, 0]] * 4
    held_out = data.EvalDataset(
        data.get_task(data=path), {"inputs": 8, "targets": 8}, "train", cache_dir=str(tmp_path)
    )
    (found, _) = next(held_out.batches(4))
    assert found.weights.tolist() == batch.weights.tolist()


def test_other_weights_are_other_data_and_no_weights_are_as_before(write_jsonl, tmp_path):
    def made(*weights):
        lines = [GOOD | ({} if weight is None else {"weight": weight}) for weight in weights]
        return train(write_jsonl(lines), tmp_path)

    plain = made(None, None)
    assert "weight" not in plain.task.tasks[0].source.content_hash("train")
    prints = {made(*weights).fingerprint for weights in [(1, 2), (2, 1), (None, 2)]}
    assert len(prints | {plain.fingerprint}) == 3  # a line without a weight has 1
    with pytest.raises(UserError, match="every weight in split 'train' of task examples is 0"):
        made(0, 0.0)


def test_an_empty_file(write_jsonl, tmp_path):
    with pytest.raises(UserError, match=r"examples\.jsonl is empty"):
        train(write_jsonl(["", " "]), tmp_path)


def test_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"inputs": "é", "targets": "e"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.jsonl, after line 0: not UTF-8"):
        train(str(path), tmp_path)


def test_a_missing_file_is_missed_when_it_is_read(tmp_path):
    with pytest.raises(UserError, match=r"no file at /no/such\.jsonl: DATA must name a file"):
        train("/no/such.jsonl", tmp_path)
    good = tmp_path / "good.jsonl"
    good.write_text('{"inputs": "a", "targets": "b"}\n')
    with pytest.raises(UserError, match="VALIDATION_DATA must name a file"):
        data.EvalDataset(
            data.get_task(data=str(good), validation_data=str(tmp_path)), {"inputs": 8, "targets": 8}
        )


def test_exact_match():
    assert exact_match(["a", "b"], ["a ", "c"]) == {"exact_match": 0.5}


def test_validation_is_scored_by_exact_match(write_jsonl, tmp_path):
    other = [
        {"inputs": "x", "targets": "yes"},
        {"inputs": "y", "targets": "no"},
        {"inputs": "z", "targets": "yes"},
    ]
    task = data.get_task(data=write_jsonl([GOOD]), validation_data=write_jsonl(other, "other.jsonl"))
    dataset = data.EvalDataset(task, {"inputs": 4, "targets": 4}, cache_dir=str(tmp_path / "cache"))
    assert [example["inputs_pretokenized"] for example in dataset.examples] == ["x", "y", "z"]
    assert dataset.metrics(["yes", "no", "no"]) == {"exact_match": pytest.approx(2 / 3)}
