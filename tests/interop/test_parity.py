"""Every family of Hugging Face computes here what it computes in transformers."""

import numpy as np
import pytest

import lmirl_jax
from lmirl_jax import sharding
from lmirl_jax.evaluation import Generator, TokenPrompts
from tests.pretrained import FAMILIES, logits

PROMPTS = ["add 3 and 4", "which is more: 12 or 7?", "say it"]
EOS = 1
# One of each network: tests/models/test_families.py has all on eight devices.
SHARDED = ("umt5", "t5gemma", "qwen3", "gemma3")


def check_logits(folder, mesh=None) -> lmirl_jax.language_model.LanguageModel:
    """Compares the logits of padded prompts with those in `expected.npz`; returns the model."""
    model = lmirl_jax.load(folder, mesh=mesh)
    with np.load(folder / "expected.npz") as file:
        np.testing.assert_allclose(logits(model, file), file["logits"], atol=3e-5, rtol=0)
    return model


def check(folder) -> None:
    """Compares logits, greedy tokens and greedy texts with those in `expected.npz`."""
    model = check_logits(folder)
    with np.load(folder / "expected.npz") as file:
        expected = dict(file)
    prompts = [row[:length] for row, length in zip(expected["inputs"], expected["lengths"])]
    # One batch with padding, and each prompt without any.
    ids = [until_eos(row) for row in expected["greedy"].tolist()]
    assert model.generate(prompts, max_new_tokens=32) == ids
    assert model.generate(prompts[1], max_new_tokens=32) == ids[1]
    # Transformers leaves the token of unknown text out, and we show it.
    texts = [text.replace("<unk>", "").strip() for text in model.generate(PROMPTS, max_new_tokens=32)]
    assert texts == [text.strip() for text in expected["answers"].tolist()]


def until_eos(row: list[int]) -> list[int]:
    return row[: row.index(EOS) + 1] if EOS in row else row


def test_committed_checkpoints(golden):
    check(golden)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoints_that_transformers_makes_now(live, family):
    check_logits(live / family)


@pytest.mark.parametrize("family", SHARDED, indirect=True)
@pytest.mark.usefixtures("on_eight_devices")
def test_sharded_over_eight_devices_and_decoded_with_a_cache(golden):
    policy = check_logits(golden, sharding.make_mesh(data=2, fsdp=2, tensor=2)).policy
    with np.load(golden / "expected.npz") as file:
        prompts = [row[:length] for row, length in zip(file["inputs"], file["lengths"])]
    data = TokenPrompts(prompts, 16, policy.task)
    # The generator compares the log-probabilities of its cache with those of teacher forcing.
    generator = Generator(batch_size=4, num_samples=2, gauge=True)
    answers = list(generator(policy.graph, policy.params, policy.mesh, data, 1.0))
    assert len(answers) == 3 and max(answer.log_prob_gap for answer in answers) < 2e-5
