"""README.md, CONTRIBUTING.md and docs/: their code blocks run, their links lead somewhere, their tables are true."""

import ast
import importlib
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from lmirl_jax import configuration
from lmirl_jax.cli import main
from tests.documents import COMMANDS, PAGES, ROOT, blocks, write_files
from tests.fakes import make_run

# Shell blocks that are not run here, by words in them, and why.
NOT_RUN = {
    "launch/local.sh quickstart": "minutes; tests/cli/test_quickstart.py runs it with few steps",
    "launch/local.sh test": "it would start these tests",
    "LMIRL_EXTRAS": "installs packages; tests/launch/test_local.py covers the script",
    "../shared/data": "needs data that lies beside the checkout",
    "launch/local.sh --devices": "tests/launch/test_local.py and tests/launch/test_processes.py cover both flags",
    "launch/tpu_vm.sh": "tests/launch/test_tpu_vm.py and tests/launch/test_processes.py cover both scripts",
    "--topology=": "needs the TPU compiler, for minutes; tests/cli/test_compile.py and tests/compilation/test_programs.py",
    "benchmarks/compile_table.py": "hours of compilation",
    "benchmarks/small_data.py": "an hour of training",
    "'mle_0'": "names runs that stand for a reader's own",
    "google/flan-t5": "needs the hub; tests/cli/test_pretrained.py trains from a folder, and tests/interop from a cache",
    "/models/SmolLM2": "needs the weights; tests/cli/test_smollm2.py does it where they can be had",
    "--beam=": "needs Beam and its cluster; tests/data/test_beam_preparation.py runs it where there is one",
    "runs/fill.gin": "an untrained inverse model fills no gap; tests/labelled/test_gaps.py",
    "WANDB_PROJECT": "needs an account; tests/training/test_metric_writers.py writes in the offline mode",
}
# With few steps and few answers.
FEW = {
    "train": ["TRAIN_STEPS=2", "EVAL_STEPS=1", "EVALUATOR_NUM_EXAMPLES=2", "EVAL_NUM_SAMPLES=2"],
    "eval": ["EVALUATOR_NUM_EXAMPLES=2", "NUM_SAMPLES=2", "TEMPERATURES=[1.0]"],
    "sweep": ["EVALUATOR_NUM_EXAMPLES=12", "NUM_SAMPLES=2", "TEMPERATURES=[0.5, 1.0]"],
    "report": ["EVALUATOR_NUM_EXAMPLES=12", "NUM_SAMPLES=2"],
    "infer": ["INFER_NUM_EXAMPLES=2"],
    "score": ["SCORE_NUM_EXAMPLES=20"],
}


def page_id(page: pathlib.Path) -> str:
    return page.relative_to(ROOT).as_posix()


def with_blocks(kind: str) -> list[pathlib.Path]:
    return [page for page in PAGES if any(getattr(block, kind) for block in blocks(page))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Holds the files that the pages define, and the two runs of rewards.md, made small."""
    folder = tmp_path_factory.mktemp("pages")
    write_files(folder)
    for seed, name in enumerate(("mle", "iqlearn")):
        make_run(folder / "numbers" / name, seed=seed)
    return folder


def run_python(source: str, names: dict, where: str) -> None:
    """Runs a block; an expression with a comment `# 79.7` after it must have that value, as far as it is written."""
    for node in ast.parse(source).body:
        text = ast.get_source_segment(source, node)
        assert text is not None
        if not isinstance(node, ast.Expr):
            exec(compile(text, where, "exec"), names)
            continue
        value = eval(compile(text, where, "eval"), names)
        stated = re.search(r"# (-?\d+(?:\.(\d+))?)$", source.splitlines()[node.end_lineno - 1])
        if stated is not None:
            assert f"{value:.{len(stated[2] or '')}f}" == stated[1], text


@pytest.mark.parametrize("page", with_blocks("is_python"), ids=page_id)
def test_python_runs(page, folder, monkeypatch):
    """In one namespace a page, block after block; a block that is a file is imported as the module that it is."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    names: dict = {}
    for number, block in enumerate(blocks(page), start=1):
        if not block.is_python:
            continue
        if block.name is not None:
            importlib.import_module(block.name.removesuffix(".py"))
            continue
        run_python(block.text, names, f"{page.name}, block {number}")


def lines_of(block: str) -> list[str]:
    """The lines of a shell block, and as one line each what is not a command of lmirl, for a shell."""
    lines = [""]
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith(COMMANDS):
            lines += [line, ""]
        else:
            lines[-1] += line + "\n"
    return [line for line in lines if line.strip()]


def run_line(line: str) -> int:
    """Runs a command of lmirl in this process: to start one for each would take longer than what they do."""
    if not line.startswith(COMMANDS):
        return subprocess.run(["bash", "-c", f"set -e\n{line}"]).returncode
    _, name, *arguments = shlex.split(line, comments=True)
    few = FEW.get(name, [])
    # To compile what samples takes longer than the rest: only where the block is about evaluations.
    if name == "train" and not re.search("METRIC|VALIDATION|EVAL_", line):
        few = [*few, "EVALUATIONS=[]"]
    if name == "train" and "BATCH_SIZE" not in line:
        few = [*few, "BATCH_SIZE=16"]
    if name == "train" and "runs/finetune.gin" in line and "TASK_FEATURE_LENGTHS" not in line:
        few = [*few, "TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}"]
    with configuration.restore_afterwards():
        return main([name, *arguments, *(f"--gin.{setting}" for setting in few)])


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.usefixtures("on_one_device")
@pytest.mark.parametrize("page", with_blocks("is_shell"), ids=page_id)
def test_shell_runs(page, folder, tmp_path, monkeypatch, capfd):
    """In one folder, block after block; /tmp is a folder of the test."""
    if any("MODEL_DIR=\"'numbers/" in block.text for block in blocks(page)):
        shutil.rmtree(folder / "numbers")  # The page trains the runs itself.
    if page.name == "online.md":  # It goes on from the run that README.md trains.
        make_run(tmp_path / "mine")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    for block in blocks(page):
        if not block.is_shell or any(words in block.text for words in NOT_RUN):
            continue
        for line in lines_of(block.text.replace("/tmp/", f"{tmp_path}/")):
            assert run_line(line) == 0, f"{line}\n{capfd.readouterr().err[-3000:]}"


def anchors(page: pathlib.Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"], ids=page_id
)
def test_links_lead_somewhere(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        if page.name != "README.md":
            assert f"({page.name})" in index and f"(docs/{page.name})" in readme


def test_the_readme_is_short_and_names_every_room(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 200
    for room in (repository / "lmirl_jax").iterdir():
        if (room / "__init__.py").exists() and room.name != "tasks":
            assert f"  {room.name}/" in readme, f"{room.name}/ is missing in the tree"


def result(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def test_the_table_of_the_readme_is_the_committed_result(repository):
    """Each row: temperature, then valid answers, valid distinct answers and Self-BLEU of MLE and of IQLearn."""
    points = {
        (row["run"], row["temperature"], row["metric"]): row["value"]
        for row in result("quickstart.json")["curves"]
    }
    readme = (repository / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^(\d\.\d\d) \| (.+?) \| (.+)$", readme, re.MULTILINE)
    assert len(rows) == len({temperature for _, temperature, _ in points}) == 5
    for temperature, *sides in rows:
        for side, run in zip(sides, ("MLE", "IQLearn"), strict=True):
            written = re.sub(r" (±\S+|\[\S+, \S+\])", "", side).split()
            digits = {"valid": 3, "distinct_valid": 2, "self_bleu": 1}
            assert written == [f"{points[run, float(temperature), m]:.{n}f}" for m, n in digits.items()]


def test_the_readme_says_how_far_another_machine_is():
    found = result("quickstart.json")
    place = ("run", "temperature", "metric")
    other = {tuple(row[k] for k in place): row["value"] for row in found["older_processor"]["curves"]}
    moved: dict[str, float] = {}
    for row in found["curves"]:
        distance = abs(row["value"] - other[tuple(row[k] for k in place)])
        moved[row["metric"]] = max(moved.get(row["metric"], 0.0), distance)
    shown = [f"{moved['valid']:.3f}", f"{moved['distinct_valid']:.2f}", f"{moved['self_bleu']:.1f}"]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    words = "validity moves by up to {}, valid distinct answers by up to {} and Self-BLEU by up to {}"
    assert words.format(*shown) in readme


def test_the_verdicts_of_the_readme_are_the_committed_result(repository):
    readme = " ".join((repository / "README.md").read_text(encoding="utf-8").split())
    for verdict in result("quickstart.json")["verdicts"]:
        assert " ".join(verdict.split()) in readme


def rises(table: list[str]) -> list[str]:
    """The loss at the end less the lowest one, of each row of a table of losses."""
    rows = [line.split("|") for line in table[2:]]
    return [f"{float(row[4]) - float(row[2]):.3f}" for row in rows]


def test_the_tables_of_the_study_are_the_committed_results(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    show = importlib.import_module("show")
    page = (repository / "docs" / "when.md").read_text(encoding="utf-8")
    study, same_rate = result("small_data.json"), result("small_data_same_rate.json")
    tables = [show.tuning_table(study), show.loss_table(study), show.loss_table(same_rate)]
    tables += [show.lead_table(found) for found in [*study["readings"].values(), study["online"]]]
    tables += [show.lead_table(same_rate["readings"][reading]) for reading in ("best", "last")]
    hundred = result("small_data_100.json")
    tables += [
        show.loss_table(hundred),
        *(show.lead_table(hundred["readings"][r]) for r in ("best", "last", "lowest_loss")),
    ]
    for table in tables:
        assert "\n".join(table) in page
    # By how much losses rise in the end, from the numbers of the tables; and the one lead that no table has.
    sentences = " ".join(page.split())
    same, few = (rises(show.loss_table(study)) for study in (same_rate, hundred))
    written = "by {} for MLE, by {} at lambda .02, by {} at .1 and not at all at .5; for GEM by {}"
    assert written.format(same[0], same[2], same[3], same[1]) in sentences and same[4] == "0.000"
    assert "by {} for MLE, {} at lambda .02 and {} at .1".format(*few) in sentences
    (lead,) = (
        each["mean_difference"]
        for each in same_rate["readings"]["best"]["diversity"]["self_bleu"]["comparisons"]
        if each["run"] == "IQLearn, lambda .1"
    )
    assert f"behind MLE by {-lead['mean']:.1f} [{-lead['high']:.1f}, {-lead['low']:.1f}]" in sentences
