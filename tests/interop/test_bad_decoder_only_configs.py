"""Bad config.json of decoder-only models: each is refused in one line, before an array or a list of its sizes is made."""

import pytest

from tests.interop import refusals
from tests.interop.refusals import edit_json
from tests.pretrained import DECODER_ONLY

# No shape of a tensor shows another number of heads, or window, that is possible; others are refused.
VALUES = {
    "vocab_size": (None, 0, 95, 97, 10**9),
    "hidden_size": (None, 0, 17, 2**31, "16"),
    "num_hidden_layers": (1, 5, 10**9),
    "num_attention_heads": (None, 2, 3, 8),
    "num_key_value_heads": (3, 4, 0),
    "head_dim": (5, 10, 10**9),
    "intermediate_size": (None, 23, 10**9, -1),
    "rms_norm_eps": (0, float("nan"), "x"),
    "bos_token_id": ("x", -1, 96),
    "max_position_embeddings": (0, 2, "x", 2**31),
    "tie_word_embeddings": ("x", 3),
    "architectures": (["LlamaForSequenceClassification"], ["Gemma3ForConditionalGeneration"], 3),
}
PLAIN_ROPES = (
    3,
    [1],
    {"rope_type": "yarn"},
    {"rope_type": "dynamic"},
    {"type": "longrope"},
    {"rope_type": 3},
)
PLAIN_ROPES += (
    {"rope_type": "llama3", "factor": 8.0},
    {"rope_type": "linear"},
    {"rope_theta": -1},
    {"full": {}},
)
PLAIN_ROPES += (
    {"rope_type": "linear", "factor": "x"},
    {"rope_type": "default", "partial_rotary_factor": 0.5},
)
LAYER_TYPES = ("full_attention", [1, 2, 3], ["full_attention"], ["a", "b", "c"], 3)
OF_FAMILY = {
    "llama": {
        "attention_bias": (True, "yes"),
        "mlp_bias": (True, 1),
        "hidden_act": ("tanh", 3),
        "rope_parameters": PLAIN_ROPES,
        "rope_scaling": PLAIN_ROPES,
        "rope_theta": (0, "x"),
        # Its output layer, which is there, would be left over.
        "model_type": ("qwen2", "qwen3", "gemma2", "gemma3_text", "gemma3"),
    },
    "qwen2": {
        "sliding_window": (0, -1, None, "x"),
        "use_sliding_window": (False, "x"),
        "layer_types": LAYER_TYPES,
        "rope_parameters": PLAIN_ROPES,
        "tie_word_embeddings": (False,),
    },
    "qwen3": {
        "attention_bias": (True,),
        "layer_types": (*LAYER_TYPES, ["sliding_attention"] * 3),
        "model_type": ("llama", "qwen2"),
    },
    "gemma2": {
        "attention_bias": (True,),
        "use_bidirectional_attention": (True,),
        "hidden_activation": ("tanh", 3),
        "layer_types": LAYER_TYPES,
        "sliding_window": (0, "x"),
        "attn_logit_softcapping": (0, -1, "x", float("nan")),
        "final_logit_softcapping": (0, "x"),
        "query_pre_attn_scalar": (0, "x", float("inf")),
        "rope_parameters": PLAIN_ROPES,
        "model_type": ("gemma3_text", "qwen3"),
    },
    "gemma3": {
        "attn_logit_softcapping": (5.0,),
        "use_bidirectional_attention": (True,),
        "rope_parameters": (
            3,
            {"rope_type": "default"},
            {"full_attention": {"rope_type": "yarn"}},
            {"full_attention": 3},
            {"sliding_attention": {"rope_type": "linear", "factor": 2.0}},
            {"sliding_attention": {"rope_theta": -1}},
        ),
        "rope_scaling": ({"rope_type": "dynamic", "factor": 2.0}, 3),
        "model_type": ("gemma2", "gemma3"),
    },
}
CASES = [(family, name) for family in DECODER_ONLY for name in {**VALUES, **OF_FAMILY[family]}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A copy of the golden checkpoint of each family, whose config.json each case replaces."""
    place = tmp_path_factory.mktemp("configs")
    return {family: refusals.copy_of(family, place / family) for family in DECODER_ONLY}


@pytest.mark.parametrize(("family", "name"), CASES)
def test_values(folders, capsys, family, name):
    for value in {**VALUES, **OF_FAMILY[family]}[name]:
        refuse(folders[family], capsys, {name: value})


def refuse(folder, capsys, values) -> str:
    whole = (refusals.GOLDEN / folder.name / "config.json").read_bytes()
    (folder / "config.json").write_bytes(whole)
    edit_json(folder / "config.json", lambda config: config.update(values))
    line = refusals.refusal(folder, capsys)
    assert str(folder) in line
    return line


TOLD = {
    ("llama", "rope_parameters"): (
        {"rope_type": "yarn"},
        "rope_type='yarn' is not supported; those that are: default",
    ),
    ("llama", "mlp_bias"): (True, "mlp_bias is not supported for model_type 'llama'"),
    ("llama", "architectures"): (
        ["LlamaModel"],
        "a LlamaModel is no language model: load a checkpoint of the class ...ForC",
    ),
    ("qwen2", "tie_word_embeddings"): (False, "missing: lm_head.weight"),
    ("gemma2", "use_bidirectional_attention"): (True, "use_bidirectional_attention is not supported"),
    ("gemma3", "model_type"): ("gemma3", "model_type 'gemma3' reads images too: save its part for texts"),
}


@pytest.mark.parametrize(("family", "name"), TOLD)
def test_what_is_told(folders, capsys, family, name):
    value, words = TOLD[family, name]
    assert words in refuse(folders[family], capsys, {name: value})
