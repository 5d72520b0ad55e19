"""What a vocabulary cannot hold: counted, told with an example, and never right by accident."""

import json
import pathlib

import pytest

from lmirl_jax import data
from lmirl_jax.data.split_checks import warn_once

LENGTHS = {"inputs": 16, "targets": 16}
# As ../shared/cases/lossy.jsonl has them: two targets with unknown characters, one whose white space is run together.
LOSSY = [
    {"inputs": "compare 1", "targets": "if a < x {\n  y = 1\n}"},
    {"inputs": "compare 2", "targets": "if a > x { y = 1 }"},
    {"inputs": "compare 3", "targets": "a  x\ty"},
    {"inputs": "vergleiche die Größe 日本", "targets": "x"},
]
COUNTS = (
    "1 of 4 inputs hold characters that the vocabulary lacks",
    "2 of 4 targets hold characters that the vocabulary lacks",
    "1 of 4 targets are changed by the vocabulary ('a  x\\ty' is read as 'a x y')",
)


@pytest.fixture
def lossy(write_jsonl, words_model):
    path = write_jsonl(LOSSY, "lossy.jsonl")
    return data.get_task(data=path, validation_data=path, vocabulary_path=str(words_model))


def held_out(task, tmp_path, **lengths):
    return data.EvalDataset(task, LENGTHS | lengths, cache_dir=str(tmp_path / "cache"))


def test_metrics_compare_with_the_text_that_the_user_wrote(lossy, tmp_path):
    dataset = held_out(lossy, tmp_path)
    own = [example["targets"] for example in LOSSY]
    decoded = [lossy.decode(example["targets"]) for example in dataset.examples]
    assert dataset.metrics(own) == {"exact_match": 1.0}
    assert dataset.metrics(decoded) == {"exact_match": 0.25}  # 'x' alone comes back whole.
    assert dataset.prompt_metrics(dataset.examples[0], [decoded[0], own[0]]) == {"exact_match": 0.5}


def test_references_are_whole_where_rows_are_truncated(lossy, tmp_path):
    dataset = held_out(lossy, tmp_path, targets=2)
    assert dataset.reference(dataset.examples[1]) == LOSSY[1]["targets"]
    assert dataset.metrics([example["targets"] for example in LOSSY]) == {"exact_match": 1.0}


def test_a_task_that_keeps_no_text_is_compared_with_its_tokens(make_task, single, tmp_path):
    from lmirl_jax.data.seqio_library import seqio

    def forget(dataset):
        return dataset.map(lambda example: {key: example[key] for key in ("inputs", "targets")})

    task = make_task(
        {"train": [("a", "b")], "validation": [("a", "b")]},
        preprocessors=[seqio.preprocessors.tokenize, forget, seqio.preprocessors.append_eos],
    )
    dataset = held_out(single(task), tmp_path)
    assert dataset.reference(dataset.examples[0]) == "b"
    assert dataset.examples[0]["inputs_pretokenized"] == "a"


@pytest.mark.parametrize("target", ["<", "⁇", " ⁇ "])
def test_an_unknown_word_equals_no_reference(write_jsonl, words_model, tmp_path, target):
    """Not even one that is what the vocabulary writes for it."""
    path = write_jsonl([{"inputs": "compare 15 and 16", "targets": target}])
    task = data.get_task(data=path, validation_data=path, vocabulary_path=str(words_model))
    dataset = held_out(task, tmp_path)
    prediction = task.decode([task.output_vocabulary.unk_id, 1])
    assert prediction.strip() == "⁇"
    assert dataset.metrics([prediction]) == {"exact_match": 0.0}
    assert dataset.prompt_metrics(dataset.examples[0], [prediction] * 2) == {"exact_match": 0.0}
    (_, (exact_match,), targets, samples) = next(iter(dataset.corpora([[prediction]])))
    assert exact_match(targets, samples[0]) == {"exact_match": 0.0}
    assert data.answer_metrics(task.tasks[0], "compare 15 and 16", target, prediction) == {"exact_match": 0.0}


def test_an_unknown_word_is_no_hit_for_bleu_either(words_model, write_jsonl, tmp_path):
    """One word of five, in the middle, is unknown: 4 of 5 unigrams agree, 2 of 4 bigrams and no trigram."""
    import sacrebleu

    path = write_jsonl([{"inputs": "x", "targets": "a x ⁇ y a"}])
    task = data.get_task(data=path, validation_data=path, vocabulary_path=str(words_model))
    dataset = held_out(task, tmp_path)
    prediction = task.decode(dataset.examples[0]["targets"])
    seen = dataset.postprocess(prediction, dataset.examples[0])
    counts = sacrebleu.corpus_bleu([seen], [["a x ⁇ y a"]])
    assert counts.counts == [4, 2, 0, 0] and counts.totals == [5, 4, 3, 2]


@pytest.mark.parametrize("made", ["train", "held out", "pairs"])
def test_vocabulary_losses_are_reported_in_every_run(lossy, tmp_path, caplog, made):
    for run in ("the first writes the tokens", "the second reads them"):
        caplog.clear()
        warn_once.cache_clear()
        if made == "train":
            data.TrainDataset(lossy, 2, LENGTHS, cache_dir=str(tmp_path / "cache"))
        elif made == "held out":
            held_out(lossy, tmp_path)
        else:
            data.TaskPairs(lossy, "validation", LENGTHS)
        lines = [line for line in caplog.messages if "the vocabulary lacks" in line]
        assert len(lines) == 1, run
        for count in COUNTS:
            assert count in lines[0]
        assert "VOCABULARY_PATH" in lines[0] and "\n" not in lines[0]


def test_a_file_of_pairs_and_one_of_prompts_tell_too(lossy, write_jsonl, caplog):
    warn_once.cache_clear()
    pairs = data.PairFile(write_jsonl(LOSSY, "pairs.jsonl"), lossy, LENGTHS)
    assert len(list(pairs)) == 4
    assert COUNTS[0] in caplog.text and COUNTS[1] in caplog.text
    caplog.clear()
    data.PromptFile(write_jsonl(LOSSY, "prompts.jsonl"), lossy, LENGTHS)
    assert COUNTS[0] in caplog.text and "metrics" not in caplog.text


def test_bytes_hold_every_text(write_jsonl, tmp_path, caplog):
    warn_once.cache_clear()
    path = write_jsonl(LOSSY, "lossy.jsonl")
    dataset = held_out(data.get_task(data=path, validation_data=path), tmp_path, targets=64, inputs=64)
    decoded = [dataset.decode(example["targets"]) for example in dataset.examples]
    assert decoded == [line["targets"] for line in LOSSY]
    assert "vocabulary" not in caplog.text


def test_with_the_vocabulary_of_t5(shared_data, tmp_path, caplog):
    """The lines of the case that was reported."""
    warn_once.cache_clear()
    path = str(shared_data.parent / "cases" / "lossy.jsonl")
    vocabulary = str(shared_data / "t5_vocab" / "spiece.model")
    task = data.get_task(data=path, validation_data=path, vocabulary_path=vocabulary)
    dataset = held_out(task, tmp_path)
    own = [json.loads(line)["targets"] for line in pathlib.Path(path).read_text().splitlines()]
    assert dataset.metrics(own) == {"exact_match": 1.0}
    assert dataset.metrics([task.decode(example["targets"]) for example in dataset.examples]) == {
        "exact_match": 0.0
    }
    assert "2 of 3 targets hold characters that the vocabulary lacks" in caplog.text
    assert "('a  b\\tc' is read as 'a b c')" in caplog.text


def test_an_answer_is_not_rewarded_for_an_unknown_token_of_its_target(lossy, tmp_path):
    """What a reward function compares with the prompt's own target: `y ⁇` is no `y <`."""
    dataset = data.TrainDataset(lossy, 2, LENGTHS, cache_dir=str(tmp_path / "cache"))
    tokens = lossy.output_vocabulary.encode("if a < x")
    target = dataset.decode(tokens)
    assert "⁇" in target
    assert dataset.decode_against(tokens, target) != target
    assert dataset.decode_against(tokens, "if a then x") == target
