"""Every line that a wrong configuration gets, and that a run's own record is read back."""

import importlib
import pathlib
import sys
import textwrap

import gin
import pytest

from lmirl_jax import configuration
from lmirl_jax.types import UserError

FILE = """
    from __gin__ import dynamic_registration
    import house

    MODEL_DIR = %gin.REQUIRED
    TRAIN_STEPS = %gin.REQUIRED
    BATCH_SIZE = 8

    house.build:
        steps = %TRAIN_STEPS
        folder = %MODEL_DIR
        size = %BATCH_SIZE
        loss = @house.mle
    """
GIVEN = ["MODEL_DIR = '/tmp/run'", "TRAIN_STEPS = 3"]


@pytest.fixture(scope="module")
def house_module(tmp_path_factory):
    """A module to configure; made once, since gin keeps what it has registered."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "house.py").write_text(
        "def mle(x=1): return x\n"
        "def iqlearn(x=2): return x\n"
        "class Net:\n    def __init__(self, layers=2): self.layers = layers\n"
        "def build(steps, folder, size=1, loss=mle, net=None): return steps, folder, size, loss(), net\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("house")
        sys.modules.pop("house")


@pytest.fixture
def house(house_module, tmp_path, monkeypatch):
    """That module, and a gin file `run.gin` for it in the current folder."""
    write(tmp_path / "run.gin", FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield house_module
    gin.clear_config()


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))


def line_of(*args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        configuration.load(*args, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_files_then_bindings_configure_a_plain_function(house):
    configuration.load(["run.gin"], [*GIVEN, "BATCH_SIZE = 16"])
    assert configuration.with_configuration(house.build)() == (3, "/tmp/run", 16, 1, None)
    assert house.build(1, "x") == (1, "x", 1, 1, None)


def test_a_function_that_no_file_names_is_returned_as_it_is(house):
    configuration.load(["run.gin"], GIVEN)
    assert configuration.with_configuration(house.Net) is house.Net


def test_bindings_resolve_against_the_imports_of_the_files(house):
    configuration.load(
        ["run.gin"], [*GIVEN, "house.build.loss = @house.iqlearn", "house.build.net = @house.Net()"]
    )
    assert configuration.with_configuration(house.build)()[3] == 2
    configuration.load(["run.gin"], [*GIVEN, "build.size = 5"])  # The end of a registered name, as in T5X.
    assert configuration.with_configuration(house.build)()[2] == 5


def test_a_later_file_overrides_and_sees_its_own_imports(house):
    write(
        pathlib.Path("more.gin"),
        "from __gin__ import dynamic_registration\nimport house as h\nh.build.size = 4",
    )
    configuration.load(["run.gin", "more.gin"], GIVEN)
    assert configuration.with_configuration(house.build)()[2] == 4


def test_macros_are_read_and_references_resolved(house):
    configuration.load(["run.gin"], [*GIVEN, "BATCH_SIZE = %TRAIN_STEPS"])
    assert configuration.macro("MODEL_DIR") == "/tmp/run"
    assert configuration.macro("BATCH_SIZE") == 3
    assert configuration.macro("RANDOM_SEED", 7) == 7


def test_what_is_resolved_is_read_back_and_can_be_overridden(house):
    bindings = [*GIVEN, "house.build.net = @big/house.Net()", "big/house.Net.layers = 24"]
    configuration.load(["run.gin"], bindings)
    text = configuration.config_text()
    pathlib.Path("config.gin").write_text(text)
    configuration.load(["config.gin"])
    assert configuration.config_text() == text
    steps, folder, size, loss, net = configuration.with_configuration(house.build)()
    assert (steps, folder, size, loss, net.layers) == (3, "/tmp/run", 8, 1, 24)
    configuration.load(["config.gin"], ["BATCH_SIZE = 2", "house.build.loss = @house.iqlearn"])
    assert configuration.with_configuration(house.build)()[2:4] == (2, 2)


def test_search_paths_come_after_the_current_folder_and_before_the_bundled(house, tmp_path):
    write(tmp_path / "mine/extra.gin", "include 'gin/size.gin'")
    write(tmp_path / "mine/gin/size.gin", "BATCH_SIZE = 99")
    configuration.load(["run.gin", "extra.gin"], GIVEN, ["mine"])
    assert configuration.macro("BATCH_SIZE") == 99
    write(tmp_path / "gin/size.gin", "BATCH_SIZE = 98")
    configuration.load(["run.gin", "extra.gin"], GIVEN, ["mine"])
    assert configuration.macro("BATCH_SIZE") == 98


def test_bundled_files_are_found_from_any_folder(house):
    root = configuration.find_gin_root()
    assert all(name.startswith("gin/") and (root / name).is_file() for name in configuration.bundled_files())
    assert not (root / "gin/__init__.py").exists()


def test_one_load_leaves_nothing_to_the_next(house):
    configuration.load(["run.gin"], GIVEN, ["mine"])
    write(pathlib.Path("mine/late.gin"), "BATCH_SIZE = 1")
    assert "no gin file 'late.gin'" in line_of(["late.gin"])
    configuration.load([], [])
    assert configuration.macro("MODEL_DIR", None) is None


def test_a_missing_file_names_the_nearest(house, monkeypatch):
    monkeypatch.setattr(
        configuration, "bundled_files", lambda: ["gin/runs/finetune.gin", "gin/runs/eval.gin"]
    )
    assert line_of(["gin/runs/finetun.gin"]).endswith("did you mean 'gin/runs/finetune.gin'?")
    write(pathlib.Path("my.gin"), "\ninclude 'gin/runs/evil.gin'")
    line = line_of(["my.gin"])
    assert line.startswith("my.gin:2: no gin file 'gin/runs/evil.gin'")
    assert line.endswith("did you mean 'gin/runs/eval.gin'?")


def test_a_missing_include_in_an_importable_folder_gets_the_same_line(house):
    pathlib.Path("lib").mkdir()
    write(pathlib.Path("my.gin"), "include 'lib/none.gin'")
    assert line_of(["my.gin"]).startswith("my.gin:1: no gin file 'lib/none.gin'")


def test_syntax_errors_name_the_file_and_line(house):
    write(pathlib.Path("bad.gin"), "A = 1\nB = = 2\n")
    assert line_of(["bad.gin"]).startswith("bad.gin:2: ")
    write(pathlib.Path("open.gin"), "A = [1,\n")
    assert line_of(["open.gin"]).startswith("open.gin")
    write(pathlib.Path("outer.gin"), "C = 1\ninclude 'bad.gin'")
    assert line_of(["outer.gin"]).startswith("bad.gin:2: ")


def test_everything_unset_is_named_at_once_with_flags_to_copy(house):
    assert line_of(["run.gin"]) == (
        "the configuration leaves MODEL_DIR, TRAIN_STEPS unset: "
        "add for example --gin.MODEL_DIR=\"'/tmp/run'\" --gin.TRAIN_STEPS=1000"
    )
    assert "leaves BATCH unset" in line_of(["run.gin"], [*GIVEN, "house.build.size = %BATCH"])
    configuration.load(["run.gin"], complete=False)
    with pytest.raises(UserError, match="leaves MODEL_DIR unset"):
        configuration.require("MODEL_DIR", "BATCH_SIZE")


def test_required_parameters_are_named_too(house):
    write(
        pathlib.Path("p.gin"),
        "from __gin__ import dynamic_registration\nimport house\nhouse.Net.layers = %gin.REQUIRED",
    )
    assert line_of(["p.gin"]) == (
        "the configuration leaves house.Net.layers unset: add for example --gin.house.Net.layers=VALUE"
    )


def test_a_macro_that_nothing_sets_or_uses_is_an_error(house):
    line = line_of(["run.gin"], [*GIVEN, "BATCHSIZE = 4"])
    assert line.startswith("--gin.BATCHSIZE: no gin file sets or uses BATCHSIZE")
    assert line.endswith("did you mean 'BATCH_SIZE'?")
    configuration.load(["run.gin"], [*GIVEN, "house.build.size = %MINE", "MINE = 4"])


@pytest.mark.parametrize(
    ("binding", "end"),
    [
        (
            "house.build.stepz = 4",
            "--gin.house.build.stepz=4: house.build has no parameter 'stepz'; did you mean 'steps'?",
        ),
        ("house.bild.steps = 4", "'house.bild' does not exist; did you mean 'build'?"),
        ("hose.build.steps = 4", "no gin file imports 'hose'; did you mean 'house'?"),
        ("house.build.loss = @house.iqlern", "'house.iqlern' does not exist; did you mean 'iqlearn'?"),
        ("nonsense", "'nonsense' is no binding: write --gin.NAME=VALUE"),
    ],
)
def test_names_that_do_not_exist_on_the_command_line(house, binding, end):
    assert line_of(["run.gin"], [*GIVEN, binding]).endswith(end)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("house.build.stepz = 4", "bad.gin:3: house.build has no parameter 'stepz'; did you mean 'steps'?"),
        ("house.bild.steps = 4", "bad.gin:3: 'house.bild' does not exist; did you mean 'build'?"),
        ("hose.build.steps = 4", "bad.gin:3: no gin file imports 'hose'; did you mean 'house'?"),
        ("A = @house.iqlern", "bad.gin:3: 'house.iqlern' does not exist; did you mean 'iqlearn'?"),
    ],
)
def test_names_that_do_not_exist_in_a_file(house, text, end):
    write(pathlib.Path("bad.gin"), f"from __gin__ import dynamic_registration\nimport house\n{text}\n")
    assert line_of(["bad.gin"]) == end


def test_a_module_that_is_not_there(house):
    write(pathlib.Path("bad.gin"), "from __gin__ import dynamic_registration\nimport my_tazks\n")
    assert line_of(["bad.gin"]).startswith("bad.gin:2: No module named 'my_tazks': install it")


def test_a_bug_in_an_imported_module_keeps_its_traceback(house, tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('mine')\n")
    write(pathlib.Path("bad.gin"), "from __gin__ import dynamic_registration\nimport broken\n")
    with pytest.raises(ValueError, match="mine"):
        configuration.load(["bad.gin"])


@pytest.mark.parametrize(
    ("binding", "flag"),
    [
        ("MODEL_DIR = /tmp/run", "--gin.MODEL_DIR=\"'/tmp/run'\""),
        ("MODEL_DIR = gsm8k", "--gin.MODEL_DIR=\"'gsm8k'\""),
        ("MODEL_DIR = true", "write --gin.MODEL_DIR=True"),
        ("TRAIN_STEPS = 3x", "--gin.TRAIN_STEPS=\"'3x'\""),
        ("TRAIN_STEPS = [1, 2", "check its quotes and brackets"),
        ("MODEL_DIR = '/tmp", "check its quotes and brackets"),
    ],
)
def test_a_value_that_gin_cannot_read_gets_the_mended_flag(house, binding, flag):
    line = line_of(["run.gin"], [*GIVEN, binding])
    assert "gin cannot read this value" in line
    assert line.endswith(flag)


def test_equals_signs_inside_values_survive(house):
    configuration.load(["run.gin"], ["MODEL_DIR = '/tmp/a=b'", "TRAIN_STEPS = 1"])
    assert configuration.macro("MODEL_DIR") == "/tmp/a=b"


@pytest.mark.parametrize("included", [False, True])
def test_a_gin_file_that_is_not_utf8_is_one_line(tmp_path, monkeypatch, included):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.gin").write_bytes("A = 1\nB = 'Größe'\n".encode("latin-1"))
    (tmp_path / "outer.gin").write_text("include 'latin.gin'\n")
    with pytest.raises(UserError) as raised:
        configuration.load(["outer.gin" if included else "latin.gin"], complete=False)
    first = str(raised.value).splitlines()[0]  # What the command prints.
    assert first == "latin.gin:2: not UTF-8 (invalid start byte): save the file as UTF-8"


def test_a_gin_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "marked.gin").write_bytes("BATCH_SIZE = 7\n".encode("utf-8-sig"))
    configuration.load([str(tmp_path / "marked.gin")], complete=False)
    assert configuration.macro("BATCH_SIZE") == 7


@pytest.mark.parametrize(
    "part",
    ["models/t5_1_1/tiny", "objectives/mle", "meshes/fsdp", "adapters/lora", "optimizers/adafactor_t5"],
)
def test_a_runs_file_comes_before_its_parts(part):
    """In the other order the run's own model, objective or mesh would replace it, without a word."""
    files = ["gin/runs/finetune.gin", f"gin/{part}.gin"]
    configuration.load(files, complete=False)
    with pytest.raises(
        UserError, match=rf"finetune.gin comes after \S*{part}.gin, .* give the run's file first"
    ):
        configuration.load(files[::-1], complete=False)
