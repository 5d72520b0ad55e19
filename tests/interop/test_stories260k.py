"""A small Llama that was really trained computes here what it computes in transformers."""

import json
import pathlib

import jax
import numpy as np
import pytest

import lmirl_jax


@pytest.fixture(scope="module")
def folder(shared_data) -> pathlib.Path:
    path = shared_data / "checkpoints" / "stories260k_hf"
    if not path.is_dir():
        pytest.skip(f"no checkpoint at {path}: this test needs it")
    return path


def test_the_story_and_its_log_probabilities(folder):
    expected = json.loads((folder / "expected_greedy.json").read_text(encoding="utf-8"))
    prompt = expected["prompt"]
    answer = expected["greedy_ids"][len(prompt) :]
    model = lmirl_jax.load(folder)
    assert model.generate(prompt, max_new_tokens=len(answer)) == answer
    log_probs = jax.nn.log_softmax(model.logits([[*prompt, *answer]])[0], axis=-1)
    found = np.asarray(log_probs)[np.arange(len(answer)) + len(prompt) - 1, answer]
    np.testing.assert_allclose(found, expected["log_probs"], atol=1e-4, rtol=0)
