"""Answers and their measures on a stand-in data set and policy, where every number can be counted by hand."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from etils import epath
from flax import nnx

from lmirl_jax import sharding
from lmirl_jax.evaluation import Answers, Evaluator, Generator, evaluator, generation, measure
from lmirl_jax.types import Unembedding, UserError
from tests.batches import batch_of
from tests.training.fakes import TINY, mesh_of

LENGTH = 4


class Digits:
    """Prompts 0, 1, 2, ..; an answer is its tokens as text, and is right where it begins with the prompt's number."""

    name = "digits"

    def __init__(self, count: int, order=None):
        self.count, self.order = count, order
        self.lengths = {"inputs": 2, "targets": LENGTH}
        self.eos_ids = (1,)

    def batches(self, batch_size):
        for start in range(0, self.count, batch_size):
            tokens = np.zeros((batch_size, 2), np.int32)
            numbers = (self.order or list(range(self.count)))[start : start + batch_size]
            tokens[: len(numbers), 0] = [n + 2 for n in numbers]
            examples = [{"number": n, "inputs_pretokenized": str(n)} for n in numbers]
            if self.order:
                examples = [example | {"sampling_id": example["number"]} for example in examples]
            yield jax.tree.map(np.asarray, batch_of(tokens, np.zeros((batch_size, LENGTH)))), examples

    def decode(self, tokens):
        return " ".join(str(token) for token in tokens if token > 1)

    def prompt_metrics(self, example, texts):
        return {
            "accuracy": float(np.mean([text.split(" ")[0] == str(example["number"] + 2) for text in texts]))
        }

    def metrics(self, predictions):
        return {
            "accuracy": float(np.mean([p.split(" ")[0] == str(i + 2) for i, p in enumerate(predictions)]))
        }


class Echo(nnx.Module):
    """Says its prompt's token, which it is sure of, or EOS, by a coin; parameters: how likely EOS is."""

    def __init__(self):
        self.bias = nnx.Param(jax.numpy.zeros(()))

    def hidden(self, batch, dropout_keys=None):
        raise AssertionError("sampling goes through the cache")

    def unembedding(self):
        return Unembedding(jax.numpy.eye(8))

    def start_decoding(self, prompts, max_length, num_samples=1):
        prompt = jax.numpy.repeat(prompts.tokens[:, 0], num_samples)
        return (prompt, jax.numpy.zeros((), "int32")), jax.numpy.zeros_like(prompt)

    def decode(self, cache, tokens):
        prompt, t = cache
        logits = 1e4 * jax.nn.one_hot(prompt, 8) - 1e4
        ending = (t > 0) & (jax.numpy.arange(8) == 1)
        return (prompt, t + 1), jax.numpy.where(ending, self.bias[...], logits)

    def reorder(self, cache, parents):
        return cache  # A prompt's rows are the same.


def policy():
    graph, state = nnx.split(Echo())
    return graph, nnx.to_pure_dict(state)


def test_answers_do_not_depend_on_batch_size_or_mesh():
    graph, params = policy()
    settings = [(mesh_of(1, 1, 1, 1), 1), (mesh_of(1, 1, 1, 1), 4), (mesh_of(8, 2, 2, 2), 4)]
    found = [
        [a.texts for a in Generator(size, num_samples=3, seed=7)(graph, params, mesh, Digits(6), 1.0)]
        for mesh, size in settings
    ]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 6 and len({text for texts in found[0] for text in texts}) > 6


def test_tokens_and_log_probs_end_with_eos():
    graph, params = policy()
    for answer in Generator(4, num_samples=8)(graph, params, mesh_of(1, 1, 1, 1), Digits(2), 1.0):
        for tokens, log_probs in zip(answer.tokens, answer.log_probs, strict=True):
            assert len(tokens) == len(log_probs) <= LENGTH
            assert tokens[-1] == 1 or len(tokens) == LENGTH
            np.testing.assert_allclose(log_probs[0], 0.0, atol=1e-3)  # the first token is sure
            np.testing.assert_allclose(log_probs[1:], np.log(0.5), atol=1e-3)  # then a coin


def test_another_top_p_leaves_the_generator_and_its_compilation_alone():
    graph, params = policy()
    generator, mesh = Generator(4, num_samples=8, min_p=0.01), mesh_of(1, 1, 1, 1)
    whole = [answer.texts for answer in generator(graph, params, mesh, Digits(2), 1.0)]
    before = generation._answer._cache_size()
    narrow = list(generator.with_top_p(0.4)(graph, params, mesh, Digits(2), 1.0))
    assert all(tokens == (answer.example["number"] + 2, 1) for answer in narrow for tokens in answer.tokens)
    assert [answer.texts for answer in generator(graph, params, mesh, Digits(2), 1.0)] == whole
    assert generation._answer._cache_size() == before
    with pytest.raises(UserError, match=r"top_p=1\.5 must be a number above 0"):
        generator.with_top_p(1.5)


def test_entropies_and_the_gap_of_log_probs_come_with_the_answers():
    config = dataclasses.replace(TINY, dropout_rate=0.0)
    graph, params = nnx.split(config.build(jax.random.key(0)))
    generator = Generator(4, num_samples=2, gauge=True)
    found = list(generator(graph, nnx.to_pure_dict(params), mesh_of(1, 1, 1, 1), Digits(2), 1.0))
    metrics, _ = measure(Digits(2), found)
    assert 0 <= metrics["log_prob_gap"] < 1e-4
    for answer in found:
        assert [len(e) for e in answer.entropies] == [len(tokens) for tokens in answer.tokens]
        assert all(0 < e <= np.log(128) for entropies in answer.entropies for e in entropies)


def test_filters_leave_the_likeliest():
    graph, params = policy()
    generator = Generator(4, num_samples=8, top_k=1)
    for answer in generator(graph, params, mesh_of(1, 1, 1, 1), Digits(2), 1.0):
        assert set(answer.tokens) == {(answer.example["number"] + 2, 1)}  # of equals the first: EOS
        assert answer.entropies[0][1] == pytest.approx(np.log(2), abs=1e-3)  # of the whole policy


def texts_of(found):
    return [answer.texts for answer in found]


def test_from_any_prompt_on_the_answers_are_the_same():
    graph, params = policy()
    generator, mesh = Generator(4, num_samples=3), mesh_of(1, 1, 1, 1)
    whole = texts_of(generator(graph, params, mesh, Digits(6), 1.0))
    for skip in (0, 1, 4, 5, 6):
        assert texts_of(generator(graph, params, mesh, Digits(6), 1.0, skip)) == whole[skip:]


@pytest.mark.parametrize("settings", [{"top_p": 0.9, "top_k": 20}, {"num_beams": 3}])
def test_a_network_answers_the_same_on_any_mesh_in_any_batch_and_order(settings):
    """Batch over data and fsdp, heads and vocabulary over tensor; the log-probabilities are those of teacher forcing."""
    graph, state = nnx.split(dataclasses.replace(TINY, dropout_rate=0.0).build(jax.random.key(0)))

    def answers_on(mesh, batch_size, order=None):
        params = jax.device_put(nnx.to_pure_dict(state), sharding.parameter_shardings(mesh, state))
        generator = Generator(batch_size, num_samples=2, gauge=True, **settings)
        found = list(generator(graph, params, mesh, Digits(6, order), 1.0))
        assert max(answer.log_prob_gap for answer in found) < 1e-4
        return sorted(found, key=lambda answer: answer.example["number"])

    one = answers_on(mesh_of(1, 1, 1, 1), 2)
    assert len({tokens for answer in one for tokens in answer.tokens}) == 12
    shuffled = [4, 0, 5, 2, 1, 3]
    for other in (
        answers_on(mesh_of(1, 1, 1, 1), 4, shuffled),
        answers_on(mesh_of(8, 2, 2, 2), 4, shuffled),
        answers_on(mesh_of(8, 8, 1, 1), 8),
        answers_on(mesh_of(8, 1, 2, 4), 2),
    ):
        assert [answer.tokens for answer in other] == [answer.tokens for answer in one]
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_allclose(
                np.concatenate(theirs.log_probs), np.concatenate(mine.log_probs), atol=1e-5
            )


def answers(*texts_of_prompts):
    return [
        Answers(
            {"number": i},
            texts,
            tuple((9,) * (len(text.split()) + 1) for text in texts),
            ((0.0,),) * len(texts),
        )
        for i, texts in enumerate(texts_of_prompts)
    ]


def test_measures_by_hand():
    """Prompt 0 is answered rightly by one of two samples, prompt 1 by both, which are the same."""
    metrics, per_prompt = measure(Digits(2), answers(("2 4", "5 5"), ("3 6", "3 6")))
    assert per_prompt["accuracy"] == [0.5, 1.0] and metrics["accuracy"] == 0.75
    assert per_prompt["self_bleu"][1] == pytest.approx(100.0)
    assert metrics["self_bleu"] == pytest.approx(np.mean(per_prompt["self_bleu"]))
    assert metrics["answer_tokens"] == 3.0
    assert metrics["distinct_1"] == 5 / 8  # 2 4 5 3 6 of eight
    assert metrics["distinct_2"] == 3 / 4


def test_entropy_is_a_mean_over_a_prompts_tokens_and_then_over_prompts():
    given = answers(("2", "2 4"), ("3 6", "3"))
    assert "entropy" not in measure(Digits(2), given)[0]
    values = [((0.5, 0.5), (1.0, 2.0, 1.0)), ((0.25,) * 3, (0.25, 0.25))]
    known = [dataclasses.replace(one, entropies=own) for one, own in zip(given, values, strict=True)]
    metrics, per_prompt = measure(Digits(2), known)
    assert per_prompt["entropy"] == [1.0, 0.25] and metrics["entropy"] == 0.625


def test_what_is_a_mean_over_prompts_has_its_values():
    class Odd(Digits):
        """Its task has BLEU's like, whose value of one prompt says nothing of the corpus, and a metric of all samples."""

        def metrics(self, predictions):
            return super().metrics(predictions) | {"corpus": 7.0}

        def prompt_metrics(self, example, texts):
            return super().prompt_metrics(example, texts) | {
                "corpus": 1.0,
                "pass_at_2": float("2 4" in texts),
            }

    metrics, per_prompt = measure(Odd(2), answers(("2 4", "5 5"), ("3 6", "3 6 6 6")))
    assert metrics["corpus"] == 7.0 and "corpus" not in per_prompt
    assert metrics["pass_at_2"] == 0.5 and per_prompt["pass_at_2"] == [1.0, 0.0]
    assert per_prompt["answer_tokens"] == [3.0, 4.0] and metrics["answer_tokens"] == 3.5
    assert per_prompt["prompt_distinct_1"] == [3 / 4, 2 / 6]  # 2 4 5 of four, 3 6 of six
    assert metrics["prompt_distinct_1"] == pytest.approx((3 / 4 + 2 / 6) / 2)
    assert all(metrics[name] == pytest.approx(np.mean(values)) for name, values in per_prompt.items())


def scored(given, *returns):
    return [
        dataclasses.replace(answer, scores={"return": own, "log_likelihood": tuple(-r for r in own)})
        for answer, own in zip(given, returns, strict=True)
    ]


class Voted(Digits):
    """Its task asks for scores where there are any, and has a metric of the whole corpus."""

    def metrics(self, predictions):
        return super().metrics(predictions) | {"corpus": float(len(set(predictions)))}

    def prompt_metrics(self, example, texts, scores=None):
        found = super().prompt_metrics(example, texts) | {"corpus": 0.25}
        return found | ({"weighted": sum(scores["return"])} if scores else {})


def test_the_best_sample_of_each_prompt_by_hand():
    """By return both prompts' first right sample, of equals the first; by its opposite a wrong one and a right one."""
    given = answers(("5 5", "2 4", "2"), ("3 6", "3", "3 6"))
    metrics, per_prompt = measure(Voted(2), scored(given, (0.0, 2.0, 1.0), (1.0, 0.5, 1.0)))
    assert metrics["best_of_3_by_return/accuracy"] == 1.0
    assert metrics["best_of_3_by_log_likelihood/accuracy"] == 0.5
    assert per_prompt["best_of_3_by_log_likelihood/accuracy"] == [0.0, 1.0]
    assert metrics["best_of_3_by_return/corpus"] == 2.0
    assert "best_of_3_by_return/corpus" not in per_prompt and "best_of_3_by_return/weighted" not in metrics
    assert per_prompt["weighted"] == [3.0, 2.5] and metrics["weighted"] == 2.75
    plain, _ = measure(Voted(2), given)
    assert {name for name in metrics if "best_of" not in name} - set(plain) == {"weighted"}
    assert metrics["accuracy"] == plain["accuracy"]


def test_metrics_of_scored_samples_are_known_before_any_answer_is():
    names = names_with(("return",))
    assert "best_of_2_by_return/accuracy" in names and "weighted" in names
    assert not [name for name in names_with(()) if "best_of" in name]


def names_with(scores):
    return evaluator.metric_names(Voted(3), 2, scores=scores)


def test_a_row_has_scores_and_which_sample_is_best_where_there_are_any():
    [plain] = answers(("5 5", "2 4"))
    assert set(evaluator.answer_row(plain)) == {"inputs", "targets", "samples", "log_probs"}
    [answer] = scored([plain], (-1.25, 0.5))
    row = evaluator.answer_row(answer)
    assert row["returns"] == [-1.25, 0.5] and row["best"] == {"return": 1, "log_likelihood": 0}
    assert "log_likelihoods" not in row and row["samples"] == ["5 5", "2 4"]


def test_answers_that_cannot_be_measured():
    with pytest.raises(UserError, match="0 prompts have no samples"):
        measure(Digits(0), [])
    with pytest.raises(UserError, match="2 prompts have 1 or 2 samples; answer each equally often"):
        measure(Digits(2), answers(("2 4",), ("3 6", "3 6")))


def test_one_sample_has_no_diversity():
    metrics, _ = measure(Digits(2), answers(("2 4",), ("3 6",)))
    assert "self_bleu" not in metrics and metrics["accuracy"] == 1.0


def test_the_evaluator_writes_its_answers(tmp_path):
    graph, params = policy()
    evaluator = Evaluator(Digits(3), Generator(4), temperature=0.0)
    metrics = evaluator(graph, params, mesh_of(1, 1, 1, 1), epath.Path(tmp_path), 12)
    assert metrics["eval/digits/accuracy"] == 1.0
    lines = (tmp_path / "inference_eval/digits-000012.jsonl").read_text().splitlines()
    assert [json.loads(line)["inputs"] for line in lines] == ["0", "1", "2"]
    assert Evaluator(None, Generator(4))(graph, params, mesh_of(1, 1, 1, 1), epath.Path(tmp_path), 1) == {}


def test_of_several_temperatures_metrics_are_means(tmp_path):
    config = dataclasses.replace(TINY, dropout_rate=0.0)
    graph, state = nnx.split(config.build(jax.random.key(0)))
    network, mesh = (graph, nnx.to_pure_dict(state)), mesh_of(1, 1, 1, 1)
    generator = Generator(4, num_samples=3)

    def metrics(temperature, name):
        evaluate = Evaluator(Digits(6), generator, temperature, label="sampled")
        return evaluate(*network, mesh, epath.Path(tmp_path / name), step=12)

    both, low, high = metrics([0.5, 2.0], "both"), metrics(0.5, "low"), metrics([2.0], "high")
    assert low["eval/digits/sampled/self_bleu"] != high["eval/digits/sampled/self_bleu"]
    for name, value in both.items():
        assert value == pytest.approx((low[name] + high[name]) / 2), name
    folder = tmp_path / "both" / "inference_eval"
    names = ["digits-sampled-T0.5-000012.jsonl", "digits-sampled-T2-000012.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == names
    one = tmp_path / "high" / "inference_eval" / "digits-sampled-000012.jsonl"
    assert (folder / names[1]).read_text() == one.read_text()
    with pytest.raises(UserError, match="temperature="):
        Evaluator(Digits(6), generator, [0.5, 0.5])


def test_metrics_say_over_how_many_of_how_many_prompts(tmp_path):
    """The first 3 of 150: as numbers among the metrics, and in words for the log."""
    graph, params = policy()
    data = Digits(3)
    evaluator = Evaluator(data, Generator(4))
    metrics = evaluator(graph, params, mesh_of(1, 1, 1, 1), epath.Path(tmp_path), 1)
    assert metrics["eval/digits/prompts"] == 3 and "eval/digits/prompts_available" not in metrics
    assert evaluator.describe_counts(metrics) == "3 prompts"
    data.available = 150
    metrics = evaluator(graph, params, mesh_of(1, 1, 1, 1), epath.Path(tmp_path), 2)
    assert metrics["eval/digits/prompts_available"] == 150 and set(evaluator.metric_names()) == set(metrics)
    assert evaluator.describe_counts(metrics) == "the first 3 of 150 prompts"
    data.available = 3
    assert evaluator.describe_counts(metrics) == "all 3 prompts"


def test_evaluators_of_one_run_have_different_names(tmp_path):
    """By a label, in metrics and files; their metrics are known before any answer is."""
    graph, params = policy()
    sampled = Evaluator(Digits(3), Generator(2, num_samples=2), temperature=1.0, label="sampled")
    metrics = sampled(graph, params, mesh_of(1, 1, 1, 1), epath.Path(tmp_path), 12)
    assert "eval/digits/sampled/accuracy" in metrics and "eval/digits/sampled/self_bleu" in metrics
    assert [path.name for path in (tmp_path / "inference_eval").iterdir()] == ["digits-sampled-000012.jsonl"]
    assert set(sampled.metric_names()) == set(metrics)
    greedy = Evaluator(Digits(3), Generator(2, gauge=True)).metric_names()
    assert {"eval/digits/accuracy", "eval/digits/log_prob_gap"} <= set(greedy)
    assert "eval/digits/self_bleu" not in greedy
    assert Evaluator(None, Generator(2)).metric_names() == []
    with pytest.raises(UserError, match="temperature=-1 must be a number of 0"):
        Evaluator(Digits(3), Generator(2), temperature=-1).check(mesh_of(1, 1, 1, 1))


def test_what_does_not_fit():
    graph, params = policy()
    with pytest.raises(UserError, match="num_samples=0 must be"):
        Generator(num_samples=0)
    with pytest.raises(UserError, match=r"temperature -0.5 must be 0"):
        next(Generator(4)(graph, params, mesh_of(1, 1, 1, 1), Digits(2), -0.5))
    with pytest.raises(UserError, match="temperature nan must be 0"):
        next(Generator(4)(graph, params, mesh_of(1, 1, 1, 1), Digits(2), float("nan")))
    with pytest.raises(UserError, match="top_k=-1 must be"):
        Generator(top_k=-1)
    for top_p in (0.0, 1.1, float("nan")):
        with pytest.raises(UserError, match=f"top_p={top_p} must be a number above 0"):
            Generator(top_p=top_p)
    with pytest.raises(UserError, match=r"min_p=-0.1 must be"):
        Generator(min_p=-0.1)
    with pytest.raises(UserError, match="num_samples=True must be a whole number of 1 or more"):
        Generator(num_samples=True)
    with pytest.raises(UserError, match="seed=-1 must be"):
        Generator(seed=-1)
    with pytest.raises(UserError, match="NUM_SAMPLES=3 of NUM_BEAMS=2"):
        Generator(num_beams=2, num_samples=3)
    with pytest.raises(UserError, match="num_beams=0 must be"):
        Generator(num_beams=0)
    with pytest.raises(UserError, match="beam_alpha=-1 must be"):
        Generator(num_beams=2, beam_alpha=-1)
    with pytest.raises(UserError, match="leave them out with NUM_BEAMS=2"):
        Generator(num_beams=2, top_p=0.9)
    with pytest.raises(UserError, match=r"temperature 0.5 with NUM_BEAMS=2"):
        Generator(num_beams=2).check_temperature(0.5)
    with pytest.raises(UserError, match="EVAL_BATCH_SIZE=6"):
        Generator(6).check(mesh_of(8, 2, 2, 2))
