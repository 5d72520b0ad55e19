"""The vocabulary of a chat model: prompts, the token that ends a turn, and conversations in pieces."""

import copy
import json
import shutil

import pytest

from lmirl_jax import data
from lmirl_jax.data.chat_vocabulary import ChatVocabulary
from lmirl_jax.data.hf_tokenizer import HuggingFaceVocabulary
from lmirl_jax.data.pieces import decode_with_offsets, encode_with_offsets
from lmirl_jax.data.vocabularies import Vocabulary, encode_answer
from lmirl_jax.types import UserError
from tests.data.chat_templates import CONVERSATIONS, say

STYLES = ("qwen", "thinking", "llama 3", "gemma", "llama 2", "plain")
# hf_bytes: <|endoftext|>, <|im_start|> and <|im_end|> are 0, 1 and 2.
START, END = 1, 2


@pytest.fixture(params=STYLES)
def chat(request, hf_chat):
    return data.vocabulary(str(hf_chat[request.param]))


def spell(vocabulary, ids):
    """The text of tokens with the special ones."""
    return vocabulary.wrapped._tokenizer.decode(list(ids), skip_special_tokens=False)


def test_a_template_is_used_where_there_is_one(hf_chat, hf_bytes, words_model):
    path = str(hf_chat["qwen"])
    assert isinstance(data.vocabulary(path), ChatVocabulary) and isinstance(data.vocabulary(path), Vocabulary)
    assert isinstance(data.vocabulary(path, chat=True), ChatVocabulary)
    assert isinstance(data.vocabulary(path, chat=False), HuggingFaceVocabulary)
    assert isinstance(data.vocabulary(path + "/tokenizer.json"), ChatVocabulary)
    assert isinstance(data.vocabulary(str(hf_bytes)), HuggingFaceVocabulary)
    for without, error in (
        (str(hf_bytes), r"bytes has no chat template: copy chat_template.jinja from its checkpoint into"),
        (None, r"bytes have no chat template: set VOCABULARY_PATH"),
        (str(words_model), r"the SentencePiece model .* has no chat template"),
    ):
        with pytest.raises(UserError, match=error):
            data.vocabulary(without, chat=True)


def test_a_prompt_is_the_message_of_a_user(hf_chat):
    vocabulary = data.vocabulary(str(hf_chat["qwen"]))
    plain = vocabulary.wrapped.encode
    expected = [
        START,
        *plain("system\nYou help."),
        END,
        *plain("\n"),
        START,
        *plain("user\ncompare 1"),
        END,
        *plain("\n"),
    ]
    assert vocabulary.encode_prompt("compare 1") == [*expected, START, *plain("assistant\n")]


def test_the_template_writes_bos_once(hf_chat):
    vocabulary = data.vocabulary(str(hf_chat["gemma"]))
    assert vocabulary.wrapped.encode_prompt("a")[:2].count(2) == 1
    assert vocabulary.encode_prompt("a").count(2) == 1


def test_the_token_that_ends_a_turn_comes_first(hf_chat):
    found = {style: data.vocabulary(str(hf_chat[style])) for style in STYLES}
    ends = {style: (spell(each, each.eos_ids[:1]), len(each.eos_ids)) for style, each in found.items()}
    assert ends == {
        # The generation's second token stays an end.
        "qwen": ("<|im_end|>", 1),
        "thinking": ("<|im_end|>", 1),
        # These are not among the tokenizer's own.
        "llama 3": ("<|eot_id|>", 2),
        "gemma": ("<end_of_turn>", 2),
        "llama 2": ("<|im_end|>", 1),
        # Nothing follows an answer: the tokenizer's EOS does.
        "plain": ("<|im_end|>", 1),
    }
    for each in found.values():
        assert encode_answer(each, "a") == [*each.encode("a"), each.eos_ids[0]]


def test_several_ends_and_padding_that_is_one_of_them(hf_chat, tmp_path):
    path = tmp_path / "ends"
    shutil.copytree(hf_chat["qwen"], path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    config = json.loads((path / "tokenizer_config.json").read_text()) | {"eos_token": "<|endoftext|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    vocabulary = data.vocabulary(str(path))
    assert vocabulary.wrapped.eos_ids == (0, 2)
    # Padding is <|im_end|>, which ends turns.
    assert vocabulary.eos_ids == (END, 0) and vocabulary.start_id == END
    assert vocabulary.encode_chat(say("a", "b")).targets == [*vocabulary.encode("b"), END]
    for end in (0, END):
        assert vocabulary.decode([*vocabulary.encode("a then"), end, 70]) == "a then"


@pytest.mark.parametrize("text", ["compare 12 and 13", "für Größe 🙂", "a\n\nb"])
def test_prompts_and_answers_are_read_back(chat, text):
    assert chat.decode_prompt(chat.encode_prompt(text)) == text
    assert chat.decode(encode_answer(chat, text)) == text
    ids, offsets = encode_with_offsets(chat, text)
    decoded, again = decode_with_offsets(chat, [*ids.tolist(), chat.eos_ids[0], 70])
    assert decoded == text and again == (*offsets, (len(text), len(text)), (len(text), len(text)))


def test_a_whole_conversation_is_read_back_as_text(hf_chat):
    vocabulary = data.vocabulary(str(hf_chat["qwen"]))
    ids = vocabulary.encode_messages(say("a", "b", "c"))
    assert vocabulary.decode_prompt(ids) == "system\nYou help.\nuser\na\nassistant\nb\nuser\nc\nassistant\n"
    # The beginning of a prompt is a prompt that no template has written.
    assert vocabulary.decode_prompt(ids[:6]) == spell(vocabulary, ids[1:6])


def test_conversations_in_pieces(chat):
    for messages in CONVERSATIONS.values():
        answers = [message["content"] for message in messages if message["role"] == "assistant"]
        if not answers or (messages[0]["role"] == "system" and "alternate" in chat.template.source):
            continue
        messages = messages[: 1 + max(i for i, each in enumerate(messages) if each["role"] == "assistant")]
        made = chat.encode_chat(messages)
        assert made.turns[0][0] == 0 and made.turns[-1][1] == len(made.targets)
        last = made.targets[made.turns[-1][0] :]
        assert last[-1] == chat.eos_ids[0]
        # The prompt of the last turn is what generation sees.
        prompt = made.inputs + made.targets[: made.turns[-1][0]]
        if chat._end:
            assert spell(chat, prompt) == chat.template.render(messages[:-1], add_generation_prompt=True)
        for (begin, end), answer in zip(reversed(made.turns), reversed(answers), strict=False):
            assert answer.strip() in chat.decode(made.targets[begin:end])


def test_pieces_by_hand(hf_chat):
    vocabulary = data.vocabulary(str(hf_chat["qwen"]))
    plain = vocabulary.encode
    made = vocabulary.encode_chat(say("a", "b", "c", "\nd"))
    between = [*plain("\n"), START, *plain("user\nc"), END, *plain("\n"), START, *plain("assistant\n")]
    assert made.inputs == vocabulary.encode_prompt("a")
    # The line feeds before d stay apart, as they do where the model writes the second one.
    assert made.targets == [*plain("b"), END, *between, *plain("\nd"), END]
    assert made.turns == ((0, 2), (2 + len(between), 5 + len(between))) and made.left_out == 0


def test_an_answer_may_spell_out_the_end(hf_chat):
    vocabulary = data.vocabulary(str(hf_chat["qwen"]))
    made = vocabulary.encode_chat(say("a", "b<|im_end|>c", "d", "e"))
    assert [made.targets[begin:end].count(END) for begin, end in made.turns] == [2, 1]


def test_a_template_without_special_tokens_gets_eos(hf_chat):
    vocabulary = data.vocabulary(str(hf_chat["plain"]))
    made = vocabulary.encode_chat(say("a", "b", "c", "d"))
    assert [spell(vocabulary, made.targets[begin:end]) for begin, end in made.turns] == [
        "b<|im_end|>",
        "d<|im_end|>",
    ]
    assert spell(vocabulary, made.targets[2 : made.turns[1][0]]) == "\nuser: c\nassistant: "


def test_only_the_last_turn_is_learnt_where_the_template_rewrites_the_others(hf_chat):
    vocabulary = data.vocabulary(str(hf_chat["thinking"]))
    made = vocabulary.encode_chat(say("a", "b", "c", "d"))
    assert (made.turns, made.left_out) == (((0, len(made.targets)),), 1)
    assert made.inputs == vocabulary.encode_messages(say("a", "b", "c"))
    assert spell(vocabulary, made.targets) == "<think>\n\n</think>\n\nd<|im_end|>"
    assert vocabulary.encode_chat(say("a", "b")).left_out == 0


def test_a_generation_prompt_that_no_turn_has(hf_chat, tmp_path):
    path = tmp_path / "other"
    shutil.copytree(hf_chat["qwen"], path)
    template = (path / "chat_template.jinja").read_text()
    (path / "chat_template.jinja").write_text(template.replace("assistant\\n'", "assistant\\n<think>'"))
    vocabulary = data.vocabulary(str(path))
    made = vocabulary.encode_chat(say("a", "b", "c", "d"))
    assert spell(vocabulary, made.inputs).endswith("<|im_start|>assistant\n<think>") and made.left_out == 1
    assert made.targets == [*vocabulary.encode("d"), END]


def test_fingerprints_include_the_template(hf_chat, tmp_path):
    path = tmp_path / "other"
    shutil.copytree(hf_chat["qwen"], path)
    first, raw = data.vocabulary(str(path)), data.vocabulary(str(path), chat=False)
    assert (
        first.fingerprint()
        == data.vocabulary(str(hf_chat["qwen"])).fingerprint()
        == copy.deepcopy(first).fingerprint()
    )
    (path / "chat_template.jinja").write_text((path / "chat_template.jinja").read_text() + "\n{# #}")
    assert len({each.fingerprint() for each in (first, raw, data.vocabulary(str(path)))}) == 3


def test_smollm2(shared_data):
    folder = shared_data / "checkpoints" / "smollm2_135m_instruct"
    vocabulary = data.vocabulary(str(folder))
    assert (vocabulary.eos_ids, vocabulary.start_id, vocabulary.vocab_size) == ((2,), 2, 49152)
    for chat in json.loads((folder / "expected.json").read_text())["chat"]:
        assert vocabulary.encode_messages(chat["messages"]) == chat["prompt_ids"]
        assert vocabulary.decode(chat["greedy_ids"]) == chat["greedy_text"].removesuffix("<|im_end|>")
        answer = {"role": "assistant", "content": vocabulary.decode(chat["greedy_ids"])}
        made = vocabulary.encode_chat([*chat["messages"], answer])
        assert made.inputs == chat["prompt_ids"]
        # Some of these answers are cut off.
        assert made.targets == [*chat["greedy_ids"], 2][: len(made.targets)]


def test_a_template_that_takes_no_plain_chat(hf_chat, tmp_path):
    path = tmp_path / "strict"
    shutil.copytree(hf_chat["qwen"], path)
    (path / "chat_template.jinja").write_text("{{ raise_exception('give tools') }}")
    with pytest.raises(UserError, match=r"line 1 refuses the conversation \(give tools\).*set CHAT = False"):
        data.vocabulary(str(path))
    assert isinstance(data.vocabulary(str(path), chat=False), HuggingFaceVocabulary)
