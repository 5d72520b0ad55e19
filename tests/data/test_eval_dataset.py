import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.types import UserError

LENGTHS = {"inputs": 4, "targets": 4}
TEXTS = {"train": [("t", "t")], "validation": [("a", "1"), ("b", "22"), ("c", "333")]}


@pytest.fixture
def build(make_task, single, tmp_path):
    def make(task=None, **settings):
        task = task or single(make_task(TEXTS))
        return data.EvalDataset(task, **{"lengths": LENGTHS, "cache_dir": str(tmp_path)} | settings)

    return make


def test_batches_come_in_order_and_full(build):
    batches = list(build().batches(2))
    assert [[example["targets_pretokenized"] for example in examples] for _, examples in batches] == [
        ["1", "22"],
        ["333"],
    ]
    last = batches[1][0]
    np.testing.assert_array_equal(last.weights, [[1, 1, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(last.prompt_tokens, [[102, 1, 0, 0], [0, 0, 0, 0]])


def test_num_examples_limits(build):
    assert [example["inputs_pretokenized"] for example in build(num_examples=2).examples] == ["a", "b"]
    assert len(build(num_examples=9)) == 3


def test_decoding_stops_at_eos(build):
    assert build().decode([104, 105, 1, 106, 0]) == "ef"
    assert build().decode(np.array([104, 0, 0])) == "e"


def test_metrics_see_postprocessed_texts_and_seqio_examples(build, make_task, single):
    seen = []

    def postprocess(text, example, is_target):
        seen.append((type(example["inputs_pretokenized"]), example["targets"].dtype))
        return (is_target, text)

    def agreement(targets, predictions):
        assert all(is_target for is_target, _ in targets) and not any(
            is_target for is_target, _ in predictions
        )
        same = [t == p for (_, t), (_, p) in zip(targets, predictions, strict=True)]
        return {"agreement": np.mean(same), "undefined": float("nan"), "note": "a text"}

    def spread(targets, predictions, aux_values):
        return {"spread": np.mean([len({text for _, text in texts}) for texts in aux_values["samples"]])}

    task = make_task(TEXTS, postprocess_fn=postprocess, metric_fns=[agreement, spread])
    dataset = build(single(task))
    assert dataset.has_metrics
    assert dataset.metrics(["1", "22", "x"]) == {"agreement": pytest.approx(2 / 3)}
    found = dataset.metrics(["1", "22", "x"], samples=[["1", "1"], ["2", "3"], ["x", "y"]])
    assert found == {"agreement": pytest.approx(2 / 3), "spread": pytest.approx(5 / 3)}
    assert set(seen) == {(bytes, np.dtype(np.int32))}


def test_targets_are_whole_although_rows_are_trimmed(build):
    dataset = build(lengths={"inputs": 1, "targets": 1})
    assert [dataset.target(example) for example in dataset.examples] == ["1", "22", "333"]


def test_a_mixture_is_scored_task_by_task(build, make_task):
    def right(targets, predictions):
        return {"right": sum(t == p for t, p in zip(targets, predictions, strict=True))}

    parts = [
        make_task({"validation": [(x, x) for x in texts]}, texts, metric_fns=[right])
        for texts in ("ab", "cde")
    ]
    dataset = build(data.Task("both", (*parts, make_task({"train": [("x", "y")]}, "none")), (1.0, 1.0, 1.0)))
    assert dataset.metrics(["a", "b", "c", "d", "x"]) == {"ab/right": 2, "cde/right": 2}


def test_a_missing_split_and_a_bad_number(build):
    with pytest.raises(UserError, match="letters has no split 'test'; it has train, validation"):
        build(split="test")
    with pytest.raises(UserError, match="num_examples=0 must be a whole number of 1 or more"):
        build(num_examples=0)


def test_corpora_are_what_metrics_see_of_each_task(build, make_task, single):
    def length(targets, predictions):
        return {"length": float(np.mean([len(text) for text in predictions]))}

    def postprocess(text, example, is_target):
        return text if is_target else f"<{text}>"

    task = make_task(TEXTS, postprocess_fn=postprocess, metric_fns=[length])
    samples = [["x", "y"], ["1"], ["2"]]
    (found,) = build(single(task)).corpora(samples)
    assert found == ("", [length], ["1", "22", "333"], [["<x>", "<y>"], ["<1>"], ["<2>"]])
