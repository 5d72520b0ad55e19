import dataclasses
import json
import re

import numpy as np
import pytest

from lmirl_jax.reports.trust_page import trust_report
from lmirl_jax.reports.trust_verdict import find_row, trust_verdict
from lmirl_jax.rewards.corruption_effects import CorruptionEffect, effects_of_corruptions
from lmirl_jax.rewards.trust_findings import correlation_rows, trust_findings
from lmirl_jax.types import UserError


@pytest.fixture
def answers(scored_answer):
    """Makes the answers of a seed: the metric is right where noise does not turn it."""

    def make(seed=0, prompts=12, candidates=6, *, noise=0.3, metrics=True, rest=0.0, sign=1.0):
        generator = np.random.default_rng(seed)
        made = []
        for example in range(prompts):
            v_0 = float(generator.normal())
            for candidate in range(candidates):
                good = float(generator.normal())
                score = float(sign * good + noise * generator.normal() > 0)
                made.append(
                    scored_answer(
                        "ab" + "c" * int(generator.integers(4)),
                        example=example,
                        candidate=candidate,
                        total=good + v_0 + rest,
                        v_0=v_0,
                        rest=rest,
                        metrics={"accuracy": score, "other": float(candidate)} if metrics else {},
                    )
                )
        return made

    return make


def page_of(tmp_path, scored, **options):
    findings = trust_report(tmp_path / "r.html", scored=scored, settings={"a": "b"}, **options)
    text = (tmp_path / "r.html").read_text()
    assert "nan" not in re.sub("<[^>]*>", " ", text).lower().split()
    json.dumps(findings, allow_nan=False)
    return findings, text


def test_findings_hold_every_correlation_and_are_json(answers):
    found = trust_findings({"MLE": [answers()], "IQLearn": [answers(1), answers(2)]}, draws=100)
    json.dumps(found, allow_nan=False)
    rows = correlation_rows(found)
    assert {row["run"] for row in rows} == {"MLE", "IQLearn"}
    names = {"return", "normalised return", "log-likelihood", "v_0", "tokens"}
    assert {row["measure"] for row in rows if row["metric"] == "accuracy"} == names
    assert (
        len(rows) == 2 * (2 * 5 + 4) * 4
    )  # Measures with both metrics, all but itself with tokens, kinds and scopes.
    first, second = found["runs"]
    assert (first["answers"], second["answers"], second["seeds"], second["prompts"]) == (72, 144, 2, 12)
    assert first["telescopes"] and not first["differences"]
    difference = second["differences"][0]
    assert difference["baseline"] == "MLE" and difference["paired"] and not difference["same_answers"]


def test_within_a_prompt_the_return_is_the_log_likelihood(answers):
    (run,) = trust_findings({"MLE": [answers()]}, draws=50)["runs"]
    one, other = (
        find_row(run, measure, "accuracy", "within prompt") for measure in ("return", "log-likelihood")
    )
    assert one["value"] == pytest.approx(other["value"]) and one["value"] > 0.5
    assert find_row(run, "v_0", "accuracy", "within prompt")["value"] is None


def test_the_rest_of_a_return_is_a_separate_part(answers):
    found = trust_findings({"MLE": [answers(rest=0.5)]}, draws=50)
    (run,) = found["runs"]
    assert not run["telescopes"]
    assert [share["name"] for share in run["split"]["accuracy"]] == ["log-likelihood", "v_0", "rest", "total"]
    assert run["split"]["accuracy"][2]["value"] == pytest.approx(0, abs=1e-9)  # The same in all answers.


def test_v_0_of_a_prompt_is_one_number_whatever_float32_made_of_it(scored_answer):
    own = [
        scored_answer(example=i, candidate=j, v_0=1e-6 * j, metrics={"m": float(j)})
        for i in range(3)
        for j in range(3)
    ]
    (run,) = trust_findings({"MLE": [own]}, draws=9)["runs"]
    assert find_row(run, "v_0", "m", "within prompt")["value"] is None


def test_tenths_hold_equal_numbers_and_rise_with_a_good_reward(answers):
    (run,) = trust_findings({"MLE": [answers(prompts=10, candidates=10)]}, draws=9)["runs"]
    tenths = run["tenths"]["accuracy"]
    assert [row["answers"] for row in tenths] == [10] * 10
    assert tenths[-1]["mean"] > 0.7 > 0.3 > tenths[0]["mean"]


def test_the_verdict_says_what_the_intervals_say(answers):
    scored = {"good": [answers()], "bad": [answers(sign=-1.0)], "blind": [answers(noise=1e6)]}
    found = trust_findings(scored, draws=200)
    good, bad, blind, *_ = trust_verdict(found)
    both = "over all answers and among those to one prompt"
    assert good.startswith(f"A higher return goes with a higher `accuracy`, {both}: good +0.")
    assert bad.startswith(f"A higher return goes with a LOWER `accuracy`, {both}: bad −0.")
    assert blind.startswith(f"No relation of return and `accuracy` shows, {both}: blind ")
    text = " ".join(trust_verdict(found))
    assert (
        "Within one prompt the return of good, bad and blind ranks complete answers just as log-likelihood"
        in text
    )
    assert "Higher than good by: bad −" in text and "from log-likelihood and" in text
    assert "All scored the same answers; a run that wrote them is at a disadvantage" in text
    others = trust_findings(
        {"good": [answers()], "bad": [[dataclasses.replace(a, targets="x") for a in answers()]]}
    )
    assert "the runs scored different answers" in " ".join(trust_verdict(others))


def test_one_right_answer_of_400_concludes_nothing(answers):
    """100 prompts, 4 answers each, one of all right: a higher return by chance, and nothing to say."""
    own = answers(prompts=100, candidates=4, metrics=False)
    best = max(own, key=lambda answer: answer.total)
    rare = [dataclasses.replace(a, metrics={"exact_match": float(a is best)}) for a in own]
    found = trust_findings({"MLE": [rare]}, draws=300)
    pooled, within = (
        find_row(found["runs"][0], "return", "exact_match", scope) for scope in ("pooled", "within prompt")
    )
    assert (pooled["low"], within["low"]) == (None, None) and (within["prompts"], within["left_out"]) == (
        1,
        99,
    )
    # A draw of 100 prompts lacks the one with the right answer in (1 - 1 / 100) ** 100 = .366 of all.
    assert 0.25 < pooled["undefined_draws"] / pooled["draws"] < 0.48
    first = trust_verdict(found)[0]
    assert first == (
        "There are too few to say whether a higher return goes with a higher `exact_match`, over all answers and among those to "
        "one prompt: MLE too few (`exact_match` differs from its commonest value in 1 of 100 prompts, 8 are needed); within one "
        "prompt too few (1 of 100 prompts can be counted, 10 are needed)."
    )
    assert "by Pearson's r" not in " ".join(trust_verdict(found))


def test_every_number_of_the_verdict_says_what_it_is_over(answers):
    first = trust_verdict(trust_findings({"MLE": [answers()]}, draws=200))[0]
    assert " over 72 answers to 12 prompts; within one prompt +0." in first
    assert re.search(r"\] over \d+ answers to (\d+ of )?12 prompts\.$", first)


def test_a_verdict_says_that_interval_and_permutation_test_disagree(answers):
    found = trust_findings({"MLE": [answers()]}, draws=200)
    row = find_row(found["runs"][0], "return", "accuracy", "pooled")
    row["p_value"] = 0.06
    assert trust_verdict(found)[0].startswith(
        "Over all answers interval and permutation test disagree on return and `accuracy`, so that nothing is concluded"
    )


def test_damages_with_no_place_or_few_places_are_named(answers, tmp_path):
    found_few = effects_of_corruptions([], ["wrong digit", "truncation"], of=40)
    some = dataclasses.replace(
        found_few[0], count=9, answers=9, return_drops=1.0, return_drops_interval=(0.7, 1.0)
    )
    findings, page = page_of(tmp_path, {"MLE": [answers()]}, corruptions={"MLE": [some, found_few[1]]})
    assert (
        "wrong digit too few to say (found a place in 9 of 40 answers, 10 are needed); truncation found no place in any of 40 "
        "answers." in trust_verdict(findings)[-1]
    )
    assert "Found no place in any of the answers, so that nothing is known of them: truncation." in page
    assert "9 of 40" in page


def test_a_verdict_warns_of_a_reward_that_measures_length_alone(scored_answer):
    own = [
        scored_answer("a" * (1 + (i + j) % 7), example=i, candidate=j, metrics={"m": float((i + j) % 7 > 3)})
        for i in range(12)
        for j in range(5)
    ]
    assert "may measure little but length" in " ".join(
        trust_verdict(trust_findings({"MLE": [own]}, draws=50))
    )


def test_a_page_with_everything(answers, tmp_path):
    own = answers()
    effect = CorruptionEffect(
        "wrong digit", 9, 0.9, (0.8, 1.0), None, None, None, None, ((own[0], own[1], (1, 2)),)
    )
    findings, page = page_of(
        tmp_path,
        {"MLE": [own], "IQLearn": [answers(1), answers(2)]},
        corruptions={"MLE": [effect]},
        metric="other",
    )
    assert findings["metric"] == "other"
    assert findings["runs"][0]["corruptions"][0]["return_drops_interval"] == [0.8, 1.0]
    assert (
        page.count("<svg") == 3
        and "arXiv 2409.01369" in page
        and "90%" in page
        and "Does not apply" not in page
    )
    assert len(page) < 400_000


@pytest.mark.parametrize(
    "options",
    [
        {"prompts": 1},
        {"candidates": 1},
        {"prompts": 1, "candidates": 1},
        {"metrics": False},
        {"noise": 0.0, "prompts": 2},
    ],
)
def test_a_page_of_little_is_a_page(answers, tmp_path, options):
    findings, page = page_of(tmp_path, {"MLE": [answers(**options)]})
    assert "Verdict" in page and "What was scored" in page
    assert ("Does not apply: the answers have no metric" in page) == (findings["metric"] is None)
    assert "no answers were corrupted" in page


def test_a_page_of_constant_metrics(scored_answer, tmp_path):
    own = [
        scored_answer(example=i, candidate=j, total=1.0 + j, metrics={"m": 0.0})
        for i in range(3)
        for j in range(2)
    ]
    _, page = page_of(tmp_path, {"MLE": [own]})
    assert "Nothing can be said" in page and "None: no prompt has such a pair of answers." in page
    assert "Numbers are Spearman" not in page  # There are none.


def test_runs_with_different_prompts_and_metrics(scored_answer, answers, tmp_path):
    other = [
        scored_answer(example=i, candidate=j, inputs="x", metrics={"m": float(j)})
        for i in range(4)
        for j in range(2)
    ]
    findings, page = page_of(tmp_path, {"MLE": [answers()], "IQLearn": [other]})
    assert findings["metrics"] == ["accuracy", "other", "m"] and findings["runs"][1]["differences"] == []
    assert "Without <code>accuracy</code>: IQLearn." in page


def test_everything_is_escaped(scored_answer, tmp_path):
    evil = "<script>alert(1)</script>"
    own = [
        scored_answer(evil, example=i, candidate=j, inputs=evil, total=float(i - j), metrics={evil: float(j)})
        for i in range(3)
        for j in range(2)
    ]
    _, page = page_of(tmp_path, {evil: [own]})
    assert "<script" not in page


def test_the_same_answers_are_the_same_page(answers, tmp_path):
    assert page_of(tmp_path, {"MLE": [answers()]})[1] == page_of(tmp_path, {"MLE": [answers()]})[1]


@pytest.mark.parametrize(
    ("scored", "options", "message"),
    [
        ({}, {}, "there are no runs"),
        ({"MLE": []}, {}, "run 'MLE' has no scored answers"),
        ({"MLE": [[]]}, {}, "run 'MLE' has no scored answers"),
    ],
)
def test_nothing_to_report_is_said_in_a_line(scored, options, message):
    with pytest.raises(UserError, match=message):
        trust_findings(scored, **options)


def test_an_unknown_metric_is_named(answers):
    with pytest.raises(UserError, match="no run has a metric 'bleu'; there are accuracy, other"):
        trust_findings({"MLE": [answers()]}, metric="bleu")


def test_a_metric_that_bears_the_name_of_a_measure_is_refused(scored_answer):
    with pytest.raises(UserError, match="a metric is called 'tokens'"):
        trust_findings({"MLE": [[scored_answer(metrics={"tokens": 1.0})]]})
