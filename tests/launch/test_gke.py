"""launch/gke/jobset.py: the JobSet that it hands to kubectl, against JobSet's own schema, and the line of XPK."""

import shlex
import subprocess
import sys

import pytest
import yaml

pytestmark = pytest.mark.e2e

NAMED = ["--name=run", "--image=registry/lmirl:tpu", "--tpu=v5e", "--topology=16x16"]
COMMAND = [
    "train",
    "--gin_file=gin/runs/finetune.gin",
    "--gin.MODEL_DIR='gs://b/a run'",
    "--gin.L={'inputs': 64, '$x': 8}",
]
# The names and types of these fields in the CustomResourceDefinition of JobSet v1alpha2 (config/components/crd of its sources),
# and those of a Job and a Pod within it; a list has items of one type, and a type alone as a key stands for any name.
CONTAINER = {
    "name": str,
    "image": str,
    "command": [str],
    "ports": [{"containerPort": int}],
    "securityContext": {"privileged": bool},
    "resources": {"limits": {str: int}},
}
POD = {
    "restartPolicy": str,
    "terminationGracePeriodSeconds": int,
    "hostNetwork": bool,
    "dnsPolicy": str,
    "nodeSelector": {str: str},
    "containers": [CONTAINER],
}
JOB = {
    "backoffLimit": int,
    "completionMode": str,
    "completions": int,
    "parallelism": int,
    "template": {"spec": POD},
}
JOBSET = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "labels": {str: str}, "annotations": {str: str}},
    "spec": {
        "failurePolicy": {"maxRestarts": int},
        "replicatedJobs": [{"name": str, "replicas": int, "template": {"spec": JOB}}],
    },
}


def check(value, schema, path="") -> None:
    if isinstance(schema, dict):
        assert isinstance(value, dict), path
        for name, inner in value.items():
            assert name in schema or str in schema, f"{path}/{name} is no field"
            check(inner, schema.get(name, schema.get(str)), f"{path}/{name}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, path
        for inner in value:
            check(inner, schema[0], path)
    else:
        assert type(value) is schema, f"{path} is {value!r}"


def launch(repository, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, repository / "launch/gke/jobset.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def jobset(repository, *arguments: str) -> dict:
    done = launch(repository, "--dry_run", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return yaml.safe_load(done.stdout)


def job(found: dict) -> dict:
    return found["spec"]["replicatedJobs"][0]["template"]["spec"]


def test_the_job_set_has_the_fields_of_its_schema_and_the_words_of_the_command(repository):
    found = jobset(repository, *NAMED, "--slices=2", "--spot", "--queue=mine", "--restarts=3", *COMMAND)
    check(found, JOBSET)
    assert (found["apiVersion"], found["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert found["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "mine"}
    assert found["spec"]["failurePolicy"] == {"maxRestarts": 3}
    (slices,) = found["spec"]["replicatedJobs"]
    assert slices["replicas"] == 2
    pod = job(found)["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "16x16",
        "cloud.google.com/gke-spot": "true",
    }
    (container,) = pod["containers"]
    assert container["command"] == ["lmirl", *COMMAND, "--coordinator_address=auto"]
    assert container["image"] == "registry/lmirl:tpu"


@pytest.mark.parametrize(
    ("tpu", "topology", "hosts", "chips_per_host", "xpk_type"),
    [
        ("v4", "4x4x4", 16, 4, "v4-128"),
        ("v5e", "16x16", 64, 4, "v5litepod-256"),
        ("v5e", "1x1", 1, 1, "v5litepod-1"),
        ("v5p", "8x8x16", 256, 4, "v5p-2048"),
        ("v6e", "2x4", 2, 4, "v6e-8"),
    ],
)
def test_each_host_of_a_slice_has_a_pod(repository, tpu, topology, hosts, chips_per_host, xpk_type):
    named = [*NAMED[:2], f"--tpu={tpu}", f"--topology={topology}"]
    found = job(jobset(repository, *named, *COMMAND))
    assert (found["completions"], found["parallelism"]) == (hosts, hosts)
    (container,) = found["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": chips_per_host}
    words = shlex.split(launch(repository, *named, "--cluster=c", "--slices=2", *COMMAND).stdout)
    assert words[:3] == ["xpk", "workload", "create"] and f"--tpu-type={xpk_type}" in words
    assert {"--workload=run", "--cluster=c", "--num-slices=2", "--docker-image=registry/lmirl:tpu"} <= set(
        words
    )
    inner = shlex.split(words[-1].removeprefix("--command="))
    assert inner == ["lmirl", *COMMAND, "--coordinator_address=auto"]


def test_a_command_of_one_process_is_left_as_it_is(repository):
    (container,) = job(jobset(repository, *NAMED, "doctor"))["template"]["spec"]["containers"]
    assert container["command"] == ["lmirl", "doctor"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([*NAMED[:3], "--topology=16", "train"], "--topology=16 is no topology"),
        ([*NAMED[:3], "--topology=4x4x4", "train"], "--topology=4x4x4: a v5e slice has 2 sides"),
        (
            [*NAMED[:3], "--topology=3x3", "train"],
            "--topology=3x3: a v5e slice has 2 sides and whole hosts of 4",
        ),
        (["--name=Run", *NAMED[1:], "train"], "--name=Run: use at most 40 small letters"),
        ([*NAMED[:2], "--tpu=v9", "--topology=2x2", "train"], "invalid choice: 'v9'"),
        ([*NAMED, "--slices=0", "train"], "--slices must be 1 or more"),
        (NAMED, "a command of lmirl is missing"),
    ],
)
def test_what_is_wrong_is_told(repository, arguments, line):
    done = launch(repository, "--dry_run", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr.splitlines()[-1]
