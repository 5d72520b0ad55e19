"""`lmirl compile`: what it reads, prints and refuses; CPU devices stand in for a slice."""

import json

import jax
import pytest

from lmirl_jax import cli, compilation, online, training
from lmirl_jax.cli import commands, compile_settings
from lmirl_jax.cli import flags as flag_parsing

RUN = [
    "--gin_file=gin/runs/finetune.gin",
    "--gin_file=gin/models/t5_1_1/tiny.gin",
    "--gin_file=gin/meshes/fsdp_tensor.gin",
]
SMALL = [
    "--gin.VOCAB_SIZE=256",
    "--gin.BATCH_SIZE=4",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 8}",
    "--gin.EVAL_NUM_SAMPLES=1",
    "--gin.DROPOUT_RATE=0.0",
]


@pytest.fixture(autouse=True)
def slice_of_cpu_devices(monkeypatch):
    monkeypatch.setattr(compilation, "devices_of", lambda topology, num_slices=1: jax.devices()[:4])


def flags(*more: str) -> flag_parsing.Flags:
    known = commands.COMMANDS["compile"].flags
    return flag_parsing.parse([*RUN, *SMALL, "--topology=v5e:2x2", *more], known)


def run(capsys, *more: str) -> tuple[int, str, str]:
    code = cli.main(["compile", *more])
    return code, *capsys.readouterr()


def test_programs_of_each_objective():
    """Those of `lmirl train` with the same files, and no data, vocabulary or folder of a run."""
    devices = jax.devices()[:4]
    mle = compile_settings.read_programs(flags(), "mle", devices)
    assert isinstance(mle.learner, training.Offline) and mle.learner.objective.__name__ == "mle"
    assert [mle.setting.mesh.shape[axis] for axis in ("data", "fsdp", "tensor")] == [1, 2, 2]
    assert mle.data.batch().tokens.shape == (4, 8) and mle.setting.model.vocab_size == 256
    both = compile_settings.read_programs(flags("--gin.TD_WEIGHT=0.5"), "online_iqlearn", devices)
    assert isinstance(both.learner, online.OnlineIQLearn)
    assert both.learner.td_weight == 0.5 and both.learner.rollouts.rows == 4
    changed = compile_settings.read_programs(flags("--gin.NUM_MICROBATCHES=2"), None, devices)
    assert changed.setting.microbatches == 2 and changed.learner.objective.__name__ == "iqlearn"


def test_tables_and_json(capsys):
    code, out, err = run(capsys, *RUN, *SMALL, "--topology=v5e:2x2", "--objectives=iqlearn", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["chips"], set(found["programs"])) == (4, {"iqlearn", "sampler"})
    update = found["programs"]["iqlearn"]
    memory = update["memory"]
    assert (
        memory["peak"] == memory["arguments"] + memory["outputs"] - memory["aliased"] + memory["temporaries"]
    )
    assert update["step_seconds"] == max(update["seconds"].values())
    assert update["mfu_bound"] == update["model_flops"] / update["step_seconds"] / 197e12
    results = {"iqlearn": compilation.DoesNotFit("uses (31.50G) of (15.75G)", 2.0)}
    code, out, _ = run(capsys, *RUN, *SMALL, "--topology=v5e:2x2", "--objectives=iqlearn")
    assert code == 0 and "bound on MFU" in out and "all-gather over fsdp" in out
    from lmirl_jax.cli.compile_table import lines

    assert "iqlearn does not fit: uses (31.50G) of (15.75G)" in lines(results)


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--topology=v5e:2x2"], 2, "no configuration"),
        (RUN, 2, "no topology"),
        ([*RUN, "--topology=v9:2x2"], 1, "unknown chip 'v9'"),
        ([*RUN, *SMALL, "--topology=v5e:2x2", "--objectives=mlee"], 1, "no objective 'mlee'; there are dft"),
        ([*RUN, "--topology=v5e:2x2"], 1, "VOCAB_SIZE is that of the task's vocabulary"),
        ([*RUN, *SMALL, "--gin.BATCH_SIZE=3", "--topology=v5e:2x2"], 1, "BATCH_SIZE=3 cannot be split"),
        (
            [*RUN, *SMALL, "--gin.sharding.make_mesh.tensor=3", "--topology=v5e:2x2"],
            1,
            "does not fit the 4 device",
        ),
    ],
    ids=["no files", "no topology", "chip", "objective", "vocabulary", "batch", "mesh"],
)
def test_wrong_invocations_are_one_line(capsys, more, code, words):
    found, out, err = run(capsys, *more)
    assert (found, out) == (code, "") and words in err and err.count("\n") == 1


def test_a_missing_compiler_is_one_line(capsys, monkeypatch):
    from lmirl_jax.compilation import topologies

    monkeypatch.setattr(topologies, "has_compiler", lambda: False)
    monkeypatch.setattr(compilation, "devices_of", topologies.devices_of)
    code, _, err = run(capsys, *RUN, *SMALL, "--topology=v5e:2x2")
    assert code == 1 and "pip install 'lmirl_jax[compile]'" in err and err.count("\n") == 1


def test_the_search_prints_what_it_tried(capsys, monkeypatch):
    from lmirl_jax.cli import compile as command

    monkeypatch.setattr(command, "MOST_TRIALS", 2)
    code, out, _ = run(capsys, *RUN, *SMALL, "--topology=v5e:2x2", "--objectives=mle", "--fit")
    first, second, *rest = out.splitlines()
    assert code == 0 and "--gin.BATCH_SIZE=4" in first and "--gin.BATCH_SIZE=8" in second
    assert any(line.startswith("best of 2: --gin.BATCH_SIZE=") for line in rest)
