"""What a bad checkpoint is told in: one line, from each way to load it, and a folder that stays as it was."""

import json
import os
import pathlib
import shutil
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from etils import epath

import lmirl_jax
from lmirl_jax import interop
from lmirl_jax.cli import doctor, flags
from lmirl_jax.types import UserError

GOLDEN = pathlib.Path(__file__).resolve().parent / "golden"
LONGEST_LINE = 700
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def copy_of(family: str, folder: pathlib.Path) -> pathlib.Path:
    """A copy of a golden checkpoint, to damage."""
    shutil.copytree(GOLDEN / family, folder, ignore=shutil.ignore_patterns("expected.npz"))
    return folder


def refusal(path: pathlib.Path, capsys, opens: bool = False) -> str:
    """The one line in which a checkpoint is refused.

    Args:
        path: the checkpoint.
        capsys: pytest's.
        opens: whether the checkpoint itself is whole, and what comes with it is at fault.
    """
    before = contents(path)
    line = one_line(path)
    if os.path.exists(path) and interop.kind_of(epath.Path(path)) is not None and not opens:
        with pytest.raises(UserError) as opened:
            interop.open_pretrained(epath.Path(path))
        assert str(opened.value) == line
    capsys.readouterr()
    assert doctor.main(flags.Flags(checkpoint=str(path))) == 1
    told, verdict = capsys.readouterr().out.strip("\n").split("\n\n")[-1].split("\n")
    assert verdict == "it cannot be loaded"
    assert opens or told == line
    assert contents(path) == before
    return line


def one_line(path: pathlib.Path) -> str:
    """The line in which `lmirl_jax.load` refuses a checkpoint."""
    with pytest.raises(UserError) as loaded:
        lmirl_jax.load(path)
    line = str(loaded.value)
    assert "\n" not in line and len(line) < LONGEST_LINE + 2 * len(str(path)), line
    return line


def contents(path: pathlib.Path) -> dict[str, bytes | None]:
    """Every file and folder below a path."""
    below = path.rglob("*") if os.path.isdir(path) else [path]
    found = [each for each in below if os.path.exists(each)]
    return {str(each): each.read_bytes() if each.is_file() else None for each in found}


def edit_json(path: pathlib.Path, change: Callable[[Any], Any]) -> None:
    """Replaces the content of a JSON file by what a function makes of it, or changes in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    changed = change(value)
    path.write_text(json.dumps(value if changed is None else changed), encoding="utf-8")


def read_safetensors(path: pathlib.Path) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file, and its data."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_safetensors(path: pathlib.Path, header: Any, data: bytes) -> None:
    """Writes a safetensors file with any header, also one that is wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def edit_header(path: pathlib.Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the header of a safetensors file in place, and leaves its data."""
    header, data = read_safetensors(path)
    change(header)
    write_safetensors(path, header, data)


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file of float32."""
    header, data = read_safetensors(path)
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(data[slice(*info["data_offsets"])], np.float32).reshape(info["shape"])
        for name, info in header.items()
    }


def write_tensors(path: pathlib.Path, tensors: dict[str, np.ndarray], dtypes: dict[str, str] | None = None):
    """Writes tensors of any types as a safetensors file; `dtypes` names those that numpy has not."""
    header, data = {}, b""
    types = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64", "int8": "I8"}
    for name, value in tensors.items():
        raw = np.ascontiguousarray(value).tobytes()
        dtype = (dtypes or {}).get(name) or types[value.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(value.shape)}
        header[name]["data_offsets"] = [len(data), len(data) + len(raw)]
        data += raw
    write_safetensors(path, header, data)


def shard(folder: pathlib.Path, files: int = 2) -> dict[str, str]:
    """Spreads the tensors of a folder over several files with an index; returns its weight_map."""
    tensors = read_tensors(folder / WEIGHTS)
    names = sorted(tensors)
    weight_map = {}
    for number in range(files):
        file = f"model-{number + 1:05}-of-{files:05}.safetensors"
        mine = names[number::files]
        write_tensors(folder / file, {name: tensors[name] for name in mine})
        weight_map |= dict.fromkeys(mine, file)
    (folder / WEIGHTS).unlink()
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map
