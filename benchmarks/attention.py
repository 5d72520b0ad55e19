"""Attention with all scores at once against blocks of them: temporary memory, and the time of a gradient.

    launch/local.sh python benchmarks/attention.py [--lengths=512,1024,2048,4096] [--times=128,256,512]
        [--families=t5,decoder_only] [--runs=7]

Memory is the compiler's own figure for the gradient of the sum of the hidden states, by the parameters: 4 layers (of a T5 in
the encoder and in the decoder) of 8 heads, embeddings of 512, batches of 8 rows, without an output layer. Rows have `length`
target tokens, and prompts of 128. For the time rows are fewer, so that each length has as many tokens; dense and blocked take
turns, ratios are of neighbours in time, and their median is given.
"""

import argparse
import functools
import json
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from provenance import provenance

from lmirl_jax.models import DecoderOnlyConfig, T5Config
from lmirl_jax.types import Batch

ROWS, PROMPT, WORDS = 8, 128, 512
FORMS = ("dense", "blocked")


def config_of(family: str, form: str):
    sizes = {"vocab_size": WORDS, "emb_dim": 512, "num_heads": 8, "head_dim": 64, "mlp_dim": 1024}
    if family == "t5":
        return T5Config(**sizes, num_encoder_layers=4, num_decoder_layers=4, attention=form)
    return DecoderOnlyConfig(**sizes, num_kv_heads=8, num_layers=4, attention=form)


def batch_of(rows: int, length: int) -> Batch:
    """Full rows of random tokens."""
    generator = np.random.default_rng(0)
    tokens = [generator.integers(3, WORDS, (rows, size)).astype(np.int32) for size in (PROMPT, length)]
    ones = [np.ones_like(x) for x in tokens]
    places = np.broadcast_to(np.arange(length, dtype=np.int32), (rows, length))
    weights = np.ones((rows, length), np.float32)
    return Batch(
        tokens=tokens[1],
        segment_ids=ones[1],
        positions=places,
        weights=weights,
        discounts=weights,
        td_weights=weights,
        prompt_tokens=tokens[0],
        prompt_segment_ids=ones[0],
    )


def program(family: str, form: str, rows: int, length: int):
    """The compiled gradient, and its arguments."""
    config = config_of(family, form)
    graph, state = nnx.split(config.build(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), rows)

    def loss(state, batch):
        return jnp.sum(nnx.merge(graph, state).hidden(batch, keys))

    arguments = (state, jax.tree.map(jnp.asarray, batch_of(rows, length)))
    return jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile(), arguments


def memory(family: str, length: int) -> dict:
    sizes = {}
    for form in FORMS:
        compiled, _ = program(family, form, ROWS, length)
        sizes[form] = round(compiled.memory_analysis().temp_size_in_bytes / 1e9, 3)
    return shown({"family": family, "targets": length, "temporary_gigabytes": sizes})


def shown(result: dict) -> dict:
    """Shows a part of the result as soon as it is there."""
    print(result, file=sys.stderr, flush=True)
    return result


def times(family: str, length: int, runs: int) -> dict:
    rows = max(2048 // length, 1)
    calls = {}
    for form in FORMS:
        compiled, arguments = program(family, form, rows, length)
        calls[form] = functools.partial(compiled, *arguments)
    seconds = {form: [] for form in FORMS}
    for turn in range(runs + 1):
        for form, call in calls.items():
            began = time.perf_counter()
            jax.block_until_ready(call())
            if turn:
                seconds[form].append(time.perf_counter() - began)
    ratios = [b / a for a, b in zip(seconds["dense"], seconds["blocked"], strict=True)]
    found = {
        "family": family,
        "rows": rows,
        "targets": length,
        "median_seconds": {form: round(statistics.median(values), 3) for form, values in seconds.items()},
        "blocked_over_dense": round(statistics.median(ratios), 3),
    }
    return shown(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", default="512,1024,2048,4096")
    parser.add_argument("--times", default="128,256,512")
    parser.add_argument("--families", default="t5,decoder_only")
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    lengths, timed = ([int(x) for x in text.split(",")] for text in (options.lengths, options.times))
    families = options.families.split(",")
    result = provenance(options, jax.devices()[0]) | {
        "memory": [memory(family, length) for family in families for length in lengths],
        "time": [times(family, length, options.runs) for family in families for length in timed],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
