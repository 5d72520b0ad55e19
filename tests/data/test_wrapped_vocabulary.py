"""A Hugging Face tokenizer as a vocabulary of SeqIO, and in tasks of SeqIO and of files."""

import numpy as np
import pytest
import seqio
import tensorflow as tf

from lmirl_jax import data
from lmirl_jax.data.records import tokenized_records
from lmirl_jax.data.seqio_vocabularies import WrappedVocabulary
from lmirl_jax.data.task_pairs import make_pair
from lmirl_jax.data.vocabularies import as_vocabulary
from tests.data.conftest import HARD_TEXTS


def examples(task, split="train"):
    records = tokenized_records(task.tasks[0], split)
    return [records.source[i] for i in range(len(records))]


@pytest.mark.parametrize("kind", ["hf_t5", "hf_bytes", "hf_gemma"])
def test_it_does_in_seqio_what_it_does_here(request, kind):
    path = str(request.getfixturevalue(kind))
    ours, theirs = data.vocabulary(path), data.seqio_vocabulary(path)
    prompts = data.seqio_vocabulary(path, for_prompts=True)
    assert isinstance(theirs, seqio.Vocabulary)
    assert (theirs.eos_id, theirs.unk_id, theirs.pad_id) == (ours.eos_ids[0], ours.unk_id, ours.start_id)
    assert theirs.vocab_size == ours.vocab_size
    for text in HARD_TEXTS:
        ids = ours.encode(text)
        assert theirs.encode(text) == ids == theirs.encode_tf(tf.constant(text)).numpy().tolist()
        prompt = ours.encode_prompt(text)
        assert prompts.encode(text) == prompt == prompts.encode_tf(tf.constant(text)).numpy().tolist()
        back = ours.decode([*ids, *ours.eos_ids, *ids])
        assert theirs.decode([*ids, *ours.eos_ids, *ids]) == back
        if ids:
            assert theirs.decode_tf(tf.constant(ids, tf.int32)).numpy().decode() == back
    batch = theirs.encode_tf(tf.constant(list(HARD_TEXTS)))
    assert batch.to_list() == [ours.encode(text) for text in HARD_TEXTS]
    assert as_vocabulary(theirs).fingerprint() == ours.fingerprint()
    assert theirs == data.seqio_vocabulary(path) != prompts != seqio.ByteVocabulary()
    assert len({theirs, prompts, data.seqio_vocabulary(path)}) == 2


def test_bytes_and_pieces_of_a_folder_have_seqios_own_types(tmp_path, words_model):
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert data.seqio_vocabulary(str(tmp_path)) == seqio.ByteVocabulary(extra_ids=125)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 0}')
    (tmp_path / "spiece.model").write_bytes(words_model.read_bytes())
    made = data.seqio_vocabulary(str(tmp_path))
    assert isinstance(made, seqio.SentencePieceVocabulary) and made.extra_ids == 0
    assert data.vocabulary_fingerprint(made) == data.vocabulary(str(tmp_path)).fingerprint()


@pytest.mark.parametrize("kind", ["hf_t5", "hf_bytes", "hf_gemma"])
def test_vocabulary_path_of_a_seqio_task_and_of_a_file(
    request, kind, make_task, write_jsonl, tmp_path, monkeypatch
):
    """Both have the tokens of transformers around a prompt, and one EOS after each answer."""
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    path = str(request.getfixturevalue(kind))
    vocabulary = data.vocabulary(path)
    pairs = [("compare 1", "and"), ("日本", "für")]
    make_task({"train": pairs}, name=f"wrapped_{kind}", register=True)
    lines = [{"inputs": inputs, "targets": targets} for inputs, targets in pairs]
    registered = data.get_task(f"wrapped_{kind}", vocabulary_path=path)
    of_file = data.get_task(data=write_jsonl(lines), vocabulary_path=path)
    assert registered.vocabulary_fingerprints == of_file.vocabulary_fingerprints
    for task in (registered, of_file):
        for (inputs, targets), example in zip(pairs, examples(task), strict=True):
            assert example.inputs.tolist() == vocabulary.encode_prompt(inputs)
            assert example.targets.tolist() == [*vocabulary.encode(targets), vocabulary.eos_ids[0]]
            pair = make_pair(task, inputs, targets)
            assert pair.input_tokens.tolist() == example.inputs.tolist()
            assert pair.target_tokens.tolist() == example.targets.tolist()
            assert len(pair.offsets) == len(pair.target_tokens)


def test_a_task_that_ends_its_prompts_itself_keeps_that(hf_gemma, make_task, tmp_path, monkeypatch):
    """Its feature says add_eos=False: then nothing is put around its prompts."""
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    plain = seqio.Feature(seqio.ByteVocabulary(), add_eos=False)
    features = {"inputs": plain, "targets": seqio.Feature(seqio.ByteVocabulary(), add_eos=True)}
    make_task({"train": [("if", "an")]}, name="bare_prompts", register=True, output_features=features)
    task = data.get_task("bare_prompts", vocabulary_path=str(hf_gemma))
    vocabulary = data.vocabulary(str(hf_gemma))
    (example,) = examples(task)
    assert example.inputs.tolist() == vocabulary.encode("if")
    assert example.targets.tolist() == [*vocabulary.encode("an"), 1]


def test_prompts_and_texts_are_cached_apart(hf_gemma, make_task, tmp_path, monkeypatch):
    """Both vocabularies have one fingerprint and other tokens."""
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    ours = data.vocabulary(str(hf_gemma))
    tokens = []
    for for_prompts in (False, True):
        feature = seqio.Feature(WrappedVocabulary(ours, for_prompts), add_eos=False)
        task = make_task({"train": [("if", "an")]}, output_features={"inputs": feature, "targets": feature})
        records = tokenized_records(task, "train")
        tokens.append(records.source[0].inputs.tolist())
    assert tokens == [ours.encode("if"), ours.encode_prompt("if")]


def test_an_answer_that_spells_its_end_is_ended_once(hf_bytes, write_jsonl, tmp_path, monkeypatch):
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    vocabulary = data.vocabulary(str(hf_bytes))
    lines = [{"inputs": "a", "targets": "and<|im_end|>"}]
    task = data.get_task(data=write_jsonl(lines), vocabulary_path=str(hf_bytes))
    (example,) = examples(task)
    pair = make_pair(task, "a", "and<|im_end|>")
    assert example.targets.tolist() == pair.target_tokens.tolist() == [*vocabulary.encode("and"), 2]
    assert len(pair.offsets) == len(pair.target_tokens)


def test_prompts_of_a_file(hf_gemma, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("if\nan 1\n")
    (tmp_path / "data.jsonl").write_text('{"inputs": "a", "targets": "b"}\n')
    task = data.get_task(data=str(tmp_path / "data.jsonl"), vocabulary_path=str(hf_gemma))
    prompts = data.PromptFile(str(file), task, {"inputs": 16, "targets": 4})
    ((batch, _),) = prompts.batches(2)
    expected = [task.input_vocabulary.encode_prompt(text) for text in ("if", "an 1")]
    for row, tokens in zip(np.asarray(batch.prompt_tokens), expected, strict=True):
        assert row[: len(tokens)].tolist() == tokens and tokens[0] == 2
