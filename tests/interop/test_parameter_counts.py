"""A network that comes from no checkpoint has the options of a family of transformers, and as many parameters there."""

import json

import jax
import pytest

from lmirl_jax import configuration, interop
from lmirl_jax.interop.hf_config import Config
from lmirl_jax.interop.pretrained import FAMILIES
from tests import pretrained
from tests.decoder_only_sizes import SIZES

TYPES = {"smollm2": "llama", "qwen2_5": "qwen2", "gemma3": "gemma3_text"}
NAMES = [(family, size) for family, sizes in SIZES.items() for size in sizes]


def model_of(family: str, size: str):
    """The network of a gin file, with the vocabulary of its checkpoints."""
    settings = [f"VOCAB_SIZE = {SIZES[family][size][0]}", "DECODER_START_ID = 2", "DROPOUT_RATE = 0.0"]
    settings += ["DTYPE = 'float32'", "REMAT = 'none'"]
    with configuration.restore_afterwards():
        configuration.load([f"gin/models/{family}/{size}.gin"], settings, complete=False)
        return configuration.macro("MODEL")


@pytest.mark.parametrize(("family", "size"), NAMES)
def test_the_config_that_is_written_for_a_size_is_read_as_the_same_network(family, size):
    model = model_of(family, size)
    model_type = interop.model_type_of(model)
    assert model_type == TYPES.get(family, family)
    described = json.loads(json.dumps(FAMILIES[model_type].config_json(model, model_type)))
    # No list is made for more layers than there are tensors.
    tensors = {f"{number}": jax.ShapeDtypeStruct((), "float32") for number in range(model.num_layers)}
    read = FAMILIES[model_type].read_config(Config("it", described), tensors, model.logits_via_embedding)
    options = {name: value for name, value in vars(read).items() if value != getattr(model, name)}
    # The list of Qwen's layers, which have no window.
    assert options.keys() <= {"layer_types"} and read.windows == model.windows


@pytest.mark.e2e
@pytest.mark.slow
def test_transformers_counts_as_many_parameters(tmp_path, transformers):
    for family, size in NAMES:
        model = model_of(family, size)
        model_type = interop.model_type_of(model)
        (tmp_path / size).mkdir()
        described = FAMILIES[model_type].config_json(model, model_type)
        (tmp_path / size / "config.json").write_text(json.dumps(described))
    counted = json.loads(transformers.run(pretrained.SCRIPT, "count", tmp_path).splitlines()[-1])
    assert counted == {size: SIZES[family][size][1] for family, size in NAMES}
