"""Finished cells on disk: found by their settings, whole or not there."""

import dataclasses
import json

import pytest
from etils import epath

from lmirl_jax import files
from lmirl_jax.evaluation import sweep_cells

SETTINGS = sweep_cells.CellSettings("c0ffee", 150, "sums", "validation", "beef", 2, 4, 8, 0, 0.5, 0.9)
CELL = sweep_cells.FinishedCell(
    SETTINGS, {"accuracy": 0.5}, {"accuracy": [0.0, 1.0]}, {"accuracy": [0.0, 1.0]}, [{"inputs": "é"}]
)


def test_a_cell_survives_the_round_trip_through_its_file(tmp_path):
    folder = epath.Path(tmp_path)
    assert sweep_cells.read_cell(folder, SETTINGS) is None
    CELL.write(folder)
    assert sweep_cells.read_cell(folder, SETTINGS) == CELL
    assert [path.name for path in tmp_path.iterdir()] == [SETTINGS.path(folder).name]
    assert SETTINGS.path(folder).name.startswith("sums-000150-T0.5-P0.9-")


@pytest.mark.parametrize(
    "other",
    [
        {"checkpoint": "decaf"},
        {"step": 151},
        {"task": "sums2"},
        {"split": "test"},
        {"examples": "dead"},
        {"num_examples": 3},
        {"num_samples": 5},
        {"max_length": 9},
        {"seed": 1},
        {"temperature": 0.25},
        {"top_p": 1.0},
        {"top_k": 4},
        {"min_p": 0.1},
        {"rerank": "by decaf at gamma 1.0"},
    ],
)
def test_other_settings_are_another_file(tmp_path, other):
    """The old cell stays, is not taken for the new one, and serves again when its settings do."""
    folder = epath.Path(tmp_path)
    CELL.write(folder)
    changed = dataclasses.replace(SETTINGS, **other)
    assert sweep_cells.read_cell(folder, changed) is None
    dataclasses.replace(CELL, settings=changed, metrics={"accuracy": 1.0}).write(folder)
    assert sweep_cells.read_cell(folder, SETTINGS) == CELL and len(list(tmp_path.iterdir())) == 2


def test_every_setting_is_tried_above():
    [mark] = test_other_settings_are_another_file.pytestmark
    tried = {name for other in mark.args[1] for name in other}
    assert tried == {field.name for field in dataclasses.fields(sweep_cells.CellSettings)}


def test_cells_of_versions_without_scores_keep_their_names(tmp_path):
    """Their settings say nothing of scores, neither in the file nor in its name."""
    path = epath.Path(tmp_path) / "sums-000150-T0.5-P0.9-NAME.json"
    before = dataclasses.asdict(CELL)
    del before["settings"]["rerank"]
    name = files.digest(json.dumps(before["settings"], sort_keys=True))
    (path.parent / path.name.replace("NAME", name)).write_text(json.dumps(before))
    assert sweep_cells.read_cell(epath.Path(tmp_path), SETTINGS) == CELL


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"settings": {"step": 1}}', '{"metrics": '])
def test_a_damaged_cell_is_none(tmp_path, caplog, text):
    path = SETTINGS.path(epath.Path(tmp_path))
    path.write_text(text)
    assert sweep_cells.read_cell(epath.Path(tmp_path), SETTINGS) is None
    assert f"{path} is no finished cell: it is made again" in caplog.text


def test_a_cell_under_another_ones_name_is_not_believed(tmp_path, caplog):
    folder = epath.Path(tmp_path)
    CELL.write(folder)
    path = SETTINGS.path(folder)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"settings": content["settings"] | {"step": 1}}))
    assert sweep_cells.read_cell(folder, SETTINGS) is None and "is made again" in caplog.text


def test_a_cell_that_fails_in_the_writing_leaves_nothing(tmp_path):
    broken = dataclasses.replace(CELL, metrics={"accuracy": object()})
    with pytest.raises(TypeError):
        broken.write(epath.Path(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_examples_are_their_texts_or_their_tokens():
    texts = [{"inputs_pretokenized": "1+1", "targets_pretokenized": "2", "inputs": [5]}]
    assert sweep_cells.prompts_of(texts) == ["1+1"] and sweep_cells.prompts_of([{"inputs": [5, 6]}]) == [
        "5 6"
    ]
    other_target = [texts[0] | {"targets_pretokenized": "3"}]
    assert sweep_cells.examples_digest(texts) != sweep_cells.examples_digest(other_target)
    assert sweep_cells.examples_digest(texts) == sweep_cells.examples_digest([texts[0] | {"inputs": [7]}])
