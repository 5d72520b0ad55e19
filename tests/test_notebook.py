"""docs/rewards.ipynb runs as it stands, on tiny runs, and holds the outputs of its last run."""

import ast
import json

import matplotlib
import matplotlib.pyplot as plt
import pytest

from lmirl_jax.tasks import number_paths
from tests.fakes import make_run

PROMPTS = 12


@pytest.fixture(scope="module")
def notebook(repository):
    return json.loads((repository / "docs" / "rewards.ipynb").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def code_cells(notebook):
    return [
        ("".join(cell["source"]), cell["outputs"], cell["execution_count"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The two runs, made small, and their answers at temperature 1."""
    folder = tmp_path_factory.mktemp("notebook")
    for seed, name in enumerate(("mle", "iqlearn")):
        run = make_run(folder / "numbers" / name, seed=seed)
        (run / "eval").mkdir()
        lines = [_line(*example) for example in number_paths.examples("validation")[:PROMPTS]]
        (run / "eval" / "number_paths-000003-T1.jsonl").write_text("".join(lines), encoding="utf-8")
        (run / "eval" / "number_paths-000003-T1.25.jsonl").write_text("no answers at temperature 1\n")
    return folder


def _line(inputs: str, targets: str) -> str:
    wrong = [number_paths.with_wrong_sum(targets, step) for step in range(3)]
    return json.dumps({"inputs": inputs, "targets": targets, "samples": [targets, *wrong]}) + "\n"


def test_every_cell_runs(code_cells, folder, monkeypatch):
    shown = []

    def show() -> None:
        shown.append(len(plt.get_fignums()))
        plt.close("all")

    examples = number_paths.examples
    monkeypatch.setattr(number_paths, "examples", lambda split: examples(split)[:PROMPTS])
    monkeypatch.setattr(plt, "show", show)
    monkeypatch.chdir(folder)
    matplotlib.use("Agg")
    names: dict = {}
    for number, (source, outputs, _) in enumerate(code_cells, start=1):
        value = _run(source, names, f"cell {number}")
        if value is not None:
            assert "<iframe" in value._repr_html_() and any("text/html" in _types(one) for one in outputs)
    assert shown == [1] * sum("plt.show()" in source for source, _, _ in code_cells)
    assert {"iqlearn", "mle", "scores", "tested", "samples"} <= set(names)


def _run(source: str, names: dict, where: str):
    """Runs a cell, and returns what its last line shows, if it is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    return last and eval(compile(ast.Expression(last.value), where, "eval"), names)


def test_outputs_are_those_of_one_run_without_errors_or_noise(code_cells):
    assert [count for _, _, count in code_cells] == list(range(1, len(code_cells) + 1))
    for source, outputs, _ in code_cells:
        kinds = [(one["output_type"], one.get("name")) for one in outputs]
        assert not [kind for kind in kinds if kind[0] == "error" or kind[1] == "stderr"], source
        assert ("print(" in _top_level(source)) == (("stream", "stdout") in kinds), source
        assert ("plt.show()" in source) == any("image/png" in _types(one) for one in outputs), source


def test_it_names_no_place_of_the_machine_that_made_it(repository):
    text = (repository / "docs" / "rewards.ipynb").read_text(encoding="utf-8")
    assert not [word for word in ("/home/", "/root/", "site-packages", "0x7") if word in text]
    assert len(text) < 300_000


def _types(output: dict) -> list[str]:
    return list(output.get("data", ()))


def _top_level(source: str) -> str:
    """Without the functions, which show nothing until they are called."""
    body = [node for node in ast.parse(source).body if not isinstance(node, ast.FunctionDef)]
    return "\n".join(map(ast.unparse, body))
