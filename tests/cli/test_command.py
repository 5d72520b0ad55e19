"""The command line: what it prints, its exit codes, its flags, and what it must not import to answer."""

import ast
import pathlib
import shlex
import subprocess
import sys

import jax
import pytest

from lmirl_jax import cli
from lmirl_jax.cli import commands, flags, processes
from lmirl_jax.training.signals import Stopped
from lmirl_jax.types import UserError

CLI = pathlib.Path(cli.__file__).parent
KNOWN = commands.COMMANDS["train"].flags


def lmirl(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    return code, *capsys.readouterr()


@pytest.mark.e2e
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["trian"],
        *([name, flag] for name in commands.COMMANDS for flag in ("--help", "--x")),
    ],
)
def test_help_and_usage_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom lmirl_jax import cli\n"
        f"cli.main({arguments})\n"
        "sys.exit(sum(name in sys.modules for name in ('jax', 'numpy', 'tensorflow', 'gin', 'orbax', 'etils')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


# Where a function imports, and why.
LOCAL_IMPORTS = {
    "doctor.py": "it names a library that is missing",
    "tasks.py": "the list of the bundled tasks needs no library",
}


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.name)
def test_imports_stand_at_the_top(path):
    tree = ast.parse(path.read_text())
    local = [
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert bool(local) == (path.name in LOCAL_IMPORTS), local


def test_the_modules_of_commands_do_not_import_one_another_in_a_circle():
    imports = {}
    for path in CLI.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        given = [node for node in nodes if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in given for alias in node.names}
        imports[path.stem] = {
            other.stem
            for other in CLI.glob("[a-z]*.py")
            if any(f"{name}.".startswith(f"lmirl_jax.cli.{other.stem}.") for name in names)
        }

    def reached(name, seen=()):
        for other in imports[name]:
            assert other not in (name, *seen), f"{other} is imported by what it imports: {(*seen, name)}"
            reached(other, (*seen, name))

    for name in imports:
        reached(name)


@pytest.mark.e2e
def test_the_doctor_answers_where_jax_is_missing(tmp_path):
    code = (
        "import sys\nsys.modules['jax'] = None\nfrom lmirl_jax import cli\n"
        "sys.exit(cli.main(['doctor', '--gin_file=gin/runs/finetune.gin']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "training cannot run here" in done.stdout, done.stderr
    assert "missing: devices: JAX starts none" in done.stdout


def test_help_lists_every_command_and_flag(capsys):
    code, out, err = lmirl(capsys, "--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in commands.COMMANDS)
    code, out, _ = lmirl(capsys, "train", "--gin_file=x", "--help")
    assert code == 0
    assert all(f"--{name}=" in out for name in KNOWN)
    assert "examples:" in out


def test_without_arguments_it_prints_help_and_fails(capsys):
    code, out, _ = lmirl(capsys)
    assert code == 2
    assert out.startswith("lmirl: fine-tune")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["train", "--gin_fil=x"], "unknown flag '--gin_fil=x'; did you mean --gin_file?"),
        (["train", "--MODEL_DIR=x"], "unknown flag '--MODEL_DIR=x'; did you mean --gin.MODEL_DIR=x?"),
        (["train", "run.gin"], "unexpected argument 'run.gin': flags begin with --"),
        (["train", "--gin_file"], "--gin_file needs a value: --gin_file=FILE"),
        (["train", "--gin_file", "--gin.A=1"], "--gin_file needs a value: --gin_file=FILE"),
        (["train", "--gin.A="], "--gin.A needs a value: --gin.A=VALUE"),
        (["train", "--process_count=two"], "--process_count=two: needs a whole number: --process_count=N"),
        (["doctor", "now"], "unexpected argument 'now': flags begin with --"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(capsys, arguments, line):
    assert lmirl(capsys, *arguments) == (2, "", f"lmirl: {line}\n")


def test_flags_are_read_in_both_forms():
    line = (
        "--gin_file=a.gin --gin_file b.gin --gin.A='x=y' --gin.f.b 3 --gin_search_paths=p,q --alsologtostderr"
    )
    more = ["--gin_bindings=C = 1", "--tfds_data_dir", "/data", "--process_count=2"]
    read = flags.parse([*line.split(), *more], KNOWN)
    assert read == flags.Flags(
        gin_file=["a.gin", "b.gin"],
        gin_bindings=["A = 'x=y'", "f.b = 3", "C = 1"],
        gin_search_paths=["p", "q"],
        tfds_data_dir="/data",
        process_count=2,
    )


def test_a_negative_value_is_a_value():
    assert flags.parse(["--gin.A", "-1"], KNOWN).gin_bindings == ["A = -1"]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("no such thing\n  In call to configurable 'train'"), 1, "lmirl: no such thing\n"),
        (KeyboardInterrupt(), 130, "lmirl: interrupted\n"),
        (Stopped("stopped at step 3", 75), 75, "lmirl: stopped at step 3\n"),
        (flags.UsageError("say more"), 2, "lmirl: say more\n"),
    ],
)
def test_errors_become_one_line_and_a_code(capsys, monkeypatch, error, code, line):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert lmirl(capsys, "train") == (code, "", line)


def test_a_lost_process_is_told_in_one_line(capsys, monkeypatch):
    """JAX then names it, as this process ends. Of one process, the same error is a bug."""

    def fail(arguments):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer")

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(jax.errors.JaxRuntimeError):
        cli.main(["train"])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    code, _, err = lmirl(capsys, "train")
    assert code == 1 and err.startswith(
        "lmirl: another process of this run has ended or hangs (UNKNOWN: Gloo"
    )
    assert err.count("\n") == 1


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli, "_dispatch", lambda arguments: [][0])
    with pytest.raises(IndexError):
        cli.main(["train"])


@pytest.mark.e2e
def test_a_closed_pipe_is_quiet():
    command = f"{shlex.quote(sys.executable)} -m lmirl_jax train --help | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_one_process_joins_nothing(monkeypatch):
    monkeypatch.setattr("jax.distributed.initialize", lambda **_: pytest.fail("called"))
    processes.initialize_distributed(flags.Flags())


def test_several_processes_are_joined_as_the_flags_say(monkeypatch):
    calls = []
    monkeypatch.setattr("jax.distributed.initialize", lambda **arguments: calls.append(arguments))
    processes.initialize_distributed(flags.Flags(coordinator_address="h:1", process_count=2, process_index=1))
    processes.initialize_distributed(flags.Flags(coordinator_address="auto", initialization_timeout=9))
    waits = {"heartbeat_timeout_seconds": 30, "shutdown_timeout_seconds": 86400}
    assert calls == [
        {**waits, "coordinator_address": "h:1", "num_processes": 2, "process_id": 1},
        {**waits, "initialization_timeout": 9},
    ]


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (
            {"process_count": 2},
            "a run of several processes also needs --coordinator_address and --process_index",
        ),
        (
            {"coordinator_address": "h:1", "process_count": 2, "process_index": 2},
            "--process_index=2 must be below --process_count=2: count from 0",
        ),
        (
            {"coordinator_address": "h", "process_count": 2, "process_index": 0},
            "--coordinator_address=h has no port: write HOST:PORT",
        ),
    ],
)
def test_flags_of_processes_that_do_not_fit(given, line):
    with pytest.raises(flags.UsageError) as caught:
        processes.initialize_distributed(flags.Flags(**given))
    assert str(caught.value) == line


def test_processes_that_do_not_find_one_another_are_one_line(monkeypatch):
    def fail(**_):
        raise RuntimeError("deadline\nexceeded")

    monkeypatch.setattr("jax.distributed.initialize", fail)
    with pytest.raises(UserError, match="did not find one another: deadline exceeded"):
        processes.initialize_distributed(
            flags.Flags(coordinator_address="h:1", process_count=1, process_index=0)
        )
