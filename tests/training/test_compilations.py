"""What a run compiles, it compiles once: at its first step, its first evaluation and its first save."""

import json

import jax
import jax.monitoring
import pytest

from lmirl_jax import objectives, training
from lmirl_jax.evaluation import Evaluator, Generator
from tests.training.fakes import TINY, FakeData, make_batch, mesh_of


class HeldOut:
    """Three batches of prompts; an answer's text is its tokens."""

    name = "fake"

    def __init__(self):
        self.lengths = {"inputs": 7, "targets": 6}
        self.eos_ids = (1,)

    def batches(self, batch_size):
        for seed in range(3):
            examples = [{"number": seed * batch_size + row} for row in range(batch_size)]
            yield make_batch(seed, batch_size), examples

    def decode(self, tokens):
        return " ".join(map(str, tokens))

    def prompt_metrics(self, example, texts):
        return {"words": sum(len(text.split()) for text in texts) / len(texts)}

    def metrics(self, predictions):
        return {"words": sum(len(text.split()) for text in predictions) / len(predictions)}


class Counting:
    """Stands before and behind the evaluations, and notes how much was traced or compiled until then."""

    def __init__(self):
        self.events, self.noted = [], {}

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._heard)

    def _heard(self, event, seconds, **_):
        if event.startswith("/jax/core/compile/"):
            self.events.append(event)

    def check(self, mesh):
        pass

    def metric_names(self):
        return []

    def __call__(self, graph, params, mesh, model_dir, step):
        self.noted.setdefault(step, []).append(len(self.events))
        return {}


@pytest.mark.slow
def test_no_evaluation_compiles_but_the_first(tmp_path):
    """Losses, greedy and sampled answers on 8 devices: after the first evaluation not even a trace is made."""
    lambda_ = training.annealed(0.1, 0.5, 10)
    validation = training.Validation(HeldOut(), objectives.iqlearn, lambda_, batch_size=8)
    greedy = Evaluator(HeldOut(), Generator(8))
    sampled = Evaluator(HeldOut(), Generator(8, num_samples=3), 0.7, "sampled")
    with Counting() as counting:
        training.train(
            model_dir=str(tmp_path),
            train_steps=3,
            model=TINY,
            learner=training.Offline(objectives.iqlearn, lambda_),
            optimizer=training.adamw(1e-2),
            data=FakeData(8),
            mesh=mesh_of(8, 2, 2, 2),
            evaluations=[counting, validation, greedy, sampled, counting],
            eval_period=1,
            best=training.BestConfig("eval/fake/sampled/words", patience=100),
            checkpoint=training.CheckpointConfig(period=100),
            tensorboard=False,
        )
    first, second, third = (counting.noted[step] for step in (1, 2, 3))
    names = {name for evaluation in (validation, greedy, sampled) for name in evaluation.metric_names()}
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert {name for name in last if name.startswith("eval/")} == names
    assert first[1] - first[0] > 10
    assert second[0] == second[1]
    # Between the first two the best checkpoint is saved, which compiles once too: nothing does after that.
    assert second == third
