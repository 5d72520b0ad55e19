"""The programs of small runs, compiled ahead of time: for CPU devices, and for TPU chips where libtpu is installed."""

import dataclasses
import functools

import jax
import pytest

from lmirl_jax import compilation, models, objectives, sharding, training
from lmirl_jax.compilation import hlo
from lmirl_jax.compilation.loops import count_runs
from lmirl_jax.compilation.products import matrix_flops
from lmirl_jax.online import OnlineIQLearn, Rollouts
from tests.tpus import compiled_for

LENGTHS = {"inputs": 32, "targets": 64}
ROWS = 8
T5 = models.T5Config(
    vocab_size=512,
    emb_dim=64,
    num_heads=4,
    head_dim=16,
    mlp_dim=128,
    num_encoder_layers=3,
    num_decoder_layers=2,
    dropout_rate=0.0,
    dtype="bfloat16",
)
LLAMA = models.DecoderOnlyConfig(
    vocab_size=512,
    emb_dim=64,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_dim=128,
    dtype="bfloat16",
    logits_via_embedding=False,
)
DATA = compilation.AbstractData(ROWS, LENGTHS)
BLOCKS = training.SoftQConfig(block_size=64)


def learners() -> dict[str, training.Learner]:
    online = OnlineIQLearn(objectives.iqlearn, Rollouts(DATA), soft_q_config=BLOCKS)
    return {
        "mle": training.Offline(objectives.mle, 0.0, BLOCKS),
        "iqlearn": training.Offline(objectives.iqlearn, 0.1, BLOCKS),
        "online_iqlearn": online,
    }


def compile_for(mesh, model, learner: str, topology: str = "v5e:2x2") -> compilation.Summary:
    setting = training.make_setting(model, training.adamw(1e-4), DATA, mesh)
    result = compilation.compile_update(setting, learners()[learner], DATA, sharding.chip_of(topology))
    assert isinstance(result, compilation.Summary)
    return result


@functools.cache
def on_cpu(model, learner: str, fsdp: int = 2, tensor: int = 2) -> compilation.Summary:
    with sharding.use_devices(jax.devices()[: fsdp * tensor]):
        mesh = sharding.make_mesh(data=1, fsdp=fsdp, tensor=tensor)
    return compile_for(mesh, model, learner)


def t5_flops() -> float:
    """An update of `T5`, worked out by hand: 6 for each weight and token, 12 for each pair of tokens and unit of width."""
    inputs, targets, width = ROWS * 32, ROWS * 64, 4 * 16
    attention, mlp = 4 * 64 * width, 3 * 64 * 128
    encoder = 3 * (attention + mlp) * inputs
    decoder = 2 * ((attention + mlp + attention // 2) * targets + attention // 2 * inputs)
    pairs = ROWS * (3 * 32 * 32 + 2 * (64 * 64 + 64 * 32))
    return 6.0 * (encoder + decoder + 64 * 512 * targets) + 12.0 * width * pairs


def llama_flops() -> float:
    tokens, width = ROWS * 96, 4 * 16
    layer = 64 * (2 * width + 2 * 2 * 16) + 3 * 64 * 128
    return 6.0 * (3 * layer * tokens + 64 * 512 * ROWS * 64) + 12.0 * width * 3 * ROWS * 96 * 96


@pytest.mark.parametrize(("model", "needed"), [(T5, t5_flops()), (LLAMA, llama_flops())], ids=["t5", "llama"])
def test_what_is_compiled_is_what_the_model_needs(model, needed):
    found = on_cpu(model, "mle")
    assert found.model_flops == needed / 4
    assert 1.0 <= found.waste < 1.10
    # Blocked soft Q-values compute each logit again in the backward pass.
    assert found.recomputed_flops == 2 * 64 * 512 * ROWS * 64 / 4
    assert found.turns == 4 and not found.holds_logits


@pytest.mark.parametrize("model", [T5, LLAMA], ids=["t5", "llama"])
def test_iqlearn_costs_what_maximum_likelihood_does(model):
    mle, iqlearn = on_cpu(model, "mle"), on_cpu(model, "iqlearn")
    assert iqlearn.flops == mle.flops
    assert iqlearn.memory.peak == pytest.approx(mle.memory.peak, rel=0.01)
    assert iqlearn.memory.arguments == mle.memory.arguments
    sent = [sum(each.bytes for each in one.traffic) for one in (mle, iqlearn)]
    assert sent[1] == pytest.approx(sent[0], rel=0.01)


def test_rollouts_double_the_rows():
    assert on_cpu(T5, "online_iqlearn").model_flops == 2 * on_cpu(T5, "mle").model_flops
    assert on_cpu(T5, "online_iqlearn").flops == pytest.approx(2 * on_cpu(T5, "mle").flops, rel=0.01)


def test_a_scan_counts_as_its_layers_do():
    """One layer in each turn, against all of them written out."""
    unrolled = dataclasses.replace(LLAMA, scan_unroll=LLAMA.num_layers)
    assert on_cpu(LLAMA, "mle").flops == on_cpu(unrolled, "mle").flops


def test_remat_is_told_apart():
    none, full = on_cpu(LLAMA, "mle"), on_cpu(dataclasses.replace(LLAMA, remat="full"), "mle")
    assert full.recomputed_flops > none.recomputed_flops
    # At most the forward pass of all layers is computed again, which is a third of their operations.
    layers = llama_flops() - 6.0 * 64 * 512 * ROWS * 64
    assert 0.5 * layers / 3 / 4 < full.flops - none.flops <= layers / 3 / 4


def test_jax_counts_the_same_product():
    """A scan of products, whose number is known beforehand."""
    weights = jax.ShapeDtypeStruct((5, 8, 8), "float32")

    def run(x, weights):
        return jax.lax.scan(lambda x, w: (x @ w, None), x, weights)[0]

    text = jax.jit(run).lower(jax.ShapeDtypeStruct((4, 8), "float32"), weights).compile().as_text()
    module = hlo.parse(text)
    assert matrix_flops(module, count_runs(module)) == 5 * 2 * 4 * 8 * 8


def test_parameters_are_gathered_once_in_each_direction():
    """With fsdp alone every device gathers the weights of a layer for its rows, forward and backward, and no activations."""
    found = on_cpu(T5, "mle", fsdp=4, tensor=1)
    gathered = sum(each.bytes for each in found.traffic if each.operation == "all-gather")
    weights = 4 * (3 * (4 * 64 * 64 + 3 * 64 * 128) + 2 * (8 * 64 * 64 + 3 * 64 * 128) + 2 * 64 * 512)
    assert all(each.axes == ("fsdp",) for each in found.traffic)
    assert gathered < 6 * weights


def test_a_tpu_slice(monkeypatch):
    with sharding.use_devices(compiled_for("v5e:2x2", monkeypatch)):
        mesh = sharding.make_mesh(data=1, fsdp=2, tensor=2)
    mle, iqlearn = (compile_for(mesh, LLAMA, learner) for learner in ("mle", "iqlearn"))
    assert iqlearn.flops == pytest.approx(mle.flops, rel=0.01)
    assert iqlearn.memory.peak == pytest.approx(mle.memory.peak, rel=0.01)
    assert iqlearn.hbm_bytes == pytest.approx(mle.hbm_bytes, rel=0.01)
    assert 0.99 < mle.waste < 1.10 and mle.memory.fits
    assert not mle.holds_logits and not iqlearn.holds_logits
    assert {axis for each in mle.traffic for axis in each.axes} == {"fsdp", "tensor"}
    # Products are whole: no loop exchanges pieces of weights (sharding.compiler_options).
    assert sum(each.count for each in mle.traffic if each.operation == "collective-permute") < 5
