"""Bad config.json of Hugging Face: each is refused in one line, before an array of its sizes is made."""

import json
import os

import pytest

import lmirl_jax
from lmirl_jax import interop
from tests.interop import refusals
from tests.interop.refusals import edit_json

SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_layers")
NO_COUNTS = (None, 0, -1, 1.5, True, "16", [16], {}, 2**31, 10**400, float("nan"), float("inf"))


def with_values(folder, **values):
    edit_json(folder / "config.json", lambda config: config.update(values))


@pytest.fixture(scope="module")
def one_by_one(tmp_path_factory):
    """A copy of a golden checkpoint whose config.json each case replaces."""
    return refusals.copy_of("t5_1_1", tmp_path_factory.mktemp("configs") / "model")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory):
    return refusals.copy_of("t5gemma", tmp_path_factory.mktemp("gemma") / "model")


def in_stack(folder, stack, **values):
    edit_json(folder / "config.json", lambda config: config[stack].update(values))


def write(folder, content):
    (folder / "config.json").write_bytes(content)


def without(folder, name):
    edit_json(folder / "config.json", lambda config: {key: config[key] for key in config if key != name})


def refuse(folder, capsys, change, *arguments, **values) -> str:
    """The line in which a checkpoint is refused after a change of its config.json."""
    family = "t5gemma" if "gemma" in str(folder) else "t5_1_1"
    whole = (refusals.GOLDEN / family / "config.json").read_bytes()
    (folder / "config.json").write_bytes(whole)
    change(folder, *arguments, **values)
    line = refusals.refusal(folder, capsys)
    assert str(folder) in line
    return line


@pytest.mark.parametrize("name", SIZES)
def test_sizes_that_are_no_counts(one_by_one, capsys, name):
    for value in NO_COUNTS:
        line = refuse(one_by_one, capsys, with_values, **{name: value})
        assert f"{name}, which must be a whole number from 1 to" in line
    line = refuse(one_by_one, capsys, without, name)
    assert f"lacks {name}" in line


@pytest.mark.parametrize("name", [*SIZES, "num_decoder_layers", "relative_attention_num_buckets"])
def test_sizes_that_contradict_the_tensors(one_by_one, capsys, name):
    for value in (1, 5, 8, 97, 10**6, 2**31 - 1):
        refuse(one_by_one, capsys, with_values, **{name: value})


VALUES = {
    "relative_attention_num_buckets": (3, 2, 1, "32"),
    "relative_attention_max_distance": (16, 1, -5, "far"),
    "layer_norm_epsilon": (0, -1e-6, float("nan"), float("inf"), 10**400, "1e-6", True, []),
    "feed_forward_proj": ("relu", "gated-gelu-new", "", 3, ["relu"], {}, "x" * 10**5),
    "decoder_start_token_id": (-1, 96, 1.5, "0", 2**40),
    "tie_word_embeddings": ("false", 0, 1, []),
    "scale_decoder_outputs": ("false", 0),
    "architectures": (
        "T5ForConditionalGeneration",
        3,
        [3],
        {"a": 1},
        ["T5EncoderModel"],
        ["T5ForSequenceClassification"],
    ),
    "model_type": (None, "bert", "llama", "gemma3", "t5x", "T5", 3, ["t5"], {}, "x" * 10**5),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_of_a_wrong_kind(one_by_one, capsys, name):
    for value in VALUES[name]:
        refuse(one_by_one, capsys, with_values, **{name: value})


def test_other_architectures_are_told_with_those_that_are_supported(one_by_one, capsys):
    line = refuse(one_by_one, capsys, with_values, model_type="bert")
    assert "model_type 'bert' is not supported; those that are: t5, mt5, umt5, t5gemma" in line
    line = refuse(one_by_one, capsys, with_values, architectures=["T5EncoderModel"])
    assert (
        "T5EncoderModel is no language model: load a checkpoint of the class ...ForConditionalGeneration"
        in line
    )


STACK_VALUES = {
    "hidden_size": (None, 0, 17, 2**31, "16"),
    "num_hidden_layers": (1, 4, 10**9),
    "num_attention_heads": (2, 3, 8),
    "num_key_value_heads": (3, 4, 0),
    "head_dim": (5, 8, 10**9),
    "intermediate_size": (23, 10**9, -1),
    "sliding_window": (0, -1, 2**31, "x"),
    "layer_types": ("full_attention", [1, 2, 3], ["full_attention"], ["a", "b", "c"], 3),
    "hidden_activation": ("relu", 3, "gelu"),
    "attention_bias": (True, "yes"),
    "attn_logit_softcapping": (0, -1, "x", float("nan")),
    "query_pre_attn_scalar": (0, -1, "x", float("inf")),
    "rope_parameters": (
        3,
        "x",
        [1],
        {"rope_type": "yarn"},
        {"rope_type": 3},
        {"rope_theta": "x"},
        {"rope_theta": -1},
    ),
    "rms_norm_eps": (0, float("nan"), "x"),
    "vocab_size": (95, 97, 10**9, None),
    "bos_token_id": ("x", -1),
}
# These count in one of the stacks only, or null stands for the default.
FINE = {("encoder", "vocab_size"), ("encoder", "bos_token_id"), ("decoder", "bos_token_id")}


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("name", STACK_VALUES)
def test_values_of_a_stack_of_t5gemma(gemma, capsys, stack, name):
    if (stack, name) in FINE:
        return
    for value in STACK_VALUES[name]:
        refuse(gemma, capsys, in_stack, stack, **{name: value})


@pytest.mark.parametrize("part", [None, 3, [], "x", {}])
def test_a_stack_of_t5gemma_that_is_none(gemma, capsys, part):
    refuse(gemma, capsys, with_values, decoder=part)


FILES = {
    "empty": b"",
    "cut": b'{"model_type": "t5"',
    "a list": b"[1]",
    "a number": b"3",
    "null": b"null",
    "a BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"model_type": "t5"}'.encode("utf-16"),
    "not UTF-8": b'{"model_type": "\xff"}',
    "deep": b"[" * 10**5,
    "a number of many digits": b'{"model_type": "t5", "d_model": ' + b"9" * 5000 + b"}",
    "an empty object": b"{}",
    "a surrogate": b'{"model_type": "\\ud800"}',
    "lines": b'{"model_type": "a\\nb"}',
}


@pytest.mark.parametrize("content", FILES)
def test_files_that_are_no_config(one_by_one, capsys, content):
    line = refuse(one_by_one, capsys, write, FILES[content])
    assert "config.json" in line


def test_no_such_file_at_a_link(one_by_one, capsys, tmp_path):
    folder = refusals.copy_of("t5_1_1", tmp_path / "model")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "nothing")
    assert "no checkpoint at" in refusals.refusal(folder, capsys)


def test_strange_lengths_count_as_none(tmp_path):
    from etils import epath

    folder = refusals.copy_of("t5_1_1", tmp_path / "model")
    for positions, longest in ((True, 0.5), ("512", None), (-3, float("nan")), (10**400, [])):
        with_values(folder, n_positions=positions)
        (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": longest}))
        assert interop.open_pretrained(epath.Path(folder)).lengths is None
    with_values(folder, n_positions=512.0)
    assert interop.open_pretrained(epath.Path(folder)).lengths == {"inputs": 512, "targets": 256}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read a file")
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "."])
def test_what_the_user_may_not_read(tmp_path, capsys, name):
    folder = refusals.copy_of("t5_1_0", tmp_path / "model")
    for place in [tmp_path, *list(tmp_path.parents)[:3]]:
        place.chmod(place.stat().st_mode | 0o755)
    # All modules are imported before root's rights are given up.
    lmirl_jax.load(folder)
    (folder / name).chmod(0)
    os.seteuid(65534)
    try:
        line = refusals.one_line(folder)
    finally:
        os.seteuid(0)
    assert "Permission denied" in line and str(folder) in line
