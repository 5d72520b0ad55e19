"""CITATION.cff and the public workflow agree with the package."""

import yaml

import lmirl_jax


def test_the_citation_is_of_this_version_and_of_the_paper(repository):
    cited = yaml.safe_load((repository / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["cff-version"] == "1.2.0" and cited["message"] and cited["title"] == "lmirl_jax"
    assert str(cited["version"]) == lmirl_jax.__version__
    assert cited["license"] == "Apache-2.0" and cited["authors"] == [{"name": "The lmirl_jax authors"}]
    [paper] = cited["references"]
    assert paper["title"] == "Imitating Language via Scalable Inverse Reinforcement Learning"
    assert paper["authors"][0]["family-names"] == "Wulfmeier" and paper["year"] == 2024
    assert paper["url"].endswith("2409.01369")


def test_the_workflow_runs_what_a_person_runs_on_the_oldest_and_newest_python(repository):
    workflow = yaml.safe_load((repository / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    [job] = workflow["jobs"].values()
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.13"]
    assert job["steps"][-1]["run"] == ".ci/run" and (repository / ".ci/run").is_file()
