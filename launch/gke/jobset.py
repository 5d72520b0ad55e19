#!/usr/bin/env python3
"""Runs one lmirl command on TPU slices of a GKE cluster, as a JobSet, or prints the line of XPK that does.

    launch/gke/jobset.py --name=run --image=IMAGE --tpu=v5e --topology=16x16 [flags] train --gin_file=... \
        --gin.MODEL_DIR="'gs://bucket/run'"

The cluster needs JobSet (https://jobset.sigs.k8s.io) and a node pool for each slice; the image is made by launch/docker/.
MODEL_DIR has to be in a bucket that the pods may write to. Python 3.9 is enough here.
"""

import argparse
import json
import math
import pathlib
import re
import shlex
import string
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from lmirl_jax.cli.commands import COMMANDS

# By chip: the label of its nodes, the name of its slices in XPK, and the numbers that XPK counts for a chip.
CHIPS = {
    "v4": ("tpu-v4-podslice", "v4", 2),
    "v5e": ("tpu-v5-lite-podslice", "v5litepod", 1),
    "v5p": ("tpu-v5p-slice", "v5p", 2),
    "v6e": ("tpu-v6e-slice", "v6e", 1),
}
# Of slices of several hosts; a smaller slice is one host.
CHIPS_PER_HOST = 4
# How long Kubernetes waits after a SIGTERM before it kills a pod. A preempted node may give less.
GRACE_SECONDS = 600


def chip_count(topology: str) -> int:
    """The number of chips of a topology such as 16x16 or 4x4x8."""
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", topology):
        raise argparse.ArgumentTypeError(f"{topology} is no topology: write 16x16, or 4x4x8 for v4 and v5p")
    return math.prod(map(int, topology.split("x")))


def manifest(options: argparse.Namespace) -> str:
    """The text of the JobSet."""
    label, _, _ = CHIPS[options.tpu]
    chips = chip_count(options.topology)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": options.topology,
    }
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    values = {
        "name": options.name,
        "labels": {"kueue.x-k8s.io/queue-name": options.queue} if options.queue else {},
        "restarts": options.restarts,
        "slices": options.slices,
        "hosts": max(1, chips // CHIPS_PER_HOST),
        "grace_seconds": GRACE_SECONDS,
        "node_selector": selector,
        "image": options.image,
        "command": command(options),
        "chips_per_host": min(chips, CHIPS_PER_HOST),
    }
    template = pathlib.Path(__file__).with_name("jobset.yaml").read_text(encoding="utf-8")
    # The comments at its beginning are about the template.
    template = "".join(line for line in template.splitlines(keepends=True) if not line.startswith("#"))
    return string.Template(template).substitute({name: json.dumps(value) for name, value in values.items()})


def command(options: argparse.Namespace) -> list[str]:
    """The words that each pod runs; on GKE, the processes of a command find one another by themselves."""
    found = COMMANDS.get(options.command[0])
    several = found is not None and "coordinator_address" in found.flags
    return ["lmirl", *options.command, *(["--coordinator_address=auto"] if several else [])]


def xpk(options: argparse.Namespace) -> list[str]:
    """The words of the XPK command that runs the same."""
    _, name, count = CHIPS[options.tpu]
    return [
        *("xpk", "workload", "create"),
        f"--workload={options.name}",
        f"--cluster={options.cluster}",
        f"--tpu-type={name}-{chip_count(options.topology) * count}",
        f"--num-slices={options.slices}",
        f"--max-restarts={options.restarts}",
        f"--docker-image={options.image}",
        f"--command={shlex.join(command(options))}",
    ]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--name", required=True, help="the JobSet's: small letters, digits and hyphens")
    parser.add_argument(
        "--image", required=True, help="of launch/docker/, in a registry that the cluster reads"
    )
    parser.add_argument("--tpu", required=True, choices=CHIPS)
    parser.add_argument("--topology", required=True, help="of one slice, such as 16x16")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--restarts", type=int, default=10, help="after preemptions and failures (10)")
    parser.add_argument("--spot", action="store_true", help="on nodes that may be preempted")
    parser.add_argument("--queue", help="the LocalQueue of Kueue, where the cluster has one")
    parser.add_argument("--cluster", help="print the line of XPK for this cluster instead of running kubectl")
    parser.add_argument("--dry_run", action="store_true", help="print the JobSet and run nothing")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="a command of lmirl with its own flags")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", options.name):
        parser.error(
            f"--name={options.name}: use at most 40 small letters, digits and hyphens, a letter first"
        )
    try:
        chips = chip_count(options.topology)
    except argparse.ArgumentTypeError as error:
        parser.error(f"--topology={error}")
    sides = 3 if options.tpu in ("v4", "v5p") else 2
    if options.topology.count("x") != sides - 1 or (chips > CHIPS_PER_HOST and chips % CHIPS_PER_HOST):
        parser.error(
            f"--topology={options.topology}: a {options.tpu} slice has {sides} sides and whole hosts of {CHIPS_PER_HOST}"
        )
    if min(options.slices, options.restarts + 1) < 1:
        parser.error("--slices must be 1 or more, and --restarts 0 or more")
    if not options.command:
        parser.error("a command of lmirl is missing: end with train --gin_file=... and so on")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.cluster:
        print(shlex.join(xpk(options)))
        return 0
    text = manifest(options)
    if options.dry_run:
        print(text, end="")
        return 0
    return subprocess.run(["kubectl", "apply", "--filename=-"], input=text, text=True, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
