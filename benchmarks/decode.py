"""Tokens a second: sampling over our cache against no cache, and against transformers' generate on torch.

    launch/local.sh python benchmarks/decode.py [--batches=1,8,64] [--forms=cached,uncached,transformers]
        [--inputs=128] [--targets=128] [--temperature=1.0] [--runs=5] [--uncached_batches=1]

T5 1.1 small with random parameters in float32, 128 prompt tokens and 128 sampled ones. Such a policy draws EOS once in
32,000 tokens, transformers is told not to, and a sample that ends early makes no step cheaper. `uncached` runs the encoder
once and the whole decoder at each token. Forms take turns within each batch size, so that what else the machine does weighs
on all of them; medians, and ratios of neighbours in time. Transformers is left out where it is not installed.
`cpu_seconds` is processor time, of all cores.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from provenance import provenance

from lmirl_jax import decoding
from lmirl_jax.models import T5Config
from lmirl_jax.rows import answer_rows
from lmirl_jax.types import AnswerBatch, PromptBatch

VOCAB, EOS = 32128, 1


def prompts_of(inputs: np.ndarray) -> PromptBatch:
    return PromptBatch(jnp.asarray(inputs), jnp.full(len(inputs), inputs.shape[1]))


def sample_with_cache(graph, length: int, params, inputs, key, temperature):
    model = nnx.merge(graph, params)
    keys = decoding.sample_keys(key, jnp.arange(len(inputs)), 1)
    settings = {"max_length": length, "eos_ids": (EOS,)}
    return decoding.sample(model, prompts_of(inputs), keys, temperature, **settings).answers.tokens[:, 0]


def sample_without_cache(graph, length: int, params, inputs, key, temperature):
    """The whole decoder at every token, on the targets so far; causality makes what follows them harmless."""
    model = nnx.merge(graph, params)
    rows = len(inputs)
    encoded = model.encode(inputs, jnp.ones(inputs.shape, jnp.int32))
    model.encode = lambda *_: encoded
    whole = jnp.full(rows, length)

    def step(t, tokens):
        answers = AnswerBatch(tokens, whole, whole > 0)
        hidden = model.hidden(answer_rows(prompts_of(inputs), answers, discount=1.0))
        hidden = jax.lax.dynamic_index_in_dim(hidden, t, axis=1, keepdims=False)
        logits = hidden @ model.unembedding().kernel
        sampled = jax.random.categorical(jax.random.fold_in(key, t), logits / temperature)
        return tokens.at[:, t].set(sampled.astype(jnp.int32))

    return jax.lax.fori_loop(0, length, step, jnp.zeros((rows, length), jnp.int32))


def lmirl_call(form, inputs: np.ndarray, options):
    """A function that makes the tokens, compiled."""
    model = T5Config(VOCAB, dropout_rate=0.0).build(jax.random.key(0))
    graph, params = nnx.split(model)
    arguments = (params, jnp.asarray(inputs), jax.random.key(1), options.temperature)
    program = jax.jit(functools.partial(form, graph, options.targets)).lower(*arguments).compile()
    return lambda: np.asarray(program(*arguments))


def transformers_call(inputs: np.ndarray, options):
    import torch
    import transformers

    config = transformers.T5Config(
        vocab_size=VOCAB,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_decoder_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = transformers.T5ForConditionalGeneration(config).eval()
    tokens = torch.tensor(inputs).long()
    settings = {
        "min_new_tokens": options.targets,
        "max_new_tokens": options.targets,
        "do_sample": True,
        "temperature": options.temperature,
        "top_k": 0,
    }

    def call():
        with torch.inference_mode():
            out = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), **settings)
        return out[:, 1:].numpy()

    return call


def measure(batch: int, options) -> dict:
    inputs = np.random.default_rng(0).integers(3, 32000, (batch, options.inputs)).astype(np.int32)
    functions = {}
    for form in options.forms.split(","):
        if form == "transformers":
            functions[form] = transformers_call(inputs, options)
        elif form == "cached" or str(batch) in options.uncached_batches.split(","):
            functions[form] = lmirl_call(
                {"cached": sample_with_cache, "uncached": sample_without_cache}[form], inputs, options
            )
    seconds, cpu = ({name: [] for name in functions} for _ in range(2))
    for turn in range(options.runs + 1):
        for name, function in functions.items():
            if name == "uncached" and turn > 2:
                # It is slow, and the figures do not depend on it.
                continue
            began, began_cpu = time.perf_counter(), time.process_time()
            tokens = function()
            durations = time.perf_counter() - began, time.process_time() - began_cpu
            assert tokens.shape == (batch, options.targets), (name, tokens.shape)
            # Torch's threads still use the processor for a while after a call.
            time.sleep(0.3)
            if turn:
                seconds[name].append(durations[0])
                cpu[name].append(durations[1])
    rates = {name: round(batch * options.targets / statistics.median(s)) for name, s in seconds.items()}
    best = {name: round(batch * options.targets / min(s)) for name, s in seconds.items()}
    ratios = {
        f"cached over {name}": round(
            statistics.median(b / a for a, b in zip(seconds["cached"], values, strict=False)), 2
        )
        for name, values in seconds.items()
        if name != "cached" and "cached" in seconds
    }
    return {
        "batch": batch,
        "tokens_per_second": rates,
        "tokens_per_second_at_best": best,
        "speed_ratios": ratios,
        "cpu_seconds": {name: round(statistics.median(values), 2) for name, values in cpu.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--uncached_batches", default="1")
    parser.add_argument("--forms", default="cached,uncached,transformers")
    parser.add_argument("--inputs", type=int, default=128)
    parser.add_argument("--targets", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        options.forms = ",".join(form for form in options.forms.split(",") if form != "transformers")
    head = provenance(options)
    if "transformers" in options.forms:
        head |= {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    results = [measure(int(batch), options) for batch in options.batches.split(",")]
    print(json.dumps(head | {"results": results}, indent=2))


if __name__ == "__main__":
    main()
