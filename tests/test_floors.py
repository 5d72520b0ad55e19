"""Who may import whom (DESIGN: floors), read off the sources, and what a room may load, tried in a fresh Python."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "lmirl_jax"
TASKS = PACKAGE.parent / "tasks"
FLOORS = {
    "types": 0,
    "arguments": 1,
    "files": 1,
    "rows": 1,
    "soft_q": 2,
    "statistics": 2,
    "objectives": 2,
    "models": 2,
    "sharding": 2,
    "decoding": 3,
    "integrations": 3,
    "data": 3,
    "interop": 3,
    "checkpoints": 4,
    "evaluation": 4,
    "tasks": 5,  # Task files stand on data and on metrics: beside the house, not below any of its rooms.
    "configuration": 5,
    "training": 5,
    "online": 6,
    "labelled": 6,
    "runs": 6,
    "compilation": 7,
    "rewards": 7,
    "reports": 8,
    "exporting": 8,
    "language_model": 9,
    "cli": 10,
}
# Files that are part of another's room.
ROOMS = {
    "argument_rules": "arguments",
    "content_hashes": "files",
    "line_hashes": "files",
    "soft_q_blocked": "soft_q",
    "tiles": "soft_q",
    "configuration_errors": "configuration",
    "configuration_pretrained": "configuration",
    "configuration_records": "configuration",
    "configuration_values": "configuration",
    "locks": "files",
    "run_files": "runs",
    "__main__": "cli",
    "__init__": "types",
}
HEAVY = ("tensorflow", "tensorflow_datasets", "tensorflow_text", "seqio")
LIGHT_ROOMS = [room for room in FLOORS if room not in ("data", "tasks")]


def room_of(path: pathlib.Path) -> str:
    if path.is_relative_to(TASKS):
        return "tasks"
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return ROOMS.get(name, name)


def sources() -> list[pathlib.Path]:
    return sorted([*PACKAGE.rglob("*.py"), *TASKS.rglob("*.py")])


def imported(path: pathlib.Path) -> list[tuple[int, str]]:
    """Every module that a file imports, at its top or within a function: line and dotted name."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative imports hide the room"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def rooms() -> list[str]:
    return sorted({room_of(path) for path in sources()})


def test_every_room_has_a_floor():
    assert set(rooms()) <= set(FLOORS)


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.relative_to(PACKAGE.parent).as_posix())
def test_imports_go_down(path):
    room = room_of(path)
    for line, name in imported(path):
        where = f"{path}:{line}: {room} imports {name}"
        top, *rest = name.split(".")
        if top == "lmirl_jax" and rest and rest[0] != "__version__":
            other = ROOMS.get(rest[0], rest[0])
            assert other == room or FLOORS[other] < FLOORS[room], where
        if top == "gin":
            assert room in ("configuration", "cli"), where
        if top in HEAVY:
            assert room in ("data", "tasks"), where


def test_no_file_is_called_utils():
    assert not [path for path in sources() if "util" in path.stem]


@pytest.mark.e2e
def test_the_house_loads_no_tensorflow():
    """All rooms but data/ and tasks/, and every command's module, in one fresh process."""
    names = [f"lmirl_jax.{room}" for room in LIGHT_ROOMS if room in rooms()]
    names += [f"lmirl_jax.cli.{path.stem}" for path in sorted((PACKAGE / "cli").glob("[a-z]*.py"))]
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.e2e
def test_the_rooms_that_hold_no_data_need_neither_seqio_nor_grain():
    """A machine that only reads a model's rewards may lack the data libraries."""
    absent = [*HEAVY, "grain"]
    names = [
        f"lmirl_jax.{room}"
        for room in ("soft_q", "objectives", "models", "decoding", "checkpoints", "training")
    ]
    code = (
        f"import importlib, sys\nfor name in {absent}: sys.modules[name] = None\n"
        f"for name in {[name for name in names if name.split('.')[1] in rooms()]}: importlib.import_module(name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
