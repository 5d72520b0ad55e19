"""Which vocabulary a folder has, and the one line that a user gets where it has none."""

import json
import re
import shutil

import pytest

from lmirl_jax import data
from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.hf_tokenizer import HuggingFaceVocabulary
from lmirl_jax.data.sentence_pieces import SentencePieceVocabulary
from lmirl_jax.types import UserError


def write(folder, **files):
    """JSON files by their names without the ending."""
    for name, content in files.items():
        (folder / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return str(folder)


def refusal(path):
    with pytest.raises(UserError) as caught:
        data.vocabulary(str(path))
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    return message


@pytest.mark.parametrize(
    ("config", "extra_ids"),
    [
        ({}, 125),
        ({"extra_ids": 125}, 125),
        ({"extra_ids": 7}, 7),
        ({"extra_ids": 0, "additional_special_tokens": [f"<extra_id_{n}>" for n in range(9)]}, 9),
        ({"extra_ids": 0, "added_tokens_decoder": {"259": {"content": "<extra_id_0>"}, "1": {}}}, 1),
    ],
)
def test_byt5(tmp_path, config, extra_ids):
    path = write(tmp_path, tokenizer_config={"tokenizer_class": "ByT5Tokenizer"} | config)
    vocabulary = data.vocabulary(path)
    assert isinstance(vocabulary, ByteVocabulary)
    assert vocabulary.vocab_size == 259 + extra_ids
    assert vocabulary.encode_prompt("é") == [0xC3 + 3, 0xA9 + 3, 1]
    assert vocabulary.fingerprint() == ByteVocabulary(extra_ids).fingerprint()


@pytest.mark.parametrize("name", ["spiece.model", "sentencepiece.model"])
@pytest.mark.parametrize(
    ("files", "extra_ids"),
    [
        ({}, 100),
        ({"tokenizer_config": {"tokenizer_class": "T5Tokenizer"}}, 100),
        ({"tokenizer_config": {"tokenizer_class": "MT5TokenizerFast", "extra_ids": 0}}, 0),
        ({"tokenizer_config": {"extra_ids": 3}, "config": {"model_type": "umt5"}}, 3),
    ],
)
def test_the_sentencepiece_model_of_t5(words_model, tmp_path, name, files, extra_ids):
    shutil.copy(words_model, tmp_path / name)
    vocabulary = data.vocabulary(write(tmp_path, **files))
    plain = SentencePieceVocabulary.load(words_model, extra_ids)
    assert isinstance(vocabulary, SentencePieceVocabulary)
    assert vocabulary.fingerprint() == plain.fingerprint()
    assert vocabulary.encode_prompt("compare 1") == [*plain.encode("compare 1"), 1]


def test_tokenizer_json_comes_first(hf_t5, words_model, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(hf_t5, folder)
    shutil.copy(words_model, folder / "spiece.model")
    assert isinstance(data.vocabulary(str(folder)), HuggingFaceVocabulary)


@pytest.fixture
def pairs(tmp_path, hf_bytes):
    """A folder with the two files of GPT-2's tokenizer."""
    model = json.loads((hf_bytes / "tokenizer.json").read_text())["model"]
    vocabulary = {("<|endoftext|>" if i == 0 else word): i for word, i in model["vocab"].items()}
    folder = tmp_path / "gpt2"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    write(folder, tokenizer_config={"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"})
    return folder


def test_byte_pairs_in_two_files(pairs, hf_bytes):
    vocabulary = data.vocabulary(str(pairs))
    text = "compare 12 and 13  für 日本\n"
    assert vocabulary.encode_prompt(text) == data.vocabulary(str(hf_bytes)).encode(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert (vocabulary.eos_ids, vocabulary.holds_every_text) == ((0,), True)
    (pairs / "merges.txt").write_text("#version: 0.2\nthere isno\n")
    assert "do not fit together" in refusal(pairs)


@pytest.mark.parametrize("name", ["Qwen2Tokenizer", "RobertaTokenizerFast"])
def test_other_byte_pairs_need_a_conversion(pairs, name):
    write(pairs, tokenizer_config={"tokenizer_class": name})
    message = refusal(pairs)
    assert f"has vocab.json of a {name.removesuffix('Fast')} and no tokenizer.json" in message
    assert f"A.from_pretrained('{pairs}').save_pretrained('{pairs}')" in message


def test_a_vocabulary_without_its_merges(pairs):
    (pairs / "merges.txt").unlink()
    (pairs / "tokenizer_config.json").unlink()
    assert "has vocab.json without merges.txt and no tokenizer.json" in refusal(pairs)


def test_a_folder_without_a_tokenizer(tmp_path):
    message = refusal(tmp_path)
    assert message.startswith(f"no tokenizer in the folder {tmp_path}: VOCABULARY_PATH must name one with")
    assert "tokenizer.json, spiece.model or sentencepiece.model" in message


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (
            {"tokenizer_config": {"tokenizer_class": "T5Tokenizer"}},
            r"tokenizer_config\.json names a T5Tokenizer, whose files are not there: copy spiece\.model or tokenizer\.json",
        ),
        (
            {"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}},
            r"names a BertJapaneseTokenizer, whose files are not there: copy tokenizer\.json",
        ),
        ({"config": {"model_type": "t5"}}, r"/config\.json names a T5Tokenizer"),
        ({"tokenizer": "{"}, r"tokenizer\.json is no JSON \("),
        ({"tokenizer": "[]"}, r"tokenizer\.json holds no JSON object"),
        ({"tokenizer": "[" * 100_000}, r"tokenizer\.json is no JSON \("),
        (
            {"tokenizer": "{}"},
            r"tokenizer\.json is no tokenizer that the library tokenizers reads \(Model missing",
        ),
        (
            {"tokenizer": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}},
            r"tokenizer\.json is no tokenizer",
        ),
        ({"tokenizer_config": "no", "tokenizer": "{}"}, r"tokenizer_config\.json is no JSON"),
        ({"tokenizer_config": {"tokenizer_class": "ByT5Tokenizer", "extra_ids": "x"}}, r"extra_ids is 'x'"),
        ({"tokenizer_config": {"tokenizer_class": "ByT5Tokenizer", "extra_ids": -1}}, r"extra_ids is -1"),
    ],
)
def test_broken_folders(tmp_path, files, what):
    write(tmp_path, **files)
    assert re.search(what, refusal(tmp_path))


def test_a_model_of_another_tokenizer_class_needs_a_conversion(words_model, tmp_path):
    shutil.copy(words_model, tmp_path / "tokenizer.model")
    write(tmp_path, tokenizer_config={"tokenizer_class": "LlamaTokenizer"})
    assert "has tokenizer.model of a LlamaTokenizer and no tokenizer.json: make this one with" in refusal(
        tmp_path
    )


def test_a_broken_model_in_a_folder(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"hello")
    assert "spiece.model is no SentencePiece model" in refusal(tmp_path)
