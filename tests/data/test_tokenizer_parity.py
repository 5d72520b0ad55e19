"""transformers' AutoTokenizer is the oracle: it gives the same tokens and texts, also from the files that we write."""

import json

import pytest

from lmirl_jax import data
from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.hf_tokenizer import HuggingFaceVocabulary
from tests.data.conftest import HARD_TEXTS

# Prints what AutoTokenizer does with each of the texts, for each of the folders.
ORACLE = """
import json, sys
from transformers import AutoTokenizer

asked, answers = json.loads(sys.argv[1]), {}
for folder in asked["folders"]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text)["input_ids"] for text in asked["texts"]]
    answers[folder] = {
        "ids": ids,
        "plain": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in asked["texts"]],
        "decoded": [tokenizer.decode(each, skip_special_tokens=True) for each in ids],
        "size": len(tokenizer),
        "eos": tokenizer.eos_token_id,
    }
print(json.dumps(answers))
"""
TEXTS = [*HARD_TEXTS, "compare 1 <extra_id_0> and 2", "a <|im_start|> b"]


@pytest.fixture(scope="module")
def ask(transformers):
    """Asks transformers for what the tokenizers of folders do with texts."""

    def ask(folders, texts):
        asked = json.dumps({"folders": [str(folder) for folder in folders], "texts": texts})
        return json.loads(transformers.run(ORACLE, asked))

    return ask


def check(vocabulary, theirs, texts):
    assert vocabulary.vocab_size == theirs["size"]
    assert vocabulary.eos_ids[0] == theirs["eos"]
    for text, ids, plain, decoded in zip(
        texts, theirs["ids"], theirs["plain"], theirs["decoded"], strict=True
    ):
        assert vocabulary.encode_prompt(text) == ids, text
        assert vocabulary.encode(text) == plain, text
        # transformers takes the token of unknown text for a special one and leaves it out.
        known = [i for i in plain if i != vocabulary.unk_id]
        if known == plain or isinstance(vocabulary, HuggingFaceVocabulary):
            assert vocabulary.decode(known) == decoded, text


@pytest.mark.e2e
@pytest.mark.slow
def test_tokens_and_texts_are_those_of_transformers(ask, hf_t5, hf_bytes, hf_gemma, shared_data, tmp_path):
    smollm2 = shared_data / "checkpoints" / "smollm2_135m_instruct"
    folders = [hf_t5, hf_bytes, hf_gemma, smollm2]
    # What we write of each is what it was.
    copies = [tmp_path / str(number) for number in range(len(folders))]
    for folder, copy in zip(folders, copies, strict=True):
        data.write_tokenizer(data.vocabulary(str(folder)), copy)
    answers = ask([*folders, *copies], TEXTS)
    for folder, copy in zip(folders, copies, strict=True):
        check(data.vocabulary(str(folder), chat=False), answers[str(folder)], TEXTS)
        assert answers[str(folder)] == answers[str(copy)]
        for path in copy.iterdir():
            assert path.read_bytes() == (folder / path.name).read_bytes()
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (copy / name).is_file()
    assert (copies[3] / "chat_template.jinja").is_file() and not (copies[3] / "config.json").exists()


@pytest.mark.e2e
@pytest.mark.slow
def test_the_files_of_our_own_vocabularies(ask, words_model, spiece_eos_2, spiece_word_0, tmp_path):
    """A text must not spell out a special token: SentencePiece and bytes read it as text, transformers as the token."""
    texts = [*HARD_TEXTS, "1+2!  is 3!\n"]
    made = {
        "bytes": data.vocabulary(),
        "byt5": ByteVocabulary(125),
        "t5": data.vocabulary(str(words_model)),
        "eos_2": data.vocabulary(str(spiece_eos_2)),
        "word_0": data.vocabulary(str(spiece_word_0)),
    }
    for name, vocabulary in made.items():
        data.write_tokenizer(vocabulary, tmp_path / name)
    answers = ask([tmp_path / name for name in made], texts)
    for name, vocabulary in made.items():
        check(vocabulary, answers[str(tmp_path / name)], texts)


@pytest.mark.e2e
@pytest.mark.slow
def test_t5s_own_model(ask, shared_data, tmp_path):
    file = shared_data / "t5_vocab" / "spiece.model"
    vocabulary = data.vocabulary(str(file))
    data.write_tokenizer(vocabulary, tmp_path)
    assert (tmp_path / "spiece.model").read_bytes() == file.read_bytes()
    answers = ask([tmp_path], list(HARD_TEXTS))
    check(vocabulary, answers[str(tmp_path)], HARD_TEXTS)
    again = data.vocabulary(str(tmp_path))
    assert again.fingerprint() == vocabulary.fingerprint()
    data.write_tokenizer(again, tmp_path / "again")
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
