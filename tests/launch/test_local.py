"""launch/local.sh around a stand-in for its environment: what it runs, from where, and when it would install."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ARGUMENTS = ["train", "--gin_file=a b.gin", "--gin.MODEL_DIR='/tmp/x y'", "", "*"]


@pytest.fixture
def checkout(repository, tmp_path) -> pathlib.Path:
    """A checkout in a path with spaces whose .venv is whole; its Python prints what it is called with."""
    root = tmp_path / "a clone, with spaces"
    shutil.copytree(repository / "launch", root / "launch")
    for name in ("setup.py", "constraints.txt", "pyproject.toml"):
        shutil.copy(repository / name, root / name)
    stand_in = root / ".venv" / "bin" / "python"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(
        "#!/usr/bin/env bash\n"
        f'if [[ $1 == -I ]]; then exec "{sys.executable}" "$@"; fi\n'
        'printf "<%s>" "$@"; printf "\\n%s\\n%s\\n" "$PWD" "${JAX_NUM_CPU_DEVICES:-}"; cat; exit "${CODE:-0}"\n'
    )
    stand_in.chmod(0o755)
    write_stamp(root)
    return root


def write_stamp(root: pathlib.Path, extras: str = "test") -> None:
    digest = hashlib.sha256(f"{root}\n{extras}\n{sys.version}\n".encode())
    for name in ("setup.py", "constraints.txt"):
        digest.update((root / name).read_bytes())
    (root / ".venv" / ".lmirl_installed").write_text(digest.hexdigest() + "\n")


def call(script: pathlib.Path, *arguments: str, cwd=None, text="", **environment: str):
    # Nor CI, with which everything that is not there would be installed again for each copy of the checkout.
    passing = ("CI", "JAX_", "PYTHON", "LMIRL")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(passing)}
    return subprocess.run(
        [script, *arguments],
        cwd=cwd,
        input=text,
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.e2e
def test_lmirl_gets_its_arguments_the_callers_folder_and_standard_input(checkout, tmp_path):
    done = call(checkout / "launch/local.sh", *ARGUMENTS, cwd=tmp_path, text="a line\n")
    called = "<-P><-m><lmirl_jax>" + "".join(f"<{argument}>" for argument in ARGUMENTS)
    assert done.stdout == f"{called}\n{tmp_path}\n\na line\n"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.e2e
def test_it_works_through_a_symbolic_link(checkout, tmp_path):
    link = tmp_path / "link.sh"
    link.symlink_to(checkout / "launch/local.sh")
    assert call(link, "doctor").stdout.startswith("<-P><-m><lmirl_jax><doctor>\n")


@pytest.mark.e2e
def test_exit_codes_pass(checkout):
    assert call(checkout / "launch/local.sh", "train", CODE="7").returncode == 7


@pytest.mark.e2e
def test_python_runs_in_the_callers_folder(checkout, tmp_path):
    done = call(checkout / "launch/local.sh", "python", "-c", "1", cwd=tmp_path)
    assert done.stdout.splitlines()[:2] == ["<-c><1>", str(tmp_path)]


@pytest.mark.e2e
def test_tests_run_in_the_checkout_with_its_settings(checkout, tmp_path):
    done = call(checkout / "launch/local.sh", "test", "-m", "not slow", cwd=tmp_path)
    settings = f"<-c><{checkout}/pyproject.toml><--rootdir><{checkout}>"
    assert done.stdout.splitlines()[:2] == [f"<-P><-m><pytest>{settings}<-m><not slow>", str(checkout)]


@pytest.mark.e2e
def test_devices_are_forced_for_one_process(checkout):
    done = call(checkout / "launch/local.sh", "--devices=8", "train")
    assert done.stdout.splitlines()[0] == "<-P><-m><lmirl_jax><train>"
    assert done.stdout.splitlines()[2] == "8"
    assert call(checkout / "launch/local.sh", "--devices", "8", "train").stdout == done.stdout


@pytest.mark.e2e
def test_processes_have_four_devices_each_where_nothing_is_said(checkout):
    done = call(checkout / "launch/local.sh", "--processes=2", "train", "--gin.A=1")
    assert done.stdout.splitlines()[0] == f"<-P><{checkout}/launch/processes.py><2><train><--gin.A=1>"
    assert done.stdout.splitlines()[2] == "4"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--processes=two", "train"], "--processes=two: write a number, --processes=4"),
        (["--devices"], "--devices needs a number: --devices=4"),
        (["--processes=2", "test"], "--processes is for commands of lmirl, not for test"),
    ],
)
def test_what_is_wrong_is_one_line(checkout, arguments, line):
    done = call(checkout / "launch/local.sh", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"local.sh: {line}\n")


@pytest.mark.e2e
def test_without_arguments_it_explains_itself(checkout):
    done = call(checkout / "launch/local.sh")
    assert done.returncode == 2
    assert done.stdout.startswith("usage: launch/local.sh")


@pytest.mark.e2e
def test_without_a_python_it_says_so(checkout, tmp_path):
    shutil.rmtree(checkout / ".venv")
    done = call(checkout / "launch/local.sh", "doctor", PYTHON=str(tmp_path / "none"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "is no Python 3.11 to 3.13" in done.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.e2e
@pytest.mark.parametrize("change", ["constraints.txt", "setup.py"])
def test_other_pins_are_installed_over_what_there_is(checkout, change):
    """The stand-in has no pip: the installation fails, and only what it had begun is taken back."""
    with (checkout / change).open("a") as file:
        file.write("# another\n")
    done = call(checkout / "launch/local.sh", "doctor", PIP_NO_INDEX="1")
    assert done.returncode == 1
    assert "local.sh: installing lmirl_jax" in done.stderr
    assert "the installation failed" in done.stderr
    assert (checkout / ".venv/bin/python").exists()
    assert not list((checkout / ".venv").glob(".lmirl_*"))


@pytest.mark.e2e
def test_an_interrupted_installation_starts_over(checkout, tmp_path):
    (checkout / ".venv/.lmirl_installed").unlink()
    (checkout / ".venv/.lmirl_installing").touch()
    done = call(checkout / "launch/local.sh", "doctor", PYTHON=str(tmp_path / "none"))
    assert done.returncode == 1
    assert not (checkout / ".venv/bin").exists()


@pytest.mark.e2e
def test_extras_are_part_of_what_is_installed(checkout):
    write_stamp(checkout, "test,tpu")
    done = call(checkout / "launch/local.sh", "doctor", LMIRL_EXTRAS="tpu")
    assert (done.returncode, done.stderr) == (0, "")


def test_continuous_integration_runs_the_same(repository):
    lines = (repository / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands == ['CI=true exec bash "$(dirname -- "${BASH_SOURCE[0]}")/../launch/local.sh" test']


@pytest.mark.e2e
def test_continuous_integration_gets_a_browser_where_there_is_none(checkout, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "readlink", "sha256sum", "cut", "cat", "timeout"):
        (tools / name).symlink_to(shutil.which(name))
    log = tmp_path / "log"
    (tools / "apt-get").write_text(f'#!/usr/bin/env bash\necho "$@" >>"{log}"\n[[ $2 != install ]]\n')
    (tools / "apt-get").chmod(0o755)
    others = {
        "LMIRL_PARITY_PYTHON": "one that is there",
        "LMIRL_BEAM_PYTHON": "another",
        "LMIRL_LIBTPU": "a folder",
    }
    given = {"PATH": str(tools), "CODE": "3", **others}
    done = call(checkout / "launch/local.sh", "test", "-q", CI="", **given)
    assert (done.returncode, done.stderr) == (3, "") and not log.exists()
    done = call(checkout / "launch/local.sh", "test", "-q", CI="true", **given)
    assert log.read_text() == "-qq update\n-qq install -y --no-install-recommends chromium\n"
    assert done.returncode == 3 and "chromium could not be installed" in done.stderr  # And the tests ran.
    (tools / "chromium").symlink_to(shutil.which("true"))
    assert call(checkout / "launch/local.sh", "test", CI="true", **given).stderr == ""
    # Nor does it keep the tests from running that other libraries cannot be installed.
    for name, what in (
        ("LMIRL_PARITY_PYTHON", "torch and transformers"),
        ("LMIRL_BEAM_PYTHON", "Apache Beam"),
        ("LMIRL_LIBTPU", "the TPU compiler"),
    ):
        offline = given | {name: "", "PIP_NO_INDEX": "1"}
        done = call(checkout / "launch/local.sh", "test", "-q", CI="true", **offline)
        assert done.returncode == 3
        assert f"{what} could not be installed: the tests that compare with it are skipped" in done.stderr
