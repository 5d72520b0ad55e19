"""transformers' apply_chat_template is the oracle: the same texts, the same tokens, the same assistant turns."""

import json

import pytest

from lmirl_jax import data
from lmirl_jax.types import UserError
from tests.data.chat_templates import CONVERSATIONS, say

# Prints what apply_chat_template makes of each conversation, for each of the folders.
ORACLE = """
import json, sys
from transformers import AutoTokenizer

asked, answers = json.loads(sys.argv[1]), {}
for folder in asked["folders"]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    answers[folder] = {}
    for name, messages in asked["conversations"].items():
        def apply(**options):
            return tokenizer.apply_chat_template(messages, **options)
        try:
            made = apply(tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        except Exception as error:
            answers[folder][name] = {"error": str(error)}
            continue
        answers[folder][name] = {
            "text": apply(tokenize=False),
            "prompt": apply(tokenize=False, add_generation_prompt=True),
            "prompt_ids": apply(tokenize=True, add_generation_prompt=True, return_dict=False),
            "ids": made["input_ids"],
            "mask": made["assistant_masks"],
        }
print(json.dumps(answers))
"""
MORE = {
    "alternating": [{"role": "assistant", "content": "a"}],
    "a name": [{"role": "user", "content": "compare", "name": "é"}],
    "a tool": [*say("compare"), {"role": "tool", "content": "1 < 2"}],
}


@pytest.fixture(scope="module")
def ask(transformers):
    """Asks transformers for what the chat templates of folders make of conversations."""

    def ask(folders):
        asked = json.dumps({"folders": list(map(str, folders)), "conversations": CONVERSATIONS | MORE})
        return json.loads(transformers.run(ORACLE, asked))

    return ask


def check_conversation(vocabulary, messages, theirs):
    template = vocabulary.template
    if "error" in theirs:
        with pytest.raises(UserError, match="refuses the conversation") as raised:
            template.render(messages)
        assert theirs["error"] in str(raised.value)
        return
    assert template.render(messages) == theirs["text"]
    assert template.render(messages, add_generation_prompt=True) == theirs["prompt"]
    assert vocabulary.encode_messages(messages) == theirs["prompt_ids"]
    if messages == say(messages[0]["content"]):
        assert vocabulary.encode_prompt(messages[0]["content"]) == theirs["prompt_ids"]


@pytest.mark.e2e
@pytest.mark.slow
def test_texts_and_tokens_are_those_of_transformers(ask, hf_chat, shared_data, tmp_path):
    folders = dict(hf_chat) | {"smollm2": shared_data / "checkpoints" / "smollm2_135m_instruct"}
    copies = {name: tmp_path / name for name in folders}
    for name, copy in copies.items():
        data.write_tokenizer(data.vocabulary(str(folders[name])), copy)
    answers = ask([*folders.values(), *copies.values()])
    errors = 0
    for name, folder in folders.items():
        assert answers[str(folder)] == answers[str(copies[name])]
        for path in (folder, copies[name]):
            vocabulary = data.vocabulary(str(path), chat=True)
            for case, messages in (CONVERSATIONS | MORE).items():
                check_conversation(vocabulary, messages, answers[str(folder)][case])
                errors += "error" in answers[str(folder)][case]
    # Gemma's template refuses system messages and answers without a question.
    assert errors == 2 * 2


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("case", ["an answer", "two turns"])
def test_pieces_make_up_the_conversation(ask, hf_chat, shared_data, case):
    """The tokens of the pieces are those of the whole text, where no token spans the beginning of an answer."""
    folders = dict(hf_chat) | {"smollm2": shared_data / "checkpoints" / "smollm2_135m_instruct"}
    answers = ask(folders.values())
    for name in ("qwen", "llama 3", "gemma", "smollm2"):
        theirs = answers[str(folders[name])][case]
        chat = data.vocabulary(str(folders[name])).encode_chat(CONVERSATIONS[case])
        ids = chat.inputs + chat.targets
        assert ids == theirs["ids"][: len(ids)], name
        # A line feed at most follows the end of the last turn.
        assert len(theirs["ids"]) - len(ids) <= 1
        if name == "llama 3":
            mask = [0] * len(chat.inputs) + [
                int(any(begin <= place < end for begin, end in chat.turns))
                for place in range(len(chat.targets))
            ]
            assert mask == theirs["mask"] and sum(mask) > 0
