"""`lmirl_jax.load`: what a notebook gets from any checkpoint."""

import numpy as np
import pytest

import lmirl_jax
from lmirl_jax import rewards, runs
from lmirl_jax.tasks import number_paths
from lmirl_jax.types import UserError
from tests.pretrained import GOLDEN

PROMPT = "3+2+7+7"
IDS = [54, 46, 53, 1]


@pytest.fixture(scope="module")
def model():
    return lmirl_jax.load(number_paths.model())


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A model without a tokenizer."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_bytes((GOLDEN / "t5_1_1" / name).read_bytes())
    return lmirl_jax.load(folder)


def test_logits_are_those_from_which_the_next_token_is_drawn(model):
    (answer,) = model.generate([IDS], max_new_tokens=6)
    fed = [0, *answer[:-1]]
    logits = model.logits([fed], [IDS])
    assert logits.shape == (1, len(fed), 384) and logits.dtype == np.float32
    assert logits[0].argmax(-1).tolist() == answer


def test_padding_of_either_side_changes_nothing(model):
    alone = model.logits([[0, 5, 6]], [IDS])
    together = model.logits([[0, 5, 6], [0, 5, 6, 7, 8]], [IDS, IDS + IDS])
    np.testing.assert_allclose(together[:1, :3], alone, atol=1e-5)


def test_answers_have_the_kind_of_their_prompts(model):
    text = model.generate(PROMPT, max_new_tokens=8)
    assert isinstance(text, str) and text
    assert model.generate([PROMPT, "1+1"], max_new_tokens=8)[0] == text
    several = model.generate(PROMPT, max_new_tokens=8, temperature=1.0, num_samples=3)
    assert len(several) == 3 and all(isinstance(each, str) for each in several)
    ids = model.generate(model.policy.task.input_vocabulary.encode_prompt(PROMPT), max_new_tokens=8)
    assert model.policy.task.decode(ids) == text
    assert model.generate(PROMPT, max_new_tokens=8, temperature=1.0, seed=1) == model.generate(
        PROMPT, max_new_tokens=8, temperature=1.0, seed=1
    )


def test_scores_are_those_of_rewards_score(model):
    answers = ["7+7=14 3+2=5 14+5=19", "7+7=14"]
    ours, theirs = (
        model.score(PROMPT, answers),
        rewards.score(runs.load(number_paths.model()), PROMPT, answers),
    )
    np.testing.assert_array_equal(ours.reward, theirs.reward)


def test_a_model_without_a_tokenizer_takes_ids_and_says_so_of_texts(bare):
    assert bare.logits([[0, 5]], [[7, 8, 1]]).shape == (1, 2, 96)
    assert len(bare.generate([7, 8, 1], max_new_tokens=4)) <= 4
    with pytest.raises(UserError, match="came without a tokenizer: give its vocabulary_path, or token ids"):
        bare.generate("a text")


def test_a_vocabulary_for_a_model_without_one(words_model, bare):
    model = lmirl_jax.load(bare.policy.checkpoint, vocabulary_path=str(GOLDEN / "t5_1_1"))
    assert model.generate("add 3 and 4", max_new_tokens=4) == lmirl_jax.load(GOLDEN / "t5_1_1").generate(
        "add 3 and 4", max_new_tokens=4
    )


def test_a_vocabulary_that_is_larger_than_the_embedding_is_refused(bare):
    with pytest.raises(UserError, match="384 words and its embedding 96 rows"):
        lmirl_jax.load(bare.policy.checkpoint, vocabulary_path=str(GOLDEN / "byt5"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.logits([[0, 1]]), "needs encoder_ids"),
        (lambda m: m.logits([[0, 1]], [[1], [2]]), "1 rows of ids and 2 of encoder_ids"),
        (lambda m: m.logits([0, 1], [[1]]), r"ids must be rows of tokens, \[batch, length\]"),
        (lambda m: m.logits([[0, 384]], [[1]]), "ids must be whole numbers from 0 to 383"),
        (lambda m: m.logits([[0, 1]], [[-1]]), "encoder_ids must be whole numbers from 0 to 383"),
        (lambda m: m.logits([[]], [[1]]), "none of them empty"),
        (lambda m: m.generate([]), "no prompt is given"),
        (lambda m: m.generate(PROMPT, num_samples=2), "one answer to a prompt, not NUM_SAMPLES=2"),
        (lambda m: m.generate(PROMPT, max_new_tokens=0), "max_new_tokens=0"),
        (lambda m: m.generate([[0.5]]), "text_or_ids must be whole numbers"),
    ],
)
def test_mistakes_are_told_in_one_line(model, call, message):
    with pytest.raises(UserError, match=message) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_saving_and_loading_again(model, tmp_path):
    model.save_hf(str(tmp_path / "hf"))
    again = lmirl_jax.load(tmp_path / "hf")
    np.testing.assert_array_equal(again.logits([[0, 5]], [IDS]), model.logits([[0, 5]], [IDS]))
    assert again.generate(PROMPT, max_new_tokens=8) == model.generate(PROMPT, max_new_tokens=8)
