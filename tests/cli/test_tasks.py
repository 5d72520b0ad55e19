"""`lmirl tasks`: the list, which is that of SeqIO's registry, and the report on a task or a file."""

import json
import subprocess
import sys

import pytest
import seqio

from lmirl_jax import cli, data
from lmirl_jax.cli import task_list
from lmirl_jax.data.registered_tasks import registered_tasks
from lmirl_jax.tasks import (  # noqa: F401
    gsm8k,
    multi30k_en_de,
    number_paths,
    number_paths_large,
    operation_chains,
    scitldr,
    tldr,
    wmt22_en_de,
    xsum,
)


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Runs in an empty folder, with an empty cache and SeqIO's registries as they were, and without TFDS data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    data.set_tfds_data_dir(str(tmp_path))
    tasks, mixtures = set(seqio.TaskRegistry.names()), set(seqio.MixtureRegistry.names())
    yield
    data.set_tfds_data_dir(None)
    for name in set(seqio.MixtureRegistry.names()) - mixtures:
        seqio.MixtureRegistry.remove(name)
    for name in set(seqio.TaskRegistry.names()) - tasks:
        seqio.TaskRegistry.remove(name)


def lmirl(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["tasks", *arguments])
    return code, *capsys.readouterr()


def test_the_list_says_what_the_registry_does(repository):
    listed, registered = task_list.bundled_tasks(), registered_tasks()
    files = {path.stem for path in (repository / "tasks").glob("*.py")}
    assert files - {"gsm8k_calculator"} <= set(listed)
    for name, (splits, source, about) in listed.items():
        assert splits == registered[name][0] and about
        if registered[name][1].startswith("TFDS"):
            assert source == registered[name][1]


@pytest.mark.e2e
def test_the_list_needs_no_library():
    heavy = ("jax", "numpy", "tensorflow", "gin", "seqio")
    code = (
        "import sys\nfrom lmirl_jax import cli\ncode = cli.main(['tasks'])\n"
        f"sys.exit(code or sum(name in sys.modules for name in {heavy}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(None, 1) for line in done.stdout.split("\n\n")[0].splitlines())
    assert rows["xsum"].split("  ")[0] == "train, validation, test"
    assert rows["wmt22_en_de"].endswith("English to German, tested on WMT22")


MODULE = '''"""Lines that are copied."""
import seqio

text = seqio.Feature(seqio.ByteVocabulary())
seqio.TaskRegistry.add(
    "copied_lines",
    source=seqio.TextLineDataSource(split_to_filepattern={"train": "lines.txt"}),
    preprocessors=[
        lambda ds: ds.map(lambda line: {"inputs": line, "targets": line}),
        seqio.preprocessors.tokenize,
        seqio.preprocessors.append_eos,
    ],
    output_features={"inputs": text, "targets": text},
)
seqio.MixtureRegistry.add("copies", [("copied_lines", 2.0)])
'''


@pytest.mark.parametrize("way", ["import", "gin_file"])
def test_tasks_of_the_user(capsys, tmp_path, way):
    module = f"tasks_by_{way}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    (tmp_path / "my.gin").write_text(f"from __gin__ import dynamic_registration\nimport {module}\n")
    code, out, _ = lmirl(capsys, f"--{way}={module if way == 'import' else 'my.gin'}")
    rows = {line.split()[0]: line.split(None, 1)[1] for line in out.split("\n\n")[0].splitlines()}
    assert code == 0
    assert "TextLineDataSource" in rows["copied_lines"] and rows["copied_lines"].endswith(
        "Lines that are copied."
    )
    assert rows["copies"].endswith("mixture of copied_lines (2)")
    assert rows["gsm8k"].startswith("train, validation, test")


def test_a_file(capsys, tmp_path):
    """Lengths, truncation, an unread key and the suggestion, worked out by hand: bytes, and EOS after them."""
    rows = [{"inputs": "a" * n, "targets": "é\n" * (n % 3), "note": 1} for n in range(1, 201)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lengths = "--gin.TASK_FEATURE_LENGTHS={'inputs': 200, 'targets': 6}"
    code, out, _ = lmirl(capsys, "show", "--gin.DATA='my.jsonl'", lengths, "--num_examples=1")
    assert code == 0
    assert "my, train: 200 examples; metrics: exact_match" in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    # The texts have 2 to 201 tokens; half of the examples have 101 or fewer.
    assert lines[2] == "inputs 101 181 191 199 201 1 (0.5%) at TASK_FEATURE_LENGTHS of 200"
    # 1, 4 or 7 tokens: 66, 67 and 67 examples.
    assert lines[3] == "targets 4 7 7 7 7 67 (33.5%) at TASK_FEATURE_LENGTHS of 6"
    assert "  vocabulary: it holds all texts\n" in out and "'note' (200 of 200)" in out
    assert "    targets (4 tokens)\n      é\n      \n" in out
    assert out.count("example ") == 1
    *_, first, _, second = out.splitlines()[-4:]
    assert first == "  --gin.TASK_FEATURE_LENGTHS=\"{'inputs': 200, 'targets': 8}\""
    assert second == "  --gin.TASK_FEATURE_LENGTHS=\"{'inputs': 201, 'targets': 7}\""


def test_a_task_with_several_references_and_an_absent_split(capsys, tmp_path):
    folder = tmp_path / "scitldr"
    folder.mkdir()
    for name in ("dev", "test"):
        (folder / f"{name}.jsonl").write_text('{"source": ["Long."], "target": ["One.", "Two."]}\n')
    code, out, err = lmirl(capsys, "show", "scitldr", f"--tfds_data_dir={tmp_path}")
    assert code == 1
    assert err.endswith("lmirl: not all could be read: scitldr, train (the reason is above)\n")
    assert "scitldr, validation: 1 examples; metrics: rouge" in out
    assert out.count("    targets (5 tokens)\n      One.\n    reference 2\n      Two.\n") == 2
    assert "scitldr, train: cannot be read: no file train.jsonl" in out


def test_what_the_vocabulary_loses(capsys, tmp_path, words_model):
    (tmp_path / "lossy.jsonl").write_text(
        '{"inputs": "a", "targets": "if a < x"}\n{"inputs": "a", "targets": "x"}\n'
    )
    code, out, _ = lmirl(capsys, "show", "--gin.DATA='lossy.jsonl'", f"--gin.VOCABULARY_PATH='{words_model}'")
    assert code == 0 and "  vocabulary: 1 of 2 targets hold characters that the vocabulary lacks" in out


def test_a_long_text_is_cut(capsys, tmp_path):
    (tmp_path / "my.jsonl").write_text(json.dumps({"inputs": "x" * 1001, "targets": "x" * 1000}) + "\n")
    _, out, _ = lmirl(capsys, "show", "--gin.DATA='my.jsonl'")
    assert f"      {'x' * 1000}… (1,001 characters)\n" in out and f"      {'x' * 1000}\n" in out


def test_a_chat_is_shown_as_its_template_writes_it(capsys, tmp_path, shared_data):
    turns = [{"role": role, "content": text} for role, text in (("user", "Hi?"), ("assistant", "Yes"))]
    (tmp_path / "my.jsonl").write_text(json.dumps({"messages": [*turns, *turns]}) + "\n")
    folder = shared_data / "checkpoints" / "smollm2_135m_instruct"
    _, out, _ = lmirl(capsys, "show", "--gin.DATA='my.jsonl'", f"--gin.VOCABULARY_PATH='{folder}'")
    shown = out.replace("\n      ", "\n")
    assert (
        "<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n<|im_start|>user\nHi?"
        in shown
    )


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["shwo"], 2, "unexpected argument 'shwo'; did you mean lmirl tasks show NAME?"),
        (["gsm8"], 2, "unexpected argument 'gsm8'; did you mean lmirl tasks show gsm8k?"),
        (["qqqq"], 2, "unexpected argument 'qqqq'; write lmirl tasks, or lmirl tasks show NAME"),
        (["show"], 2, "no task to show: write lmirl tasks show NAME (lmirl tasks lists them), or "),
        (["show", "a", "b"], 2, "unexpected argument 'b': flags begin with --"),
        (["show", "gsm8"], 1, "no task or mixture named 'gsm8': did you mean 'gsm8k'?"),
        (["show", "gsm8k"], 1, "task gsm8k: no TFDS data set gsm8k:1.0.0 in "),
        (
            ["show", "number_paths", "--split=tain"],
            1,
            "number_paths has no split 'tain'; did you mean --split=train?",
        ),
        (["show", "--gin.DATA='x.jsonl'"], 1, "no file at x.jsonl"),
        (["--import=no_tasks"], 1, "--import=no_tasks: there is no module no_tasks; it must lie in"),
        (["--split=train"], 2, "--split is for lmirl tasks show NAME; the list has no use for it"),
        (["--num_examples=0"], 2, "--num_examples is for lmirl tasks show NAME"),
        (["--gin.DATA='x.jsonl'"], 2, "--gin.NAME=VALUE is for lmirl tasks show, or for a --gin_file"),
        (["--num_examples=x"], 2, "--num_examples=x: needs a whole number: --num_examples=N"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, code, line):
    found, out, err = lmirl(capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith(f"lmirl: {line}") and err.count("\n") == 1


def test_an_error_within_a_module_of_the_user_keeps_its_traceback(tmp_path):
    (tmp_path / "broken_tasks.py").write_text("import a_library_that_is_missing\n")
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_missing"):
        cli.main(["tasks", "--import=broken_tasks"])
