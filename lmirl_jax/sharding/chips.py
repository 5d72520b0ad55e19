"""What each kind of chip can do, for the roofline and MFU, and the names of TPU topologies."""

import dataclasses
import re

from lmirl_jax.types import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of TPU chip.

    Args:
        kind: what JAX calls it.
        flops: the peak of bfloat16 matrix products, in operations a second.
        hbm: what a program can use of its memory, in bytes, as the TPU compiler of libtpu 0.0.42 says where one does not fit: a
            little less than the chip has (v4 32, v5e 16, v5p 95, v6e 32 GB).
        hbm_bandwidth: in bytes a second.
        ici: what it can send to other chips of its slice over all its links at once, in bytes a second: half of what Google
            calls the bidirectional bandwidth.
        dcn: what it can send to other slices, its share of its host's network, in bytes a second; None where not documented.
        sides: the number of sides of its torus.
        source: where the numbers are from.
        megacore: whether its two cores are one device, which libtpu must be told.
    """

    kind: str
    flops: float
    hbm: float
    hbm_bandwidth: float
    ici: float
    dcn: float | None
    sides: int
    source: str
    megacore: bool = False


CHIPS = {
    "v4": Chip(
        kind="TPU v4",
        flops=275e12,
        hbm=30.75 * 2**30,
        hbm_bandwidth=1228e9,
        ici=6 * 50e9,
        dcn=None,
        sides=3,
        source="https://cloud.google.com/tpu/docs/v4; links: https://arxiv.org/abs/2304.01433, table 4",
        megacore=True,
    ),
    "v5e": Chip(
        kind="TPU v5 lite",
        flops=197e12,
        hbm=15.75 * 2**30,
        hbm_bandwidth=819e9,
        ici=200e9,
        dcn=6.4e12 / 8 / 256,
        sides=2,
        source="https://cloud.google.com/tpu/docs/v5e",
    ),
    "v5p": Chip(
        kind="TPU v5",
        flops=459e12,
        hbm=95.74 * 2**30,
        hbm_bandwidth=2765e9,
        ici=4800e9 / 8,
        dcn=None,
        sides=3,
        source="https://cloud.google.com/tpu/docs/v5p",
    ),
    "v6e": Chip(
        kind="TPU v6 lite",
        flops=918e12,
        hbm=31.25 * 2**30,
        hbm_bandwidth=1638e9,
        ici=400e9,
        dcn=None,
        sides=2,
        source="https://cloud.google.com/tpu/docs/v6e",
    ),
}

# The same peak of GPUs, without sparsity, by a part of what JAX calls them; NVIDIA's data sheets.
GPUS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "L40S": 362e12,
    "L4": 121e12,
    "B200": 2250e12,
}


def peak_flops(kind: str) -> float | None:
    """The peak of bfloat16 matrix products of a device, in operations a second; None where it is not known.

    Args:
        kind: what JAX calls it, `jax.Device.device_kind`.
    """
    for chip in CHIPS.values():
        if chip.kind == kind:
            return chip.flops
    words = kind.split()
    if "MIG" in words:  # A part of a GPU.
        return None
    return next((flops for name, flops in GPUS.items() if _names(words, name.split())), None)


def _names(words: list[str], name: list[str]) -> bool:
    """Whether the words of a name are among those of a device: A100 is in 'NVIDIA A100-SXM4-80GB', and L4 not in L40S."""
    return all(any(word.split("-")[0] == part for word in words) for part in name)


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as 'v5e:16x16'.

    Raises:
        UserError: the name is none of a topology.
    """
    kind, _, shape = topology.partition(":")
    if kind not in CHIPS:
        raise UserError(f"--topology={topology}: unknown chip {kind!r}; write one of {_examples()}")
    if not re.fullmatch("x".join([r"[1-9]\d*"] * CHIPS[kind].sides), shape):
        raise UserError(
            f"--topology={topology}: {kind} has {CHIPS[kind].sides} sides; write one of {_examples()}"
        )
    return CHIPS[kind]


def _examples() -> str:
    return ", ".join(f"{kind}:{'16x16' if chip.sides == 2 else '4x4x8'}" for kind, chip in CHIPS.items())
