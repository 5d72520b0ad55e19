import pytest

from lmirl_jax import data
from lmirl_jax.data.jsonl import exact_match
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
    assert [dataset.task.decode(row) for row in batch.decoder_target_tokens] == ["1", "ü 2"]
    assert batch.encoder_input_tokens[0].tolist() == [114, 113, 104, 1, 0, 0, 0, 0]


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


def test_an_empty_file(write_jsonl, tmp_path):
    with pytest.raises(UserError, match=r"examples\.jsonl is empty"):
        train(write_jsonl(["", " "]), tmp_path)


def test_bytes_that_are_no_utf8(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"inputs": "é", "targets": "e"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.jsonl, after line 0: not UTF-8"):
        train(str(path), tmp_path)


def test_a_missing_file_is_missed_when_it_is_read(tmp_path):
    with pytest.raises(UserError, match=r"no file at /no/such\.jsonl: DATA must be a JSONL file"):
        train("/no/such.jsonl", tmp_path)
    good = tmp_path / "good.jsonl"
    good.write_text('{"inputs": "a", "targets": "b"}\n')
    with pytest.raises(UserError, match="VALIDATION_DATA must be a JSONL file"):
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
