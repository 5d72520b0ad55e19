"""The sweep on stand-in policies that count what they are asked, and once for real from command to report."""

import copy
import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest
from etils import epath
from flax import nnx

from lmirl_jax import configuration_values, decoding, models, runs, sharding
from lmirl_jax.cli import sweep, sweep_output, sweep_plan
from lmirl_jax.evaluation import Answers
from lmirl_jax.types import UserError

PROMPTS = 12


class Sums:
    """Prompts `0+0`, `1+1`, ..; an answer is right where it is the sum."""

    name, split, lengths, task, eos_ids = "sums", "validation", {"targets": 4}, None, (1,)

    def __init__(self, count=PROMPTS, name="sums"):
        self.name = name
        self.examples = [
            {"inputs_pretokenized": f"{n}+{n}", "targets_pretokenized": str(2 * n), "n": n}
            for n in range(count)
        ]

    def batches(self, batch_size):
        yield None, self.examples  # The stand-in policies read these, and have texts.

    def decode(self, tokens):
        return ""

    def corpora(self, samples):
        return iter(())  # No BLEU, no ChrF.

    def prompt_metrics(self, example, texts):
        right = [text == str(2 * example["n"]) for text in texts]
        return {"accuracy": sum(right) / len(right)}

    def metrics(self, predictions):
        return {"accuracy": sum(text == str(2 * n) for n, text in enumerate(predictions)) / len(predictions)}


class Wobbly:
    """Right at low temperatures; the hotter, the more samples are wrong, each in its own way. Keeps what it was asked."""

    num_samples, batch_size, max_length, seed = 4, 4, None, 0
    filters, top_p = decoding.Filters(), 1.0

    def __init__(self, hits=0, fail_at=None):
        self.asked, self.hits, self.fail_at = [], hits, fail_at

    def check(self, mesh):
        pass

    def with_top_p(self, top_p):
        other = copy.copy(self)
        other.top_p = top_p
        return other

    def __call__(self, graph, params, mesh, data, temperature):
        if temperature == self.fail_at:
            raise KeyboardInterrupt
        self.asked.append(temperature if self.top_p == 1 else (temperature, self.top_p))
        for example in data.examples:
            wrong = min(4, round(2 * temperature * self.top_p) + (example["n"] % 3 == 0) - self.hits)
            texts = tuple(f"w{i} x" if i < wrong else str(2 * example["n"]) for i in range(4))
            yield Answers(example, texts, ((5, 1),) * 4, ((-0.5, -0.5),) * 4)


@pytest.fixture(autouse=True)
def no_parameters(monkeypatch):
    def load(answering):
        policy = runs.Policy(
            answering.checkpoint, answering.model, nnx.graphdef(nnx.Dict()), {}, answering.mesh, None, {}, 1.0
        )
        return sweep_plan.LoadedRun(policy, None)

    monkeypatch.setattr(sweep_plan.AnsweringRun, "load", load)


def policy(tmp_path, run="MLE", seed=0, *, generator=None, data=None, step=10):
    checkpoint = tmp_path / f"{run} {seed}" / "checkpoints" / str(step)
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / "_CHECKPOINT_METADATA").write_text(f"{run} {seed} {step}")
    return sweep_plan.AnsweringRun(
        run,
        seed,
        epath.Path(checkpoint),
        models.T5Config(8),
        sharding.make_mesh(),
        data or Sums(),
        generator or Wobbly(seed),
    )


def config(*temperatures, **arguments):
    return sweep_plan.SweepConfig(list(temperatures or (0.5, 1.0)), **arguments)


def make(policies, settings, tmp_path):
    return list(sweep.finish(policies, settings, epath.Path(tmp_path / "cells")))


def stamps(tmp_path):
    return {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}


def test_a_finished_cell_is_never_made_again(tmp_path, capsys):
    policies = [policy(tmp_path), policy(tmp_path, "IQLearn"), policy(tmp_path, "IQLearn", 1)]
    first = make(policies, config(), tmp_path)
    assert len(first) == 6 and all(one.generator.asked == [0.5, 1.0] for one in policies)
    before = stamps(tmp_path)
    again = make(policies, config(), tmp_path)
    assert all(one.generator.asked == [0.5, 1.0] for one in policies) and stamps(tmp_path) == before
    assert [cell for _, cell in again] == [cell for _, cell in first]
    assert "sweep: 6 of 6 cells are finished already, 0 to make" in capsys.readouterr().err


def test_after_a_kill_the_missing_cells_are_made(tmp_path, capsys):
    broken = [policy(tmp_path), policy(tmp_path, "IQLearn", generator=Wobbly(fail_at=1.0))]
    with pytest.raises(KeyboardInterrupt):
        make(broken, config(), tmp_path)
    before = stamps(tmp_path)
    assert len(before) == 3
    mended = [policy(tmp_path), policy(tmp_path, "IQLearn")]
    found = make(mended, config(), tmp_path)
    assert [one.generator.asked for one in mended] == [[], [1.0]] and len(found) == 4
    assert {name: stamps(tmp_path)[name] for name in before} == before
    assert "MLE" not in capsys.readouterr().err.split("3 of 4 cells are finished already, 1 to make")[1]


@pytest.mark.parametrize("text", ["", '{"settings": {"checkpoint": "c0f', "{}"])
def test_a_damaged_cell_is_made_again_and_no_other(tmp_path, caplog, text):
    policies = [policy(tmp_path), policy(tmp_path, "IQLearn")]
    first = make(policies, config(), tmp_path)
    torn = next((tmp_path / "cells").glob("*T1-*"))
    before = stamps(tmp_path)
    whole = torn.read_text()
    torn.write_text(text)
    again = make(policies, config(), tmp_path)
    assert sorted(len(one.generator.asked) for one in policies) == [2, 3]
    assert [cell for _, cell in again] == [cell for _, cell in first] and torn.read_text() == whole
    assert {n: t for n, t in stamps(tmp_path).items() if n != torn.name} == {
        n: t for n, t in before.items() if n != torn.name
    }
    assert f"{torn} is no finished cell: it is made again" in caplog.text


def test_more_temperatures_more_runs_and_other_labels_make_the_new_cells_alone(tmp_path):
    make([policy(tmp_path, "a")], config(), tmp_path)
    renamed = dataclasses.replace(policy(tmp_path, "a"), label="MLE", seed=1)
    other = policy(tmp_path, "b")
    make([other, renamed], config(0.25, 0.5, 1), tmp_path)
    assert (renamed.generator.asked, other.generator.asked) == ([0.25], [0.25, 0.5, 1.0])


def test_every_temperature_at_every_top_p(tmp_path):
    make([policy(tmp_path)], config(), tmp_path)
    one = policy(tmp_path)
    found = make([one], config(top_ps=[0.8, 1.0]), tmp_path)
    assert one.generator.asked == [(0.5, 0.8), (1.0, 0.8)]
    places = [(cell.settings.temperature, cell.settings.top_p) for _, cell in found]
    assert places == [(0.5, 0.8), (1.0, 0.8), (0.5, 1.0), (1.0, 1.0)]


@pytest.mark.parametrize("other", [{"num_samples": 5}, {"seed": 1}, {"filters": decoding.Filters(min_p=0.1)}])
def test_other_settings_of_sampling_do_not_mix(tmp_path, other):
    make([policy(tmp_path)], config(), tmp_path)
    generator = Wobbly()
    vars(generator).update(other)
    [*found] = make([policy(tmp_path, generator=generator)], config(), tmp_path)
    assert generator.asked == [0.5, 1.0] and len(stamps(tmp_path)) == 4
    assert all(cell.settings.num_samples == generator.num_samples for _, cell in found)


def test_a_later_or_retrained_checkpoint_makes_new_cells(tmp_path):
    make([policy(tmp_path)], config(), tmp_path)
    later = policy(tmp_path, step=20)
    make([later], config(), tmp_path)
    anew = policy(tmp_path)
    (tmp_path / "MLE 0/checkpoints/10/_CHECKPOINT_METADATA").write_text("saved later")
    make([anew], config(), tmp_path)
    assert later.generator.asked == anew.generator.asked == [0.5, 1.0]


def whole(tmp_path, count=PROMPTS, **arguments):
    policies = [
        policy(tmp_path, data=Sums(count)),
        policy(tmp_path, "IQ <b>", 0, generator=Wobbly(1), data=Sums(count)),
        policy(tmp_path, "IQ <b>", 1, data=Sums(count)),
    ]
    settings = config(0.5, 1.0, 1.5, quality="accuracy", **arguments)
    return sweep_output.Sweep(settings, policies, make(policies, settings, tmp_path), epath.Path(tmp_path))


def test_what_it_writes_and_prints(tmp_path):
    text = sweep_output.write(whole(tmp_path), 1.0)
    assert {"cells", "sweep.csv", "sweep.json", "report.html"} <= {path.name for path in tmp_path.iterdir()}
    lines = text.splitlines()
    assert lines[0].split("|")[1].strip() == "MLE" and lines[-2:] == [
        f"report: {tmp_path}/report.html",
        "finished in 1 s",
    ]
    assert "Self-BLEU" in text and "IQ <b>" in text
    rows = (tmp_path / "sweep.csv").read_text().splitlines()
    at = f"MLE,0,{tmp_path}/MLE 0/checkpoints/10,1.0,1.0,accuracy,"
    [row] = [row for row in rows if row.startswith(at)]
    # At temperature 1 two of four samples are wrong, three where the prompt's number is divisible by 3.
    assert float(row.removeprefix(at).split(",")[0]) == pytest.approx((8 * 2 + 4 * 1) / (12 * 4))
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert content["settings"]["num_samples"] == 4 and len(content["cells"]) == len(rows) - 1
    assert set(content["diversity"]) == {"self_bleu"}


def test_the_report_shows_answers_side_by_side_and_reaches_for_nothing(tmp_path):
    sweep_output.write(whole(tmp_path, shown_prompts=2, shown_temperature=1.5), 1.0)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "at temperature 1.5; none is picked" in page
    assert page.count("<h3>Prompt: ") == 2 and "<h3>Prompt: 1+1</h3>" in page and "Reference: 2" in page
    assert page.count("<h4>MLE</h4>") == page.count("<h4>IQ &lt;b&gt;</h4>") == 2
    assert "<li>w0 x</li>" in page and "Pareto hull" in page and "Area between the curves" in page
    assert "Temperature 0.5" in page and "12 prompts and seeds (1 or 2 a run)" in page
    assert not re.search(r"""(?:src|href)=["'](?!#)|url\((?!#)|@import|<script|<link""", page)
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page) and "https:" not in page


def test_page_terminal_and_json_tell_the_number_of_prompts(tmp_path):
    """12 of 30 prompts, in the page, the terminal and sweep.json."""
    done = whole(tmp_path)
    for one in done.answering:
        one.data.available = 30
    text = sweep_output.write(done, 1.0)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for place in (text, page):
        assert "sums: the first 12 of 30 prompts, 4 samples each." in place
    settings = json.loads((tmp_path / "sweep.json").read_text())["settings"]
    assert (settings["num_examples"], settings["available"]) == (12, 30)


def test_verdict_and_table_have_one_sign(tmp_path):
    """A run whose Self-BLEU is lower leads: the same number stands in the verdict, the table and sweep.json."""
    text = sweep_output.write(whole(tmp_path, 40), 1.0)
    page = re.sub("<[^>]*>", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    [compared] = json.loads((tmp_path / "sweep.json").read_text())["diversity"]["self_bleu"]["comparisons"]
    lead = f"{compared['mean_difference']['mean']:+.1f}"
    assert f"lead over MLE is {lead} in Self-BLEU (lower is ahead;" in text
    [row] = re.findall(r"IQ &lt;b&gt; over MLE +Self-BLEU +(?:[^ ]+) +(?:\[[^]]*\])? +([+-][0-9.]+)", page)
    assert row == lead != "+0.0"


def test_answers_are_shown_at_the_temperature_and_top_p_nearest_to_1(tmp_path):
    assert sweep_output.choose_point(whole(tmp_path)) == (1.0, 1.0)


def test_curves_of_several_top_ps(tmp_path):
    """Each run has a curve a top-p, and is compared with the baseline at the same one."""
    text = sweep_output.write(whole(tmp_path, top_ps=[0.8, 1.0]), 1.0)
    assert "IQ <b> (top-p 0.8)" in text  # In the table; a verdict says once what holds for both runs.
    assert "At top-p 1: " in text and "At top-p 0.8: " in text
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert [found["top_p"] for found in content["diversity"]["self_bleu"]["comparisons"]] == [1.0, 0.8]
    assert {corner["top_p"] for corner in content["diversity"]["self_bleu"]["hull"]} <= {0.8, 1.0}
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "MLE (top-p 0.8)" in page and "<th" in page and ">top-p</th>" in page


def test_runs_that_solve_nothing_make_an_honest_page(tmp_path):
    policies = [policy(tmp_path, generator=Wobbly(-9)), policy(tmp_path, "IQLearn", generator=Wobbly(-9))]
    settings = config(0.5, 1.0)
    done = sweep_output.Sweep(settings, policies, make(policies, settings, tmp_path), epath.Path(tmp_path))
    text = sweep_output.write(done, 1.0)
    assert text.count("Neither MLE nor IQLearn has any accuracy") == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Neither MLE nor IQLearn has any accuracy" in page and "nan" not in page.lower().replace(
        "banan", ""
    )
    assert "Area between" not in page and "The Pareto hull" not in page


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"temperatures": []}, r"temperatures=\[\] must be a list of one or more"),
        ({"temperatures": 1.0}, "temperatures=1.0 must be a list"),
        ({"temperatures": [0.5, 0.0]}, r"temperatures=\[0.5, 0.0\] must be .* above 0 \(at 0 all samples"),
        ({"temperatures": [-1]}, r"temperatures=\[-1\] must be"),
        ({"temperatures": [float("nan")]}, r"temperatures=\[nan\] must be"),
        ({"temperatures": ["1"]}, r"temperatures=\['1'\] must be"),
        ({"temperatures": [1.0], "top_ps": 0.9}, "top_ps=0.9 must be a list"),
        ({"temperatures": [1.0], "top_ps": [0.0]}, r"top_ps=\[0.0\] must be .* above 0 and at most 1"),
        ({"temperatures": [1.0], "top_ps": [1.0, 90]}, r"top_ps=\[1.0, 90\] must be"),
        ({"temperatures": [1.0], "top_ps": [1, 1.0]}, "must be a list of one or more different numbers"),
        ({"temperatures": [1.0], "shown_prompts": -1}, "shown_prompts=-1 must be a whole number"),
        ({"temperatures": [1, 1.0]}, "must be a list of one or more different numbers"),
        ({"temperatures": [1.0], "shown_temperature": 2.0}, "SHOWN_TEMPERATURE=2.0 is not swept over"),
    ],
)
def test_settings_that_make_no_sweep(arguments, line):
    with pytest.raises(UserError, match=line) as error:
        sweep_plan.SweepConfig(**arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"quality": "acuracy"}, "QUALITY: the task has no metric 'acuracy'; did you mean 'accuracy'?"),
        (
            {"diversity": ["self_blue"]},
            "DIVERSITY: the task has no metric 'self_blue'; did you mean 'self_bleu'?",
        ),
        ({"diversity": "xyz"}, "DIVERSITY: the task has no metric 'xyz'; there are "),
        ({"diversity": []}, "diversity=[] must be"),
        ({"baseline": "DFT"}, "no run is called 'DFT'"),
    ],
)
def test_unknown_metrics_and_runs_are_errors_before_the_first_cell(tmp_path, arguments, line):
    one = policy(tmp_path)
    with pytest.raises(UserError, match=re.escape(line)) as error:
        sweep_plan.check_sweep([one], config(**arguments))
    assert "\n" not in str(error.value) and not one.generator.asked


@pytest.mark.parametrize("runs", [None, {}, [], "a", {"MLE": []}, {"MLE": 3}, {"MLE": [3]}, {1: ["a"]}])
def test_runs_must_be_labels_with_paths(runs):
    with pytest.raises(UserError, match=r"--gin\.RUNS=") as error:
        configuration_values.check_macro("RUNS", runs, sweep_plan.Runs)
    assert "\n" not in str(error.value)


def test_one_path_needs_no_list():
    assert sweep_plan.paths_by_label({"MLE": "a", "IQLearn": ("b", "c")}) == {
        "MLE": ["a"],
        "IQLearn": ["b", "c"],
    }


def test_runs_that_cannot_be_compared(tmp_path):
    base = policy(tmp_path)
    with pytest.raises(UserError, match=r"is of task gsm8k, .* of sums: compare runs of one task"):
        sweep_plan.check_sweep([base, policy(tmp_path, "b", data=Sums(name="gsm8k"))], config())
    with pytest.raises(UserError, match="have other prompts in sums's split validation"):
        sweep_plan.check_sweep([base, policy(tmp_path, "b", data=Sums(count=3))], config())
    with pytest.raises(UserError, match="twice: it would count as two seeds"):
        sweep_plan.check_sweep([base, dataclasses.replace(base, seed=1)], config())


def test_policies_that_give_no_diversity(tmp_path):
    single = Wobbly()
    single.num_samples = 1
    with pytest.raises(
        UserError, match="NUM_SAMPLES=1: diversity is that of several samples; give 2 or more"
    ):
        policy(tmp_path, generator=single)
    with pytest.raises(UserError, match="no such split: set EVAL_SPLIT"):
        dataclasses.replace(policy(tmp_path), data=None)


def lmirl(*arguments):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-P", "-m", "lmirl_jax", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


SMALL = [
    "--gin_file=gin/runs/number_paths.gin",
    "--gin.TRAIN_STEPS=2",
    "--gin.EVALUATOR_NUM_EXAMPLES=8",
    "--gin.EVAL_STEPS=1",
    "--gin.BATCH_SIZE=8",
    "--gin.models.T5Config.emb_dim=16",
    "--gin.models.T5Config.mlp_dim=32",
]


@pytest.mark.e2e
@pytest.mark.slow
def test_from_command_to_report(tmp_path):
    for name in ("mle", "iqlearn"):
        settings = [f"--gin_file=gin/objectives/{name}.gin", f"--gin.MODEL_DIR='{tmp_path / name}'"]
        done = lmirl("train", *SMALL, *settings)
        assert done.returncode == 0, done.stderr
    front = tmp_path / "front"
    arguments = [
        "sweep",
        "--gin_file=gin/runs/sweep.gin",
        f"--gin.RUNS={{'MLE': '{tmp_path / 'mle'}', 'IQLearn': ['{tmp_path / 'iqlearn/checkpoints/2'}']}}",
        f"--gin.OUTPUT_DIR='{front}'",
        "--gin.EVALUATOR_NUM_EXAMPLES=12",
        "--gin.NUM_SAMPLES=2",
    ]
    done = lmirl(*arguments, "--gin.TEMPERATURES=[1.0]")
    assert done.returncode == 0, done.stderr
    before = stamps(front)
    done = lmirl(*arguments, "--gin.TEMPERATURES=[1.0, 1.5]")
    assert done.returncode == 0, done.stderr
    assert "2 of 4 cells are finished already, 2 to make" in done.stderr
    assert {name: stamps(front)[name] for name in before} == before and len(stamps(front)) == 4
    assert f"report: {front / 'report.html'}" in done.stdout and "Self-BLEU" in done.stdout
    done = lmirl("sweep", "--gin_file=gin/runs/sweep.gin", f"--gin.OUTPUT_DIR='{front}'")
    assert done.returncode == 1 and done.stderr.startswith("lmirl: the configuration leaves RUNS unset")
    nowhere = lmirl(
        *arguments[:2], f"--gin.OUTPUT_DIR='{front}'", f"--gin.RUNS={{'MLE': '{tmp_path / 'no'}'}}"
    )
    assert nowhere.returncode == 1 and nowhere.stderr.count("\n") == 1
    assert nowhere.stderr.startswith(f"lmirl: no checkpoint at {tmp_path / 'no'}")
