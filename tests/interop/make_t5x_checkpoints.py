"""Tiny checkpoints that T5X itself saves, with the logits that it computes; it runs where T5X is installed, without our library.

python make_t5x_checkpoints.py FOLDER
"""

import pathlib
import shutil
import sys

import flax
import jax
import numpy as np
import seqio
from flax import serialization
from t5x import adafactor, checkpoints, models, partitioning, utils
from t5x.examples.scalable_t5 import network as scanned_network
from t5x.examples.t5 import network

SIZES = {
    "vocab_size": 160,
    "emb_dim": 8,
    "num_heads": 2,
    "head_dim": 3,
    "mlp_dim": 12,
    "dropout_rate": 0.0,
    "dtype": "float32",
}
KINDS = {
    "t5_1_1": (
        network,
        {"num_encoder_layers": 2, "num_decoder_layers": 1, "mlp_activations": ("gelu", "linear")},
    ),
    "t5_1_0": (
        network,
        {
            "num_encoder_layers": 1,
            "num_decoder_layers": 2,
            "mlp_activations": ("relu",),
            "logits_via_embedding": True,
        },
    ),
    "scanned": (
        scanned_network,
        {"num_encoder_layers": 3, "num_decoder_layers": 2, "mlp_activations": ("gelu", "linear")},
    ),
}
# The formats that are kept of each.
FORMATS = {
    "t5_1_1": ("msgpack_and_zarr", "orbax"),
    "t5_1_0": ("msgpack",),
    "scanned": ("msgpack_and_zarr", "orbax"),
}
INPUTS, TARGETS = (4, 12), (4, 9)


def make(folder: pathlib.Path, name: str) -> None:
    """Writes the checkpoint of one kind of network in each format, and `expected.npz` beside them."""
    library, sizes = KINDS[name]
    vocabulary = seqio.ByteVocabulary()
    rules = adafactor.standard_logical_factor_rules()
    optimizer = adafactor.Adafactor(decay_rate=0.8, step_offset=0, logical_factor_rules=rules)
    module = library.Transformer(config=library.T5Config(**SIZES, **sizes))
    model = models.EncoderDecoderModel(module, vocabulary, vocabulary, optimizer)
    shapes = {
        "encoder_input_tokens": INPUTS,
        "decoder_input_tokens": TARGETS,
        "decoder_target_tokens": TARGETS,
    }
    partitioner = partitioning.PjitPartitioner(num_partitions=1)
    initializer = utils.TrainStateInitializer(optimizer, model.get_initial_variables, shapes, partitioner)
    state = initializer.from_scratch(jax.random.PRNGKey(0))
    random = np.random.default_rng(0)
    # Initial norms are 1 and biases are small, which would hide that one is taken for another.
    params = jax.tree_util.tree_map(
        lambda value: value + 0.2 * random.standard_normal(value.shape).astype(np.float32),
        flax.core.unfreeze(state.params),
    )
    state = state.replace_params(params)
    expected = compute(module, params, random)
    for place in ("msgpack_and_zarr", "orbax", "msgpack"):
        (folder / place).mkdir(parents=True)
    np.savez_compressed(folder / "expected.npz", **expected)
    checkpoints.Checkpointer(state, partitioner, str(folder / "msgpack_and_zarr")).save(state)
    manager = checkpoints.OrbaxCheckpointManagerInterface(str(folder / "orbax"), state, partitioner, period=1)
    manager.save(state, force=True)
    manager.wait_until_finished()
    content = {
        "version": checkpoints.VERSION,
        "optimizer": jax.tree_util.tree_map(np.asarray, state.state_dict()),
    }
    content["optimizer"].pop("flax_mutables", None)
    content["optimizer"]["state"].pop("param_states")
    (folder / "msgpack/checkpoint_0").write_bytes(serialization.msgpack_serialize(content))
    shrink(folder, FORMATS[name])


def compute(module, params, random) -> dict[str, np.ndarray]:
    inputs = random.integers(3, 160, INPUTS)
    inputs[1, 7:] = 0
    targets = random.integers(3, 160, TARGETS)
    decoder_ids = np.concatenate([np.zeros((len(targets), 1), int), targets[:, :-1]], 1)
    logits = module.apply({"params": params}, inputs, decoder_ids, targets, enable_dropout=False)
    return {"inputs": inputs, "decoder_ids": decoder_ids, "logits": np.asarray(logits)}


def shrink(folder: pathlib.Path, formats: tuple[str, ...]) -> None:
    """Removes other formats, the optimizer's state where it has folders of its own, and files that no reader needs."""
    others = [place for place in folder.iterdir() if place.is_dir() and place.name not in formats]
    for place in others:
        shutil.rmtree(place)
    state = (folder / "msgpack_and_zarr").glob("checkpoint_*/state.*")
    for place in [*state, *folder.glob("orbax/checkpoint_*/dataset")]:
        shutil.rmtree(place)
    for name in ("_sharding", "commit_success.txt"):
        for file in folder.rglob(name):
            file.unlink()


if __name__ == "__main__":
    for each in KINDS:
        make(pathlib.Path(sys.argv[1]).resolve() / each, each)
