"""What a checkpoint says of itself: which it is, of which step and run, and of what kind its folder is."""

import pytest
from etils import epath

from lmirl_jax import checkpoints
from lmirl_jax.checkpoints.folders import kind_of
from lmirl_jax.checkpoints.metadata import best_step
from lmirl_jax.types import UserError
from tests.fakes import make_run


def test_a_checkpoint_is_known_by_when_it_was_saved_and_not_by_where_it_lies(tmp_path):
    notes = {"a": "saved at 1", "b": "saved at 2", "copy of a": "saved at 1"}
    for name, note in notes.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "_CHECKPOINT_METADATA").write_text(note)
    a, b, copy = (checkpoints.identity(epath.Path(tmp_path / name)) for name in notes)
    assert a == copy != b


def test_its_folder_tells_its_kind_step_and_run(tmp_path):
    run = make_run(tmp_path / "run", step=7)
    checkpoint = checkpoints.find_checkpoint(str(run))
    assert kind_of(checkpoint) == "lmirl"
    assert checkpoints.step_of(checkpoint) == 7
    assert checkpoints.run_folder(checkpoint) == epath.Path(run)
    assert best_step(checkpoint) is None and checkpoints.recorded_vocabularies(checkpoint) is None


@pytest.mark.parametrize(("name", "kind"), [("config.json", "hf"), ("checkpoint", "t5x")])
def test_a_folder_of_another_library_belongs_to_no_run(tmp_path, name, kind):
    """Such as Hugging Face's and T5X's."""
    (tmp_path / name).write_text("{}")
    checkpoint = checkpoints.find_checkpoint(str(tmp_path))
    assert kind_of(checkpoint) == kind and checkpoints.step_of(checkpoint) == 0
    assert (
        checkpoints.run_folder(checkpoint) is None and checkpoints.recorded_vocabularies(checkpoint) is None
    )
    with pytest.raises(UserError, match=r"is in no run's folder: name the place of the output") as caught:
        checkpoints.output_folder(checkpoint, "eval", "EVAL_OUTPUT_DIR")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "step"), [("checkpoint_1198000", 1198000), ("test.checkpoint_0", 0), ("t5_1_1", 0), ("12", 12)]
)
def test_the_step_in_a_name(name, step):
    assert checkpoints.step_of(epath.Path("/models") / name) == step
