"""Loss and gradients from hidden states: blocked against dense, IQLearn against MLE, ours against optax and torch.

    launch/local.sh python benchmarks/soft_q.py [--shapes=8192x512x32128,...] [--forms=dense,blocked,optax,torch]
        [--objectives=mle,iqlearn] [--runs=15] [--dtype=float32] [--real=1.0] [--block_size=N]
    launch/local.sh python benchmarks/soft_q.py --compile_for=v5e:2x2 [--shapes=...] [--mesh=1,1,1] [--dtype=bfloat16]

A shape is tokens x embed x words; `real` is the share of tokens that are not padding. Every call returns its loss and both
gradients: a gradient alone lets the compiler drop the forward pass of dense MLE. Forms take turns, each with MLE and (ours)
IQLearn; ratios are of neighbours in time, and their median is given. Torch is left out where it is not installed. Temporary
memory is the compiler's own figure. The second command asks the TPU compiler, with no TPU at hand (`pip install libtpu`);
it times nothing.
"""

import argparse
import functools
import gc
import importlib.metadata
import importlib.util
import json
import math
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from provenance import provenance

from lmirl_jax import objectives, sharding, soft_q, tiles

ROWS = 8
LAMBDA = 0.1


def batch_of(shape, real: float):
    """Targets, weights and discounts [rows, length] of sequences that end in EOS and then padding."""
    length = shape[0] // ROWS
    targets = np.random.default_rng(0).integers(3, shape[2], (ROWS, length)).astype(np.int32)
    position = np.arange(length) / length
    weights = np.broadcast_to(position < real, targets.shape).astype(np.float32)
    discounts = np.pad(weights, ((0, 0), (0, 1)))[:, 1:]
    return targets, weights, discounts


def lmirl_loss(objective: str, block_size: int | None):
    def loss(hidden, kernel, targets, weights, discounts):
        out = soft_q.from_hidden(hidden, kernel, targets, weights=weights, block_size=block_size)
        iqlearn = functools.partial(objectives.iqlearn, discounts=discounts, td_weight=LAMBDA * weights)
        per_token = (objectives.mle if objective == "mle" else iqlearn)(out)
        return jnp.sum(weights * per_token) / jnp.sum(weights)

    return loss


def optax_loss(hidden, kernel, targets, weights, discounts):
    logits = jnp.matmul(hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
    per_token = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return jnp.sum(weights * per_token) / jnp.sum(weights)


def compile_loss(loss, arguments):
    """The program of a loss and its gradients, and the bytes of temporary memory that it needs."""
    program = jax.jit(jax.value_and_grad(loss, (0, 1))).lower(*arguments).compile()
    return program, program.memory_analysis().temp_size_in_bytes


def torch_call(hidden, kernel, targets, weights):
    """Torch's cross-entropy on the same numbers: a function that returns its loss and gradients, as float."""
    import torch

    dtype = torch.bfloat16 if hidden.dtype == jnp.bfloat16 else torch.float32
    hidden, kernel = (torch.tensor(np.asarray(x, np.float32)) for x in (hidden, kernel))
    targets = torch.tensor(np.asarray(targets)).long().ravel()
    weights = torch.tensor(np.asarray(weights)).ravel()

    def call():
        h, k = hidden.to(dtype).requires_grad_(), kernel.clone().requires_grad_()
        logits = (h.reshape(-1, h.shape[-1]) @ k.to(dtype)).float()
        per_token = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        loss = (per_token * weights).sum() / weights.sum()
        loss.backward()
        return float(loss.detach()), h.grad, k.grad

    return call


def calls(shape, options):
    """For each form and objective, a function to time, and the megabytes of its temporary memory."""
    tokens, embed, words = shape
    forms = options.forms.split(",")
    keys = jax.random.split(jax.random.key(0), 2)
    hidden = jax.random.normal(keys[0], (ROWS, tokens // ROWS, embed)).astype(options.dtype)
    kernel = jax.random.normal(keys[1], (embed, words)) / embed**0.5
    arguments = (hidden, kernel, *map(jnp.asarray, batch_of(shape, options.real)))
    functions, megabytes = {}, {}
    losses = {"dense": 0, "blocked": options.block_size or tiles.BLOCK_SIZE}
    for form in forms:
        if form == "torch":
            functions["torch mle"] = torch_call(*arguments[:4])
            continue
        named = {"optax mle": optax_loss}
        if form in losses:
            named = {
                f"{form} {name}": lmirl_loss(name, losses[form]) for name in options.objectives.split(",")
            }
        for name, loss in named.items():
            program, size = compile_loss(loss, arguments)
            functions[name] = functools.partial(program, *arguments)
            megabytes[name] = round(size / 2**20, 1)
    return functions, megabytes


def time_call(function) -> tuple[float, float]:
    began = time.perf_counter()
    loss, *gradients = function()
    jax.block_until_ready(gradients)
    return time.perf_counter() - began, float(loss)


def measure(shape, options) -> dict:
    functions, megabytes = calls(shape, options)
    times, losses = {name: [] for name in functions}, {}
    for turn in range(options.runs + 1):
        for name, function in functions.items():
            seconds, losses[name] = time_call(function)
            gc.collect()
            if name.startswith("torch"):
                # Torch's threads still use the processor for a while after a call.
                time.sleep(0.3)
            if turn:
                times[name].append(seconds)

    def ratio(one, other):
        if one in times and other in times:
            return round(statistics.median(a / b for a, b in zip(times[one], times[other], strict=True)), 3)
        return None

    pairs = {
        "iqlearn / mle, blocked": ("blocked iqlearn", "blocked mle"),
        "iqlearn / mle, dense": ("dense iqlearn", "dense mle"),
        "blocked / dense, mle": ("blocked mle", "dense mle"),
        "blocked / dense, iqlearn": ("blocked iqlearn", "dense iqlearn"),
        "blocked mle / optax": ("blocked mle", "optax mle"),
        "dense mle / optax": ("dense mle", "optax mle"),
        "blocked mle / torch": ("blocked mle", "torch mle"),
    }
    ratios = {name: ratio(*pair) for name, pair in pairs.items()}
    return {
        "shape": "x".join(map(str, shape)),
        "median_seconds": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "time_ratios": {name: value for name, value in ratios.items() if value is not None},
        "temporary_megabytes": megabytes,
        "blocked_over_dense_memory": memory_ratio(megabytes),
        "losses": {name: round(loss, 5) for name, loss in losses.items()},
    }


def memory_ratio(megabytes):
    both = [megabytes.get(f"{form} iqlearn") for form in ("blocked", "dense")]
    return round(both[0] / both[1], 4) if all(isinstance(size, float) for size in both) else None


def compile_only(shape, options) -> dict:
    """The memory of a program on TPU chips that this machine lacks, by the TPU compiler, in megabytes for each chip."""
    from jax.experimental import topologies

    sizes = dict(zip(("data", "fsdp", "tensor"), map(int, options.mesh.split(",")), strict=True))
    chips = topologies.get_topology_desc(platform="tpu", topology_name=options.compile_for).devices
    with sharding.use_devices(chips[: math.prod(sizes.values())]):
        mesh = sharding.make_mesh(**sizes)
    tokens, embed, words = shape

    def abstract(size, dtype, *spec):
        return jax.ShapeDtypeStruct(
            size, jnp.dtype(dtype), sharding=NamedSharding(mesh, PartitionSpec(*spec))
        )

    rows = (ROWS, tokens // ROWS)
    per_token = [abstract(rows, dtype, sharding.BATCH_AXES) for dtype in ("int32", "float32", "float32")]
    arguments = (
        abstract((*rows, embed), options.dtype, sharding.BATCH_AXES),
        abstract((embed, words), "float32", "fsdp", "tensor"),
        *per_token,
    )
    megabytes = {}
    with sharding.use(mesh):
        for form, block_size in (("dense", 0), ("blocked", options.block_size or tiles.BLOCK_SIZE)):
            try:
                _, size = compile_loss(lmirl_loss("iqlearn", block_size), arguments)
                megabytes[f"{form} iqlearn"] = round(size / 2**20, 1)
            except jax.errors.JaxRuntimeError as error:
                megabytes[f"{form} iqlearn"] = str(error).splitlines()[0][:200]
    return {
        "shape": "x".join(map(str, shape)),
        "temporary_megabytes": megabytes,
        "blocked_over_dense_memory": memory_ratio(megabytes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default="1024x512x32128,8192x512x32128")
    parser.add_argument("--forms", default="dense,blocked,optax,torch")
    parser.add_argument("--objectives", default="mle,iqlearn")
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--real", type=float, default=1.0)
    parser.add_argument("--block_size", type=int)
    parser.add_argument("--compile_for")
    parser.add_argument("--mesh", default="1,1,1")
    options = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        options.forms = ",".join(form for form in options.forms.split(",") if form != "torch")
    shapes = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",")]
    one = compile_only if options.compile_for else measure
    head = provenance(options)
    if "torch" in options.forms and not options.compile_for:
        head["torch"] = importlib.metadata.version("torch")
    print(json.dumps(head | {"results": [one(shape, options) for shape in shapes]}, indent=2))


if __name__ == "__main__":
    main()
