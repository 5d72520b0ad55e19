"""Ids come from the vocabulary: EOS may be any, several ids may end an answer, and id 0 may be a word."""

import json

import numpy as np
import pytest

from lmirl_jax import data
from lmirl_jax.data.pieces import decode_with_offsets, encode_with_offsets
from lmirl_jax.data.seqio_library import seqio
from lmirl_jax.rows import answers_of, prompts_of

LENGTHS = {"inputs": 32, "targets": 32}
ROWS = [{"inputs": "!1+2!", "targets": "3!"}, {"inputs": "4+5!", "targets": "!9!!"}]
KINDS = ("bytes", "spiece_eos_2", "spiece_word_0", "gpt2_like")


@pytest.fixture(params=KINDS)
def task(request, tmp_path, make_task, single):
    """The rows in a vocabulary of each kind; those with special ids of their own have EOS 1, 2, 2 and 256."""
    if request.param == "gpt2_like":
        feature = seqio.Feature(request.getfixturevalue("gpt2_like"), add_eos=True)
        texts = [(row["inputs"], row["targets"]) for row in ROWS]
        features = {"inputs": feature, "targets": feature}
        return single(make_task({"train": texts, "validation": texts}, output_features=features))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    model = None if request.param == "bytes" else str(request.getfixturevalue(request.param))
    return data.get_task(data=str(path), validation_data=str(path), vocabulary_path=model)


def test_the_three_vocabularies_are_what_they_are_for(spiece_eos_2, spiece_word_0, gpt2_like_task):
    by_default, word_0 = data.vocabulary(str(spiece_eos_2)), data.vocabulary(str(spiece_word_0))
    gpt2 = data.get_task(gpt2_like_task).output_vocabulary
    assert (by_default.eos_ids, by_default.unk_id) == ((2,), 0)
    assert (word_0.eos_ids, word_0.unk_id) == ((2,), 1)
    assert word_0.processor.IsControl(0) is word_0.processor.IsUnknown(0) is False
    assert (gpt2.eos_ids, gpt2.unk_id) == ((256,), None) and gpt2.decode([0, 0]) == "!!"
    assert data.get_task(gpt2_like_task).eos_ids == (256,)


def test_padding_follows_from_lengths_and_answers_end_with_eos(task, tmp_path):
    dataset = data.TrainDataset(task, 2, LENGTHS, shuffle=False, cache_dir=str(tmp_path))
    batch = next(dataset.iterator(slice(0, 2)))
    prompts, answers = prompts_of(batch), answers_of(batch)
    assert dataset.eos_ids == task.eos_ids and answers.terminal.all()
    for number, row in enumerate(ROWS):
        prompt = batch.prompt_tokens[number, : prompts.lengths[number]]
        answer = batch.tokens[number, : answers.lengths[number]]
        assert prompt[-1] == answer[-1] == task.eos_ids[0]
        assert task.eos_ids[0] not in [*prompt[:-1], *answer[:-1]]
        assert dataset.decode_inputs(prompt) == row["inputs"] and dataset.decode(answer) == row["targets"]
        assert batch.td_weights[number].sum() == batch.weights[number].sum() == len(answer)


def test_a_word_with_id_0_stays_in_texts_and_tokens(gpt2_like_task, tmp_path):
    task = data.get_task(gpt2_like_task)
    held_out = data.EvalDataset(task, LENGTHS, cache_dir=str(tmp_path))
    example = held_out.examples[0]
    assert example["targets"].tolist() == [0, 17, 16, 0, 256] and example["targets_pretokenized"] == "!21!"
    assert held_out.decode(example["targets"]) == "!21!" == held_out.decode([0, 17, 16, 0])
    assert held_out.decode([0]) == "!" and task.decode_inputs(example["inputs"]) == "!20+1!"
    ((batch, _),) = held_out.batches(4)
    assert batch.weights[0].tolist() == [1] * 5 + [0] * 27
    assert batch.prompt_segment_ids[0].sum() == len(example["inputs"]) == 7


def test_unknown_words_are_counted_where_their_id_is_0(write_jsonl, spiece_eos_2, tmp_path):
    path = write_jsonl([{"inputs": "1+2!", "targets": "3 < 4!"}, ROWS[0]])
    task = data.get_task(data=path, vocabulary_path=str(spiece_eos_2))
    records = data.tokenized_records(task.tasks[0], "train", str(tmp_path / "cache"))
    assert (records.losses["targets"].unknown, records.losses["inputs"].unknown) == (1, 0)
    assert 0 in records.source[0].targets


def test_pairs_prompts_and_offsets(task, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    eos = task.eos_ids[0]
    for pair, row in zip(data.PairFile(path, task, LENGTHS), ROWS, strict=True):
        assert pair.input_tokens[-1] == pair.target_tokens[-1] == eos
        assert "".join(row["targets"][begin:end] for begin, end in pair.offsets) == row["targets"]
    for pair, row in zip(data.TaskPairs(task, "validation", LENGTHS), ROWS, strict=True):
        assert pair.targets == row["targets"] and pair.target_tokens[-1] == eos
    ((batch, _),) = data.PromptFile(str(path), task, LENGTHS).batches(2)
    lengths = prompts_of(batch).lengths
    assert [batch.prompt_tokens[i, lengths[i] - 1] for i in range(2)] == [eos] * 2
    ids, offsets = encode_with_offsets(task.output_vocabulary, "!9!")
    text, again = decode_with_offsets(task.output_vocabulary, [*ids.tolist(), eos])
    assert text == "!9!" and len(again) == len(ids) + 1 == len(offsets) + 1


def test_several_ids_may_end_an_answer(make_task, single, tmp_path):
    """A sampled answer may end with another one than demonstrations do; its text ends before it."""
    from tests.gpt2_vocabulary import SeveralEndsVocabulary

    feature = seqio.Feature(SeveralEndsVocabulary(), add_eos=True)
    features = {"inputs": feature, "targets": feature}
    tokenize = [seqio.preprocessors.tokenize]
    ends = single(
        make_task({"train": [("a", "b~")]}, "ends", output_features=features, preprocessors=tokenize)
    )
    dataset = data.TrainDataset(ends, 1, LENGTHS, cache_dir=str(tmp_path))
    assert dataset.eos_ids == (256, 93)
    batch = next(dataset.iterator(slice(0, 1)))
    assert answers_of(batch).terminal.tolist() == [True]
    assert data.tokenized_records(ends.tasks[0], "train", str(tmp_path)).without_eos == 0
    assert dataset.decode([65, 93]) == "b"


def test_packing_ends_answers_with_the_vocabularys_eos():
    packer = data.Packer(1, lengths=LENGTHS, discount=1.0, eos_ids=(256, 93))
    for targets in ([0, 5, 256], [0, 93], [0, 0]):
        packer.add(np.array([0], np.int32), np.array(targets, np.int32))
    batch = packer.batch()
    assert batch.segment_ids[0, :8].tolist() == [1, 1, 1, 2, 2, 3, 3, 0]
    assert batch.prompt_segment_ids[0, :4].tolist() == [1, 2, 3, 0]
    assert batch.td_weights[0, :8].tolist() == [1, 1, 1, 1, 1, 1, 0, 0]


def test_a_seqio_task_may_lack_an_eos(make_task, single, tmp_path, caplog):
    feature = seqio.Feature(seqio.PassThroughVocabulary(300), add_eos=False)
    byte = seqio.Feature(seqio.ByteVocabulary(), add_eos=False)
    task = make_task(
        {"train": [("a", "b")]},
        output_features={"inputs": byte, "targets": byte},
        preprocessors=[seqio.preprocessors.tokenize],
    ).replace(output_features={"inputs": feature, "targets": feature}, preprocessors=[to_ids])
    dataset = data.TrainDataset(single(task), 1, LENGTHS, cache_dir=str(tmp_path))
    assert dataset.eos_ids == () and "1 of 1 targets have no EOS of their own" in caplog.text
    assert next(dataset.iterator(slice(0, 1))).td_weights[0, :3].tolist() == [1, 0, 0]


def to_ids(dataset):
    return dataset.map(lambda example: {"inputs": [5, 0], "targets": [0, 7]})


def test_a_decoder_starts_from_a_token_that_is_no_word(
    spiece_eos_1, spiece_eos_2, spiece_word_0, gpt2_like_task
):
    """Padding where a vocabulary has it, as T5's and ByT5's 0; else EOS, as id 0 may begin an answer."""
    assert data.vocabulary().start_id == 0
    starts = [data.vocabulary(str(path)).start_id for path in (spiece_eos_1, spiece_eos_2, spiece_word_0)]
    assert starts == [0, 2, 2]
    assert data.get_task(gpt2_like_task).output_vocabulary.start_id == 256
    assert data.decoder_start_id(data.get_task(gpt2_like_task)) == 256
