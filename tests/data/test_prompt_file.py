import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 4, "targets": 3}
TEXTS = {"train": [("t", "t")]}


@pytest.fixture
def build(make_task, single, tmp_path):
    def make(content, name="my.txt", **settings):
        path = tmp_path / name
        path.write_text(content, encoding="utf-8")
        return data.PromptFile(str(path), single(make_task(TEXTS)), **{"lengths": LENGTHS} | settings)

    return make


def test_a_text_file_has_a_prompt_a_line(build):
    found = build("ab\r\n\n c\n")
    assert (found.name, found.split, len(found)) == ("my", "prompts", 2)
    assert [example["inputs_pretokenized"] for example in found.examples] == ["ab", " c"]
    ((batch, examples),) = found.batches(3)
    assert examples == found.examples
    np.testing.assert_array_equal(batch.prompt_tokens, [[100, 101, 1, 0], [35, 102, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(batch.weights, np.zeros((3, 3)))
    assert found.decode([104, 105, 1, 0]) == "ef"


def test_jsonl_needs_inputs_and_may_have_targets(build):
    lines = '{"inputs": "a", "targets": "b", "id": 7}\n{"inputs": "c"}\n'
    found = build(lines, "my.jsonl")
    texts = [
        {key: text for key, text in example.items() if key != "sampling_id"} for example in found.examples
    ]
    assert texts == [{"inputs_pretokenized": "a", "targets_pretokenized": "b"}, {"inputs_pretokenized": "c"}]
    assert len(build(lines, "my.jsonl", num_examples=1)) == 1


def test_long_prompts_are_truncated_and_reported(build, caplog):
    ((batch, _),) = build("abcdef\nx").batches(2)
    np.testing.assert_array_equal(batch.prompt_tokens[0], [100, 101, 102, 103])
    assert "1 of 2 prompts are longer than 4 tokens and are truncated" in caplog.text
    with pytest.raises(UserError, match="'inputs': 7 takes all of them, or TRUNCATE"):
        build("abcdef", truncate=False)


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "my.txt", "is empty: write a prompt a line"),
        ("\n", "my.jsonl", "is empty: write one JSON object with inputs a line"),
        ('{"targets": "a"}', "my.jsonl", "line 1: no key 'inputs'"),
        ('{"inputs": "a", "targets": 3}', "my.jsonl", "targets is int"),
    ],
)
def test_what_cannot_be_read(build, content, name, message):
    with pytest.raises(UserError, match=message):
        build(content, name)


def test_a_file_comes_before_the_task(build, make_task, single, tmp_path):
    task = single(make_task(TEXTS))
    (tmp_path / "p.txt").write_text("hello\n")
    never = lambda: pytest.fail("the data set is not needed")  # noqa: E731
    found = data.prompts(never, str(tmp_path / "p.txt"), task, LENGTHS)
    assert isinstance(found, data.PromptFile)
    with pytest.raises(UserError, match="no such split: set INFER_SPLIT"):
        data.prompts(lambda: None, None, task, LENGTHS)
    with pytest.raises(UserError, match="no file at nowhere"):
        data.prompts(never, "nowhere", task, LENGTHS)
    with pytest.raises(UserError, match="num_examples=0 must be a whole number of 1 or more"):
        data.prompts(never, None, task, LENGTHS, num_examples=0)


def test_the_hash_is_of_what_is_asked(build):
    one, same, other = build("a\nb"), build("a\n\nb\n", "other.txt"), build("a\nc")
    assert data.content_hash(one) == data.content_hash(same) != data.content_hash(other)
    assert data.content_hash(one) != data.content_hash(build("a\nb", lengths={"inputs": 5, "targets": 3}))


def test_a_prompt_has_a_number_of_its_own_wherever_it_stands(build):
    def ids(content):
        return [example["sampling_id"] for example in build(content).examples]

    a, b, again = ids("a\nb\na")
    assert len({a, b, again}) == 3 and all(0 <= number < 2**31 for number in (a, b, again))
    assert ids("b\na\na") == [b, a, again]
