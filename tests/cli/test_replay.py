"""`lmirl doctor --replay`: a saved batch is taken apart by the parameters and the dropout of its step."""

import numpy as np
import pytest
from etils import epath

from lmirl_jax import configuration, sharding
from lmirl_jax.cli import flags
from lmirl_jax.cli.configure import configure
from lmirl_jax.cli.replay import config_of, replay
from lmirl_jax.training.suspect_batch import save_batch
from lmirl_jax.types import UserError
from tests.training.fakes import make_batch


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.jsonl").write_text('{"inputs": "1+1", "targets": "2"}\n')
    settings = ["DATA='mine.jsonl'", f"MODEL_DIR='{tmp_path}'", "TRAIN_STEPS=1", "VOCAB_SIZE=128"]
    monkeypatch.chdir(tmp_path)
    files = ["gin/runs/finetune.gin", "gin/models/t5_1_1/tiny.gin"]
    with configuration.restore_afterwards():
        configure(flags.Flags(gin_file=files, gin_bindings=settings))
        yield epath.Path(tmp_path)


def numbers(cell: str) -> list[float]:
    return [float(part.split()[-1]) for part in cell.split(",")]


def test_rows_add_up_to_the_batch_and_the_faulty_one_is_named(folder):
    mesh = configuration.macro("MESH")
    batch = make_batch(3, 8)
    sound = save_batch(folder, 4, sharding.to_global(mesh, batch, 8), None)
    rows, faulty = replay(str(sound))
    assert rows[0][1].startswith("the initial ones") and not faulty
    whole, *each = [numbers(cell)[0] for _, cell in rows[1:]]
    weights = batch.weights.sum(axis=-1)
    np.testing.assert_allclose(np.sum(weights * each) / np.sum(weights), whole, rtol=1e-5)

    batch.discounts[5, 0] = np.nan
    poisoned = save_batch(folder, 7, sharding.to_global(mesh, batch, 8), None)
    rows, faulty = replay(str(poisoned))
    assert np.isnan(numbers(rows[1][1])).all() and np.isnan(numbers(rows[2 + 5][1])).all()
    assert faulty == [
        f"not finite by themselves: 1 of 8 rows, 5; texts: {str(poisoned).removesuffix('.npz')}.jsonl"
    ]
    assert [np.isfinite(numbers(cell)).all() for _, cell in rows[2:]] == [row != 5 for row in range(8)]


def test_another_file_is_no_batch(folder):
    for name in ("step-3.npz", "config.gin"):
        with pytest.raises(UserError, match=r"is no batch of a run"):
            replay(str(folder / "nonfinite" / name))
    with pytest.raises(UserError, match=r"no config\.gin in"):
        config_of(str(folder / "nonfinite/step-3.npz"))
    with pytest.raises(UserError, match="does not lie in MODEL_DIR/nonfinite"):
        config_of(str(folder / "step-3.npz"))
