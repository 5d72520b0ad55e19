"""What safetensors and msgpack wrote comes back equal, and trees of any form are refused in one line."""

import os

import numpy as np
from etils import epath
from flax import serialization
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from lmirl_jax.interop.safetensors_files import read_file, tensors_of
from lmirl_jax.interop.t5x_files import MsgpackTensors
from lmirl_jax.types import UserError

# A fixed budget in CI; more by hand, as in LMIRL_FUZZ_EXAMPLES=20000.
fuzzed = settings(
    max_examples=int(os.environ.get("LMIRL_FUZZ_EXAMPLES", "100")),
    deadline=None,
    derandomize="LMIRL_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
NAME = st.text(st.sampled_from("abé._0 "), min_size=1, max_size=5)
ARRAYS = st.tuples(st.lists(st.integers(1, 3), max_size=3), st.sampled_from(["float32", "float16"])).map(
    lambda of: np.arange(np.prod(of[0]), dtype=of[1]).reshape(of[0])
)


@fuzzed
@given(st.dictionaries(NAME.filter(lambda name: name != "__metadata__"), ARRAYS, min_size=1, max_size=4))
def test_tensors_that_the_library_wrote_are_read_back(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    save_file(tensors, path)
    found = tensors_of(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype.name)
        read = read_file(path, name, tuple(slice(0, size) for size in value.shape))
        np.testing.assert_array_equal(read, value)


TREES = st.recursive(ARRAYS, lambda inner: st.dictionaries(NAME, inner, min_size=1, max_size=3), max_leaves=6)


@fuzzed
@given(st.dictionaries(NAME, TREES, min_size=1, max_size=3))
def test_a_tree_that_msgpack_wrote_is_read_back(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("file") / "checkpoint"
    path.write_bytes(serialization.msgpack_serialize({"version": 3, "optimizer": {"target": tree}}))
    source = MsgpackTensors(epath.Path(path))
    expected = {}

    def add(prefix, value):
        if isinstance(value, dict):
            for name, inner in value.items():
                add([*prefix, name], inner)
        else:
            expected["/".join(prefix)] = value

    add([], tree)
    assert source.tensors().keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(source.read(name, tuple(slice(0, size) for size in value.shape)), value)


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats()
    | NAME
    | st.binary(max_size=3)
    | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            NAME | st.sampled_from(["driver", "kvstore", "metadata", "path"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@fuzzed
@given(ANY, st.sampled_from([3, None, "3", -1, 2**40]), st.booleans())
def test_a_tree_of_any_values_is_read_or_refused(tmp_path_factory, tree, version, whole):
    path = tmp_path_factory.mktemp("file") / "checkpoint"
    content = {"version": version, "optimizer": {"target": tree}} if whole else tree
    path.write_bytes(serialization.msgpack_serialize(content))
    try:
        found = MsgpackTensors(epath.Path(path)).tensors()
    except UserError as error:
        assert len(str(error).splitlines()) == 1, repr(str(error))
    else:
        assert all(array.dtype in ("float32", "float16", "bfloat16") for array in found.values())
