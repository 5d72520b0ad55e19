"""What the vocabulary of a Hugging Face tokenizer does, by hand and by its laws; test_tokenizer_parity has transformers."""

import copy
import json
import shutil

import pytest

from lmirl_jax import data
from lmirl_jax.data.hf_tokenizer import HuggingFaceVocabulary
from lmirl_jax.data.pieces import decode_with_offsets, encode_with_offsets
from lmirl_jax.data.vocabularies import Vocabulary, encode_answer
from lmirl_jax.types import UserError
from tests.data.conftest import HARD_TEXTS

KINDS = ("hf_t5", "hf_bytes", "hf_gemma")


@pytest.fixture(params=KINDS)
def folder(request):
    return request.getfixturevalue(request.param)


def rewritten(folder, path, **changes):
    """A copy of a folder, with top-level keys of its tokenizer.json changed, and indented as no other is."""
    shutil.copytree(folder, path)
    described = json.loads((path / "tokenizer.json").read_text()) | changes
    (path / "tokenizer.json").write_text(json.dumps(described, indent=7, sort_keys=True))
    return path


def test_special_ids_are_those_that_the_files_name(hf_t5, hf_bytes, hf_gemma):
    t5, small, gemma = (data.vocabulary(str(path)) for path in (hf_t5, hf_bytes, hf_gemma))
    assert all(isinstance(each, Vocabulary) for each in (t5, small, gemma))
    assert (t5.eos_ids, t5.start_id, t5.unk_id, t5.holds_every_text) == ((1,), 0, 2, False)
    assert (small.eos_ids, small.start_id, small.unk_id, small.holds_every_text) == ((2, 0), 0, None, True)
    assert (gemma.eos_ids, gemma.start_id, gemma.unk_id, gemma.holds_every_text) == ((1,), 0, 3, True)
    assert gemma.vocab_size == 5 + 256 + 1 + 26 + 6
    assert t5.encode("<extra_id_0>") == [t5.vocab_size - 1]


def test_the_tokenizer_says_what_surrounds_a_prompt(hf_t5, hf_bytes, hf_gemma):
    text = "compare 1 and 2"
    t5, small, gemma = (data.vocabulary(str(path)) for path in (hf_t5, hf_bytes, hf_gemma))
    assert t5.encode_prompt(text) == [*t5.encode(text), 1]
    assert small.encode_prompt(text) == small.encode(text)
    assert gemma.encode_prompt(text) == [2, *gemma.encode(text)]


def test_byte_pairs_by_hand(hf_gemma):
    vocabulary = data.vocabulary(str(hf_gemma))
    byte, space = 5, 5 + 256
    letters = {letter: space + 1 + place for place, letter in enumerate("abcdefinmporxy0123456789=;")}
    pairs = {pair: space + 27 + place for place, pair in enumerate(["▁a", "an", "▁c", "co", "▁▁", "if"])}
    assert vocabulary.encode("co a b") == [pairs["co"], pairs["▁a"], space, letters["b"]]
    assert vocabulary.encode("if é") == [pairs["if"], space, byte + 0xC3, byte + 0xA9]
    assert vocabulary.text_offsets("if é", vocabulary.encode("if é")) == ((0, 2), (2, 3), (3, 3), (3, 4))


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_a_tokenizer_of_bytes_holds_every_text(hf_bytes, hf_gemma, text):
    for path in (hf_bytes, hf_gemma):
        vocabulary = data.vocabulary(str(path))
        assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize("change", ["NFC", "Lowercase", "Strip"])
def test_a_normalizer_that_changes_texts_is_noticed(hf_bytes, tmp_path, change):
    normalizer = {"type": change} | ({"strip_left": True, "strip_right": True} if change == "Strip" else {})
    path = rewritten(hf_bytes, tmp_path / "other", normalizer=normalizer)
    assert not data.vocabulary(str(path)).holds_every_text


def test_decoding_ends_at_any_eos_and_leaves_special_tokens_out(hf_bytes, hf_t5):
    small, t5 = data.vocabulary(str(hf_bytes)), data.vocabulary(str(hf_t5))
    ids = small.encode("and")
    for end in (0, 2):
        assert small.decode([1, *ids, 1, end, *ids]) == "and"
    assert small.decode([*ids, 100_000, -1]) == "and"
    # An unknown token is no nothing: a metric must see that something was there.
    assert t5.decode([0, *t5.encode("and"), 100_000, 1]) == "and<unk>"
    assert t5.decode(t5.encode("and <extra_id_0>")) == "and"


def test_settings_for_batches_are_off(folder, tmp_path):
    truncation = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}
    path = rewritten(folder, tmp_path / "other", truncation=truncation, padding=padding)
    before, after = data.vocabulary(str(folder)), data.vocabulary(str(path))
    text = "compare 12 and 13"
    assert before.encode_prompt(text) == after.encode_prompt(text) and len(before.encode(text)) > 2
    assert before.fingerprint() == after.fingerprint() == copy.deepcopy(after).fingerprint()


def test_fingerprints_follow_what_the_tokenizer_does(hf_bytes, hf_t5, tmp_path):
    template = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    other = rewritten(hf_bytes, tmp_path / "prefix", pre_tokenizer=template | {"add_prefix_space": True})
    eos = rewritten(hf_bytes, tmp_path / "eos")
    (eos / "generation_config.json").unlink()
    paths = (hf_bytes, other, eos, hf_t5)
    assert len({data.vocabulary(str(path)).fingerprint() for path in paths}) == len(paths)
    single = data.vocabulary(str(hf_bytes / "tokenizer.json"))
    assert single.fingerprint() == data.vocabulary(str(hf_bytes)).fingerprint()


def test_merges_written_by_an_older_release_are_the_same(hf_bytes, tmp_path):
    path = rewritten(hf_bytes, tmp_path / "older")
    described = json.loads((path / "tokenizer.json").read_text())
    described["model"]["merges"] = [" ".join(pair) for pair in described["model"]["merges"]]
    del described["model"]["ignore_merges"], described["model"]["byte_fallback"]
    (path / "tokenizer.json").write_text(json.dumps(described))
    assert data.vocabulary(str(path)).fingerprint() == data.vocabulary(str(hf_bytes)).fingerprint()


def test_dropout_is_off(hf_bytes, tmp_path):
    path = rewritten(hf_bytes, tmp_path / "other")
    described = json.loads((path / "tokenizer.json").read_text())
    described["model"]["dropout"] = 0.9
    (path / "tokenizer.json").write_text(json.dumps(described))
    dropped, whole = data.vocabulary(str(path)), data.vocabulary(str(hf_bytes))
    assert dropped.encode("compare 12 and 13") == whole.encode("compare 12 and 13")
    assert dropped.fingerprint() == whole.fingerprint()


@pytest.mark.parametrize("text", [*HARD_TEXTS, "日本 語🙂🙂 ü", "compare <extra_id_1> and"])
def test_offsets_are_those_of_all_prefixes(folder, text):
    """Each token ends where the text of its prefix no longer agrees with the whole, which is slow and always right."""
    vocabulary = data.vocabulary(str(folder))
    ids, _ = encode_with_offsets(vocabulary, text)
    decoded, offsets = decode_with_offsets(vocabulary, ids)
    slow, end = [], 0
    for count in range(1, len(ids) + 1):
        prefix = vocabulary.decode(ids[:count].tolist())
        shared = next((n for n in range(len(prefix)) if prefix[n] != decoded[n : n + 1]), len(prefix))
        slow.append((end, max(end, shared)))
        end = max(end, shared)
    assert offsets == tuple(slow)
    assert vocabulary.token_offsets(ids.tolist(), decoded + "!") is None


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_the_pieces_of_a_text_make_it_up(folder, text):
    vocabulary = data.vocabulary(str(folder))
    ids, offsets = encode_with_offsets(vocabulary, text)
    assert len(offsets) == len(ids)
    assert "".join(text[begin:end] for begin, end in offsets) == text[: offsets[-1][1] if offsets else 0]
    assert text[offsets[-1][1] if offsets else 0 :].strip() == ""
    assert vocabulary.text_offsets(text, [*ids.tolist(), 5]) is None


def test_ids_that_no_text_has_keep_their_offsets(hf_bytes):
    """Half a character at the end, an unknown id, and what follows the end."""
    vocabulary = data.vocabulary(str(hf_bytes))
    ids = [*vocabulary.encode("a🙂")[:2], 100_000, 2, 70]
    text, offsets = decode_with_offsets(vocabulary, ids)
    assert text == "a\ufffd"
    assert offsets == ((0, 1), (1, 2), (2, 2), (2, 2), (2, 2))


def test_an_answer_ends_once(hf_bytes, hf_gemma):
    small = data.vocabulary(str(hf_bytes))
    assert encode_answer(small, "and") == [*small.encode("and"), 2]
    assert encode_answer(small, "and<|im_end|>") == [*small.encode("and"), 2]
    assert encode_answer(small, "") == [2]
    gemma = data.vocabulary(str(hf_gemma))
    assert encode_answer(gemma, "a") == [*gemma.encode("a"), 1]


def test_tokens_that_only_the_configuration_names_are_added(hf_bytes, tmp_path):
    path = tmp_path / "more"
    shutil.copytree(hf_bytes, path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    config |= {"pad_token": {"content": "[PAD]"}, "additional_special_tokens": ["<|im_end|>", "<tool>"]}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    before, after = data.vocabulary(str(hf_bytes)), data.vocabulary(str(path))
    assert after.vocab_size == before.vocab_size + 2
    assert after.start_id == before.vocab_size
    assert after.encode("<tool>") == [before.vocab_size + 1]
    assert after.fingerprint() != before.fingerprint()


def test_special_tokens_stay_text_where_the_files_say_so(hf_bytes, tmp_path):
    path = tmp_path / "split"
    shutil.copytree(hf_bytes, path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"split_special_tokens": True}))
    vocabulary = data.vocabulary(str(path))
    assert 2 not in vocabulary.encode("<|im_end|>")
    assert vocabulary.decode(vocabulary.encode("<|im_end|>")) == "<|im_end|>"


def test_smollm2(shared_data):
    folder = shared_data / "checkpoints" / "smollm2_135m_instruct"
    vocabulary = data.vocabulary(str(folder), chat=False)
    assert isinstance(vocabulary, HuggingFaceVocabulary)
    assert (vocabulary.eos_ids, vocabulary.start_id, vocabulary.vocab_size) == ((2,), 2, 49152)
    # It lacks a few of the control characters.
    assert vocabulary.decode(vocabulary.encode("a\x04b")) == "ab" and not vocabulary.holds_every_text
    for text in HARD_TEXTS:
        assert vocabulary.decode(vocabulary.encode(text)) == text
        assert vocabulary.encode_prompt(text) == vocabulary.encode(text)
    for chat in json.loads((folder / "expected.json").read_text())["chat"]:
        assert vocabulary.encode_prompt(chat["prompt"]) == chat["prompt_ids"]
        answer = chat["greedy_text"]
        assert vocabulary.encode(answer) == chat["greedy_ids"]
        assert vocabulary.decode(chat["greedy_ids"]) == answer.removesuffix("<|im_end|>")


def test_a_tokenizer_without_an_end_is_refused(hf_bytes, tmp_path):
    path = tmp_path / "endless"
    shutil.copytree(hf_bytes, path)
    (path / "generation_config.json").unlink()
    (path / "tokenizer_config.json").unlink()
    with pytest.raises(UserError, match=r'names no token that ends a text: write "eos_token"'):
        data.vocabulary(str(path))
    (path / "config.json").write_text('{"eos_token_id": 2}')
    assert data.vocabulary(str(path)).eos_ids == (2,)
