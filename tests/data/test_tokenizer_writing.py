"""What `write_tokenizer` writes, read back by ourselves; test_tokenizer_parity reads it with transformers."""

import json
import re

import pytest
import sentencepiece

from lmirl_jax import data
from lmirl_jax.data.byte_vocabulary import ByteVocabulary
from lmirl_jax.data.seqio_vocabularies import seqio_vocabulary
from lmirl_jax.types import UserError
from tests.data.conftest import HARD_TEXTS

SUMS = [f"{n}+{n + 1}! is {2 * n + 1}!" for n in range(100)]


@pytest.mark.parametrize("kind", ["hf_t5", "hf_bytes", "hf_gemma"])
def test_files_are_written_as_they_were_read(request, tmp_path, kind):
    folder = request.getfixturevalue(kind)
    (tmp_path / "read").mkdir()
    for path in folder.iterdir():
        (tmp_path / "read" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "read" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "read" / "model.safetensors").write_text("no tokenizer's")
    vocabulary = data.vocabulary(str(tmp_path / "read"))
    # The folder may be gone by the time of writing.
    for path in (tmp_path / "read").iterdir():
        path.unlink()
    data.write_tokenizer(vocabulary, tmp_path / "new" / "out")
    files = {path.name: path.read_bytes() for path in (tmp_path / "new" / "out").iterdir()}
    names = {"tokenizer.json", "tokenizer_config.json"}
    assert files == {name: (folder / name).read_bytes() for name in names} | {
        "chat_template.jinja": b"{{ messages }}"
    }


def test_a_tokenizer_json_alone_gets_a_configuration(hf_bytes, tmp_path):
    alone = tmp_path / "other_name.json"
    alone.write_bytes((hf_bytes / "tokenizer.json").read_bytes())
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    data.write_tokenizer(data.vocabulary(str(alone)), tmp_path / "out")
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["eos_token"] == "<|im_end|>"
    again = data.vocabulary(str(tmp_path / "out"))
    assert again.fingerprint() == data.vocabulary(str(alone)).fingerprint()


@pytest.mark.parametrize("extra_ids", [0, 125])
def test_bytes_are_written_as_byt5s(tmp_path, extra_ids):
    data.write_tokenizer(ByteVocabulary(extra_ids), tmp_path)
    assert data.vocabulary(str(tmp_path)).fingerprint() == ByteVocabulary(extra_ids).fingerprint()


def test_a_model_like_t5s_is_written_with_its_file(words_model, tmp_path):
    for made in (data.vocabulary(str(words_model)), data.seqio_vocabulary(str(words_model))):
        data.write_tokenizer(made, tmp_path)
        again = data.vocabulary(str(tmp_path))
        assert again.fingerprint() == data.vocabulary(str(words_model)).fingerprint()
    data.write_tokenizer(data.vocabulary(str(words_model)), tmp_path)
    assert (tmp_path / "spiece.model").read_bytes() == words_model.read_bytes()


@pytest.fixture
def train(tmp_path):
    def train(**options):
        prefix = tmp_path / "trained"
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SUMS),
            model_prefix=str(prefix),
            hard_vocab_limit=False,
            minloglevel=2,
            **({"vocab_size": 60, "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1} | options),
        )
        return data.vocabulary(str(prefix.with_suffix(".model")))

    return train


@pytest.mark.parametrize(
    "options",
    [
        {"pad_id": -1, "unk_id": 0, "bos_id": 1, "eos_id": 2},
        {"byte_fallback": True, "vocab_size": 330},
        {"normalization_rule_name": "nfkc", "byte_fallback": True, "vocab_size": 330},
    ],
)
def test_a_unigram_model_of_another_kind_becomes_a_tokenizer_json(train, tmp_path, options):
    vocabulary = train(**options)
    data.write_tokenizer(vocabulary, tmp_path / "out")
    again = data.vocabulary(str(tmp_path / "out"))
    assert (again.eos_ids, again.unk_id, again.start_id) == (
        vocabulary.eos_ids,
        vocabulary.unk_id,
        vocabulary.start_id,
    )
    assert again.vocab_size == vocabulary.vocab_size
    for text in (*HARD_TEXTS, *SUMS):
        ids = vocabulary.encode_prompt(text)
        assert again.encode_prompt(text) == ids, text
        if vocabulary.unk_id not in ids:
            assert again.decode(ids) == vocabulary.decode(ids), text


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model_type": "bpe"}, "is no unigram model"),
        ({"user_defined_symbols": ["<sep>"]}, "has symbols of its own (<sep>)"),
        (
            {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
            "splits some texts as no tokenizer of transformers does",
        ),
    ],
)
def test_what_transformers_cannot_read_is_refused(train, tmp_path, options, why):
    with pytest.raises(UserError, match=re.escape(why)):
        data.write_tokenizer(train(**options), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_vocabulary_of_the_users_is_refused(gpt2_like, tmp_path):
    with pytest.raises(UserError, match="no tokenizer of the kind Gpt2LikeVocabulary"):
        data.write_tokenizer(gpt2_like, tmp_path)


def test_seqios_form_of_a_tokenizer_is_written_too(hf_bytes, tmp_path):
    data.write_tokenizer(seqio_vocabulary(str(hf_bytes)), tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (hf_bytes / "tokenizer.json").read_bytes()
