"""SmolLM2-135M-Instruct, a model that people use, computes here what it computes in transformers."""

import json

import jax
import numpy as np
import pytest

import lmirl_jax
from tests.training.fakes import mesh_of

pytestmark = [pytest.mark.slow, pytest.mark.e2e]


@pytest.fixture(scope="module")
def expected(shared_data) -> dict:
    file = shared_data / "checkpoints" / "smollm2_135m_instruct" / "expected.json"
    if not file.is_file():
        pytest.skip(f"no numbers at {file}: this test needs them")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(smollm2):
    # On one device: each of the tests' eight would hold a copy of the parameters.
    return lmirl_jax.load(smollm2, mesh=mesh_of(1, 1, 1, 1))


def test_the_vocabulary(model, expected):
    vocabulary = model.policy.task.input_vocabulary
    for chat in expected["chat"]:
        assert vocabulary.encode_messages(chat["messages"]) == chat["prompt_ids"]
        if [message["role"] for message in chat["messages"]] == ["user"]:
            assert vocabulary.encode_prompt(chat["messages"][0]["content"]) == chat["prompt_ids"]
        text = chat["greedy_text"].removesuffix("<|im_end|>")
        assert vocabulary.decode(chat["greedy_ids"]) == text
    for scored in expected["scored"]:
        assert vocabulary.encode(scored["text"]) == scored["ids"]


def test_log_probabilities_and_soft_values(model, expected):
    """Of answers to chat prompts and of texts, in one batch of rows of unlike lengths."""
    chats, texts = expected["chat"], expected["scored"]
    rows = [[*chat["prompt_ids"], *chat["greedy_ids"]] for chat in chats] + [text["ids"] for text in texts]
    logits = model.logits(rows)
    soft_values = np.asarray(jax.nn.logsumexp(logits, axis=-1))
    for number, (row, wanted) in enumerate(zip(rows, [*chats, *texts], strict=True)):
        begin = len(row) - len(wanted["log_probs"])
        before = np.arange(begin, len(row)) - 1
        found = logits[number, before, row[begin:]] - soft_values[number, before]
        np.testing.assert_allclose(found, wanted["log_probs"], atol=1e-3, rtol=0)
        if "logsumexp" in wanted:
            found = soft_values[number, : len(row)]
            np.testing.assert_allclose(found, wanted["logsumexp"], atol=1e-3, rtol=0)


def test_answers_to_chat_prompts(model, expected):
    """Together, and the first one by itself."""
    chats = expected["chat"]
    prompts, greedy = ([chat[name] for chat in chats] for name in ("prompt_ids", "greedy_ids"))
    longest = max(map(len, greedy))
    assert model.generate(prompts, max_new_tokens=longest) == greedy
    assert model.generate(prompts[0], max_new_tokens=longest) == greedy[0]
