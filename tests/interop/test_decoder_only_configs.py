"""What the config.json of decoder-only models say, in the forms of several versions of transformers, and as gin text."""

import dataclasses

import pytest
from etils import epath

from lmirl_jax import configuration, configuration_pretrained, interop, models
from lmirl_jax.interop.decoder_only_types import check_type
from lmirl_jax.types import UserError
from tests.interop import refusals
from tests.pretrained import DECODER_ONLY


def opened(folder) -> interop.Pretrained:
    return interop.open_pretrained(epath.Path(folder))


def changed(family, folder, change) -> interop.Pretrained:
    """A golden checkpoint whose config.json a function has changed."""
    refusals.edit_json(refusals.copy_of(family, folder) / "config.json", change)
    return opened(folder)


def test_options_of_the_families():
    found = {family: opened(refusals.GOLDEN / family).model for family in DECODER_ONLY}
    assert found["llama"].rope_scaling == models.Llama3RopeScaling(8.0, 1.0, 4.0, 64)
    assert (found["llama"].rope_theta, found["llama"].logits_via_embedding) == (500.0, False)
    assert found["qwen2"].windows == (None, 40, 40) and found["qwen2"].qkv_biases
    # Qwen 3's bos_token_id is null, and its EOS 1.
    assert found["qwen3"].query_key_norms and found["qwen3"].decoder_start_id == 1
    assert found["gemma2"].windows == (40, None, 40)
    assert found["gemma2"].query_scale == 1 / 3
    assert (found["gemma2"].attention_soft_cap, found["gemma2"].final_soft_cap) == (5.0, 8.0)
    assert found["gemma3"].windows == (40, 40, None, 40)
    assert (found["gemma3"].rope_theta, found["gemma3"].local_rope_theta) == (1000.0, 100.0)
    assert found["gemma3"].rope_scaling == models.LinearRopeScaling(4.0)


def older_llama(config):
    """As transformers 4 writes it."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope
    del config["tie_word_embeddings"]


def older_qwen(config):
    """The number of layers without a window says the same as the list."""
    del config["layer_types"], config["rope_parameters"]


def older_gemma_2(config):
    """Every setting that is not a size has its default in Gemma 2, or a value here."""
    for name in ("layer_types", "rope_parameters", "tie_word_embeddings", "bos_token_id", "rms_norm_eps"):
        del config[name]
    config["hidden_activation"] = None


def older_gemma_3(config):
    ropes = config.pop("rope_parameters")
    config["rope_theta"] = ropes["full_attention"]["rope_theta"]
    config["rope_local_base_freq"] = ropes["sliding_attention"]["rope_theta"]
    config["rope_scaling"] = {"factor": 4.0, "rope_type": "linear"}
    # The pattern says the same as the list.
    del config["layer_types"]


OLDER = {"llama": older_llama, "qwen2": older_qwen, "gemma2": older_gemma_2, "gemma3": older_gemma_3}


@pytest.mark.parametrize("family", OLDER)
def test_older_forms_say_the_same(tmp_path, family):
    assert changed(family, tmp_path / "model", OLDER[family]).model == opened(refusals.GOLDEN / family).model


def test_a_window_counts_only_where_qwen_uses_it(tmp_path):
    def unused(config):
        config.update(use_sliding_window=False)
        del config["layer_types"]

    assert changed("qwen2", tmp_path / "model", unused).model.windows is None


def test_frequencies_beside_the_parameters_are_ignored(tmp_path):
    folder = refusals.copy_of("llama", tmp_path / "model")
    tensors = refusals.read_tensors(folder / refusals.WEIGHTS)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = tensors["model.norm.weight"]
    refusals.write_tensors(folder / refusals.WEIGHTS, tensors)
    assert opened(folder).model == opened(refusals.GOLDEN / "llama").model


@pytest.mark.parametrize(
    ("positions", "lengths"),
    [(131072, (512, 256)), (768, (512, 256)), (512, (342, 170)), (100, (67, 33)), (3, (2, 1))],
)
def test_lengths_share_the_positions(tmp_path, positions, lengths):
    found = changed(
        "llama", tmp_path / "model", lambda config: config.update(max_position_embeddings=positions)
    )
    assert found.lengths == dict(zip(("inputs", "targets"), lengths))


@pytest.mark.parametrize("family", DECODER_ONLY)
def test_the_settings_of_a_checkpoint_are_its_network(family):
    pretrained = opened(refusals.GOLDEN / family)
    text = configuration_pretrained.settings(pretrained, "/unused")
    run = ["DROPOUT_RATE = 0.0", "DTYPE = 'float32'", "REMAT = 'none'"]
    with configuration.restore_afterwards():
        configuration.load([text], run, complete=False)
        assert configuration.macro("MODEL") == pretrained.model


LLAMA = models.DecoderOnlyConfig(
    vocab_size=16, emb_dim=8, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=4, mlp_dim=8
)
GEMMA = dataclasses.replace(
    LLAMA, norm_offset=1.0, post_norms=True, scaled_embeddings=True, activation="gelu", sliding_window=3
)


THIRD = {"query_key_norms": True, "local_rope_theta": 100.0}


def test_the_family_that_has_the_options_of_a_network():
    def family(model, **options):
        return interop.model_type_of(dataclasses.replace(model, **options))

    assert family(LLAMA) == family(LLAMA, rope_scaling=models.LinearRopeScaling(2.0)) == "llama"
    assert family(LLAMA, qkv_biases=True) == "qwen2"
    assert family(LLAMA, query_key_norms=True, sliding_window=3) == "qwen3"
    assert family(GEMMA, attention_soft_cap=5.0) == "gemma2"
    assert family(GEMMA, **THIRD, query_scale=1 / 3) == "gemma3_text"


# Of several families that lack one option, the first is told.
NONE_HAS = [
    ("'llama' has no bidirectional_prompts=True", LLAMA, {"bidirectional_prompts": True}),
    ("'llama' has no sliding_window=3", LLAMA, {"sliding_window": 3}),
    ("'llama' has no query_scale=0.3", LLAMA, {"query_scale": 0.3}),
    ("'llama' has no activation='linear'", LLAMA, {"activation": "linear"}),
    ("'qwen2' has no query_key_norms=True", LLAMA, {"qkv_biases": True, "query_key_norms": True}),
    ("'gemma2' has no query_scale=0.31", GEMMA, {"query_scale": 0.31}),
    ("'gemma2' has no local_rope_theta=2.0", GEMMA, {"local_rope_theta": 2.0}),
    ("'gemma3_text' has no attention_soft_cap=5.0", GEMMA, {**THIRD, "attention_soft_cap": 5.0}),
]


@pytest.mark.parametrize(("told", "model", "options"), NONE_HAS, ids=[told for told, _, _ in NONE_HAS])
def test_options_that_no_family_has(told, model, options):
    with pytest.raises(UserError) as error:
        interop.model_type_of(dataclasses.replace(model, **options))
    assert f"transformers' {told}, so that" in str(error.value) and "\n" not in str(error.value)


def test_a_scaling_in_layers_with_a_window_is_gemma_2s():
    scaled = dataclasses.replace(GEMMA, rope_scaling=models.LinearRopeScaling(2.0))
    assert interop.model_type_of(scaled) == "gemma2"
    with pytest.raises(UserError, match="rope_scaling in layers with a window"):
        check_type(dataclasses.replace(scaled, query_key_norms=True), "gemma3_text")


def test_a_checkpoint_with_another_option_is_not_written_as_its_family():
    golden = refusals.GOLDEN / "qwen3"
    model = dataclasses.replace(opened(golden).model, bidirectional_prompts=True)
    with pytest.raises(UserError, match="'qwen3' has no bidirectional_prompts=True"):
        interop.model_type_of(model, golden)
    with pytest.raises(UserError, match="FORMAT='t5x'"):
        interop.t5x_table(opened(golden).model)
