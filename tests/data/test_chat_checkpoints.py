"""A Hugging Face folder of a chat model: in a notebook and for commands, with its template and without."""

import shutil

import numpy as np
import pytest

import lmirl_jax
from lmirl_jax import configuration, run_files, runs
from lmirl_jax.checkpoints import find_checkpoint
from lmirl_jax.data.chat_vocabulary import ChatVocabulary
from lmirl_jax.tasks import number_paths
from lmirl_jax.types import UserError
from tests.data.chat_templates import say
from tests.pretrained import GOLDEN

TWO = say("compare 1", "2", "y ?", system="Be brief.")


@pytest.fixture(scope="module")
def folder(hf_chat, tmp_path_factory):
    """A tiny encoder-decoder with as many rows as bytes need, and a chat model's tokenizer."""
    path = tmp_path_factory.mktemp("chat") / "checkpoint"
    shutil.copytree(hf_chat["qwen"], path)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "byt5" / name, path / name)
    return path


@pytest.fixture(scope="module")
def model(folder):
    return lmirl_jax.load(folder)


def test_a_conversation_is_answered_as_its_tokens_are(model):
    vocabulary = model.policy.task.input_vocabulary
    ids = vocabulary.encode_messages(TWO)
    text = vocabulary.decode(model.generate(ids, max_new_tokens=6))
    assert model.generate(TWO, max_new_tokens=6) == text
    plain = model.generate("compare 1", max_new_tokens=6)
    assert model.generate([TWO, say("compare 1")], max_new_tokens=6) == [text, plain]
    assert model.generate([TWO, "compare 1"], max_new_tokens=6) == [text, plain]


def test_answers_to_a_conversation_are_scored(model):
    one = model.score(TWO, ["1", "2"])
    several = model.score([TWO, "compare 1"], ["1", "1"])
    np.testing.assert_allclose(several.total[0], one.total[0], atol=1e-5)
    assert abs(several.total[1] - one.total[0]) > 1e-4
    assert one.answers[0].messages == TWO and several.answers[1].messages is None
    np.testing.assert_allclose(model.score(say("compare 1"), ["1"]).total, several.total[1:], atol=1e-5)


def test_a_conversation_that_does_not_ask_is_refused(model, folder):
    for wrong in (say("a", "b"), [{"role": "user"}], [{"role": "nobody", "content": "a"}]):
        with pytest.raises(UserError, match=r"LanguageModel\.generate"):
            model.generate(wrong)
    with pytest.raises(UserError, match="chat template"):
        lmirl_jax.load(folder, chat=False).generate(TWO)


def test_the_template_is_used_unless_it_is_switched_off(folder):
    for chat, is_chat in ((None, True), (True, True), (False, False)):
        task = runs.load(folder, chat=chat).task
        assert isinstance(task.input_vocabulary, ChatVocabulary) == is_chat
    source = run_files.config_of(find_checkpoint(str(folder)))
    for macro, is_chat in ((None, True), (False, False)):
        with configuration.restore_afterwards():
            configuration.load([source], [f"CHAT = {macro}"])
            assert isinstance(configuration.macro("TASK").input_vocabulary, ChatVocabulary) == is_chat


def test_a_run_and_a_checkpoint_without_a_template_are_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"chat=True: .* is of a run, whose config.gin"):
        runs.load(number_paths.model(), chat=True)
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GOLDEN / "t5_1_1" / name, bare / name)
    with pytest.raises(UserError, match=r"chat=True: .* has no tokenizer"):
        runs.load(bare, chat=True)
