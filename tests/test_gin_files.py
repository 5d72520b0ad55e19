"""Every bundled gin file parses and builds what it is for."""

import inspect
import math
import pathlib

import gin
import jax
import numpy as np
import optax
import pytest
from flax import nnx

from lmirl_jax import (
    checkpoints,
    configuration,
    evaluation,
    models,
    objectives,
    online,
    rewards,
    sharding,
    soft_q,
    training,
)
from lmirl_jax.models.abstract import build
from tests import decoder_only_sizes
from tests.fakes import make_run
from tests.tpus import tpus

RUN_BINDINGS = ["MODEL_DIR = '/unused'", "TRAIN_STEPS = 7"]
SETTINGS = [
    "VOCAB_SIZE = 32128",
    "DECODER_START_ID = 0",
    "DROPOUT_RATE = 0.1",
    "DTYPE = 'bfloat16'",
    "REMAT = 'full'",
]
# The vocabulary of each family's checkpoints, and the parameters of transformers' network of each size (5.23, counted without
# allocating it; an output layer that is not tied counts). The sizes are those of T5X's gin files, and for T5Gemma of
# https://github.com/google-deepmind/gemma; keras-hub's presets give T5Gemma b-b 591,490,560 as well.
T5_1_1 = {
    "small": 76_961_152,
    "base": 247_577_856,
    "large": 783_150_080,
    "xl": 2_849_757_184,
    "xxl": 11_135_332_352,
}
SIZES = {
    "t5_1_0": (
        32128,
        {
            "small": 60_506_624,
            "base": 222_903_552,
            "large": 737_668_096,
            "3b": 2_851_598_336,
            "11b": 11_307_321_344,
        },
    ),
    "t5_1_1": (32128, T5_1_1),
    "flan_t5": (32128, T5_1_1),
    "mt5": (
        250112,
        {
            "small": 300_176_768,
            "base": 582_401_280,
            "large": 1_229_581_312,
            "xl": 3_742_619_648,
            "xxl": 12_921_057_280,
        },
    ),
    "byt5": (
        384,
        {
            "small": 299_637_760,
            "base": 581_653_248,
            "large": 1_228_183_552,
            "xl": 3_737_801_728,
            "xxl": 12_906_899_328,
        },
    ),
    "umt5": (
        256384,
        {"small": 306_601_984, "base": 592_043_520, "xl": 3_768_356_864, "xxl": 12_972_531_712},
    ),
    "t5gemma": (
        256000,
        {
            "small": 312_517_632,
            "base": 591_490_560,
            "large": 1_241_761_792,
            "ml": 2_200_345_344,
            "xl": 3_766_980_608,
            "2b_2b": 5_596_853_760,
            "9b_2b": 12_292_375_296,
            "9b_9b": 20_333_401_088,
        },
    ),
}
# A file that only others include, and T5 1.1 tiny, which is not one of T5's sizes.
UNPUBLISHED = ["gin/models/t5_1_1/tiny.gin", "gin/models/t5gemma/family.gin", *decoder_only_sizes.INCLUDED]
# The vocabulary and the parameters of each size of each family.
ALL_SIZES = {
    (family, size): (vocab_size, count)
    for family, (vocab_size, counts) in SIZES.items()
    for size, count in counts.items()
}
ALL_SIZES |= {
    (family, size): both for family, sizes in decoder_only_sizes.SIZES.items() for size, both in sizes.items()
}


def files(folder: str) -> list[str]:
    found = [name for name in configuration.bundled_files() if name.startswith(f"gin/{folder}/")]
    assert found
    return found


def test_every_file_belongs_to_a_tested_folder():
    assert {name.split("/")[1] for name in configuration.bundled_files()} == {
        "adapters",
        "models",
        "objectives",
        "meshes",
        "optimizers",
        "runs",
    }


def test_every_published_size_has_a_file():
    published = [f"gin/models/{family}/{size}.gin" for family, size in ALL_SIZES]
    assert sorted([*published, *UNPUBLISHED]) == files("models")


@pytest.mark.parametrize(("family", "size"), ALL_SIZES)
def test_models_have_their_published_sizes(family, size):
    vocab_size, count = ALL_SIZES[family, size]
    # Another family's file first: each must undo what that one has bound.
    others = ["t5_1_0/small", "umt5/small", "t5_1_1/tiny", "qwen2_5/qwen2_5_7b", "gemma3/gemma3_4b"]
    others = [f"gin/models/{name}.gin" for name in others]
    settings = [f"VOCAB_SIZE = {vocab_size}", *SETTINGS[1:]]
    configuration.load([*others, f"gin/models/{family}/{size}.gin"], settings, complete=False)
    model = configuration.macro("MODEL")
    assert (model.vocab_size, model.dtype, model.remat) == (vocab_size, "bfloat16", "full")
    assert (model.dropout_rate, model.scan_unroll) == (0.1, 1)
    assert models.parameter_count(model) == count


def test_the_tiny_model():
    configuration.load(["gin/models/t5_1_1/tiny.gin"], ["VOCAB_SIZE = 384", *SETTINGS[1:]], complete=False)
    assert models.parameter_count(configuration.macro("MODEL")) == 886_528


# What each file's objective is: the plain function and the options that the file states.
OBJECTIVES = {
    "mle": (objectives.mle, {}),
    "iqlearn": (objectives.iqlearn, {"td_weight": 0.1}),
    "iqlearn_hellinger": (objectives.iqlearn, {"td_weight": 0.1, "phi": objectives.hellinger}),
    "iqlearn_reverse_kl": (objectives.iqlearn, {"td_weight": 0.1, "phi": objectives.reverse_kl}),
    "iqlearn_forward_kl": (objectives.iqlearn, {"td_weight": 0.1, "phi": objectives.forward_kl}),
    "iqlearn_jensen_shannon": (objectives.iqlearn, {"td_weight": 0.1, "phi": objectives.jensen_shannon}),
    "iqlearn_total_variation": (objectives.iqlearn, {"td_weight": 0.1, "phi": objectives.total_variation}),
    "entropy_regularised_mle": (objectives.entropy_regularised_mle, {"entropy_weight": 0.1}),
    "gem": (objectives.gem, {}),
    "dft": (objectives.dft, {}),
    "focal": (objectives.focal, {"focus": 2.0}),
}


def small_soft_q(temperature: float | None = None):
    logits = 2 * jax.random.normal(jax.random.key(0), (2, 3, 5))
    targets = jax.random.randint(jax.random.key(1), (2, 3), 0, 5)
    discounts = jax.numpy.ones((2, 3)).at[:, -1].set(0.0)
    return soft_q.from_logits(
        logits, targets, temperature=temperature, with_entropy=True, with_sum=True
    ), discounts


@pytest.mark.parametrize("name", files("objectives"))
def test_objectives(name):
    """The objective as gin wraps it is, called, the plain function with the options that the file states."""
    # The run's own choice first: a file must undo what another has bound.
    others = ["gin/objectives/iqlearn_hellinger.gin"] if name.endswith("/iqlearn.gin") else []
    configuration.load([*others, name], complete=False)
    objective, td_weight = configuration.macro("OBJECTIVE"), configuration.macro("TD_WEIGHT")
    plain_name = name.split("/")[-1].removesuffix(".gin")
    function, options = OBJECTIVES.get(plain_name) or (getattr(objectives, plain_name), {})
    assert td_weight == options.get("td_weight", 0.0)
    temperature = configuration.macro("SOFT_Q_TEMPERATURE", None)
    assert temperature == (0.7 if function is objectives.gem else None)
    out, discounts = small_soft_q(temperature)
    given = {"discounts": discounts, "td_weight": td_weight} if function is objectives.iqlearn else {}
    assert set(given) <= set(inspect.signature(objective).parameters)  # How the trainer knows what to give.
    plain = function(out, **{**given, **options})
    np.testing.assert_array_equal(objective(out, **given), plain)
    if name.split("/")[-1] != "mle.gin":
        assert np.abs(plain - objectives.mle(out)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "binding", "function", "options"),
    [
        ("mle", "LABEL_SMOOTHING = 0.1", objectives.mle, {"label_smoothing": 0.1, "vocab_size": 5}),
        ("mle", "Z_LOSS = 1e-4", objectives.mle, {"z_loss": 1e-4}),
        ("focal", "FOCUS = 0.5", objectives.focal, {"focus": 0.5}),
        (
            "entropy_regularised_mle",
            "ENTROPY_WEIGHT = 0.05",
            objectives.entropy_regularised_mle,
            {"entropy_weight": 0.05},
        ),
    ],
)
def test_what_is_commonly_overridden_in_objectives(name, binding, function, options):
    configuration.load([f"gin/objectives/{name}.gin"], [binding], complete=False)
    out, _ = small_soft_q()
    given = {"vocab_size": 5} if "vocab_size" in options else {}
    np.testing.assert_array_equal(configuration.macro("OBJECTIVE")(out, **given), function(out, **options))


@pytest.mark.parametrize("name", files("optimizers"))
def test_optimizers_move_by_what_they_state(name):
    """T5X's fine-tuning: a thousandth of a matrix's size from the first update to the last, whatever the gradient's."""
    bindings = [*RUN_BINDINGS, "MIXTURE_OR_TASK_NAME = 'number_paths'"]
    configuration.load(["gin/runs/finetune.gin", name], bindings)
    optimizer = gin.get_bindings(training.train)["optimizer"]
    params = {"kernel": 2 * jax.numpy.ones((4, 6))}
    state = optimizer.init(params)
    for gradient in (0.1, 1.0, 1.0):
        updates, state = optimizer.update({"kernel": gradient * params["kernel"]}, state, params)
        rate = optax.tree_utils.tree_get(
            state, "learning_rate", filtering=lambda _, x: isinstance(x, jax.Array)
        )
        np.testing.assert_allclose(rate, 1e-3, rtol=1e-6)
        np.testing.assert_allclose(updates["kernel"], -2e-3, rtol=1e-5)
    bindings.append("LEARNING_RATE_SCHEDULE = @training.rsqrt_decay()")
    configuration.load(["gin/runs/finetune.gin", name], bindings)
    rate = gin.get_bindings(training.train)["optimizer"].init(params).hyperparams["learning_rate"]
    np.testing.assert_allclose(rate, 1e-2, rtol=1e-6)


# The chips that a mesh is made for: their kind, the sides of a slice, and the number of slices.
CHIPS = {
    "v4_128": ("TPU v4", (4, 4, 4), 1),
    "v5e_256": ("TPU v5 lite", (16, 16), 1),
    "v5p_512": ("TPU v5", (4, 8, 8), 1),
    "v6e_256": ("TPU v6 lite", (16, 16), 1),
    "two_slices_v5e_256": ("TPU v5 lite", (16, 16), 2),
}


@pytest.mark.parametrize("name", files("meshes"))
def test_meshes(name):
    chips = CHIPS.get(pathlib.Path(name).stem)
    devices = jax.devices() if chips is None else tpus(*chips)
    configuration.load([name], complete=False)
    with sharding.use_devices(devices):
        mesh = configuration.macro("MESH")
    assert set(mesh.devices.flat) == set(devices) and mesh.axis_names == (
        "slices",
        "data",
        "fsdp",
        "sequence",
        "tensor",
    )


@pytest.mark.parametrize("model", ["t5_1_1/xxl", "gemma2/gemma2_9b"])
@pytest.mark.parametrize("name", CHIPS)
def test_meshes_of_pods_divide_large_models(name, model):
    """The memory of the parameters of a chip is the model's, divided by its slice's chips, but for norms and biases."""
    given = [f"gin/models/{model}.gin", f"gin/meshes/{name}.gin"]
    configuration.load(given, SETTINGS, complete=False)
    with sharding.use_devices(tpus(*CHIPS[name])):
        mesh = configuration.macro("MESH")
    _, variables = build(configuration.macro("MODEL"))
    places = jax.tree.leaves(sharding.parameter_shardings(mesh, variables))
    sizes = [variable.shape for _, variable in nnx.to_flat_state(variables)]
    parts = sum(math.prod(place.shard_shape(size)) for place, size in zip(places, sizes, strict=True))
    whole = sum(map(math.prod, sizes))
    assert whole / mesh.size * mesh.shape["slices"] <= parts < 1.01 * whole / mesh.size * mesh.shape["slices"]


def test_finetune_defaults():
    configuration.load(["gin/runs/finetune.gin"], [*RUN_BINDINGS, "MIXTURE_OR_TASK_NAME = 'number_paths'"])
    model = configuration.macro("MODEL")
    assert (model.emb_dim, model.num_encoder_layers, model.vocab_size) == (512, 8, 384)
    assert configuration.macro("OBJECTIVE").__doc__ == objectives.iqlearn.__doc__
    assert configuration.macro("INITIAL_CHECKPOINT_PATH") is None
    schedule = configuration.macro("LEARNING_RATE_SCHEDULE")
    np.testing.assert_allclose(
        [schedule(999), schedule(1999), schedule(10**6)], [5e-5, 1e-4, 1e-4], rtol=1e-6
    )


@pytest.mark.parametrize("name", ["gin/runs/finetune.gin", "gin/runs/number_paths.gin"])
def test_training_runs_build_every_argument(name):
    """All that `lmirl train` would hand to the trainer is made; gin resolves references when bindings are read."""
    configuration.load([name], [*RUN_BINDINGS, "MIXTURE_OR_TASK_NAME = 'number_paths'"])
    arguments = gin.get_bindings(training.train)
    assert {"model", "learner", "optimizer", "data", "mesh", "evaluations"} <= set(arguments)
    assert arguments["learner"].td_weight == 0.1
    assert arguments["train_steps"] == 7 and arguments["best"].metric is None
    _, greedy, sampled = arguments["evaluations"]
    assert (greedy.temperatures, greedy.generator.num_samples, greedy.label) == ((0.0,), 1, "")
    assert (sampled.temperatures, sampled.generator.num_samples, sampled.label) == ((1.0,), 4, "sampled")
    assert greedy.generator.batch_size == sampled.generator.batch_size > 1 and len(sampled.data) == 100
    assert arguments["data"].num_examples > 1000


def test_the_quickstart_fine_tunes_what_is_shipped_on_few_demonstrations():
    """From any folder, and with the task of its own file rather than the one that the shipped model was trained on."""
    given = ["gin/runs/quickstart.gin", "gin/objectives/mle.gin"], ["MODEL_DIR = '/unused'"]
    assert "MIXTURE_OR_TASK_NAME" in configuration.explicit_keys(*given)
    assert "MIXTURE_OR_TASK_NAME" not in configuration.explicit_keys(["gin/runs/online_iqlearn.gin"], [])
    configuration.load(*given)
    arguments = gin.get_bindings(training.train)
    assert arguments["data"].task.name == "number_paths_large" and arguments["data"].num_examples == 300
    start = pathlib.Path(arguments["initial_checkpoint_path"])
    assert (start / "config.gin").is_file() and checkpoints.find_checkpoint(str(start)).name == "3000"
    _, sampled = arguments["evaluations"]
    arguments["best"].check(sampled.metric_names())
    assert sampled.temperatures == (0.25, 0.5, 0.75, 1.0)


ONLINE = {
    "online_iqlearn": (online.OnlineIQLearn, None, ()),
    "gail": (online.PolicyGradient, online.Adversary, ("value", "discriminator")),
    "gad": (online.PolicyGradient, online.PairwiseAdversary, ("discriminator",)),
    "grpo": (online.PolicyGradient, online.RewardFunction, ()),
}


@pytest.mark.parametrize("name", ONLINE)
def test_online_runs_build_their_learner(name):
    """On the embedded task by default, with as many rollouts as demonstrations, whatever a prompt's share of them."""
    configuration.load([f"gin/runs/{name}.gin"], ["MODEL_DIR = '/unused'", "BATCH_SIZE = 32"])
    learner = gin.get_bindings(training.train)["learner"]
    kind, reward, heads = ONLINE[name]
    assert isinstance(learner, kind) and learner.rollouts.rows == 32
    assert learner.rollouts.prompts.task.name == "number_paths"
    if reward is not None:
        assert isinstance(learner.reward, reward) and learner.heads == heads


def test_ppo_and_leave_one_out_are_settings_of_grpo():
    settings = ["MODEL_DIR = '/unused'", "SAMPLES_PER_PROMPT = 1", "ADVANTAGES = @objectives.gae"]
    configuration.load(["gin/runs/grpo.gin"], settings)
    assert gin.get_bindings(training.train)["learner"].heads == ("value",)
    configuration.load(
        ["gin/runs/grpo.gin"], ["MODEL_DIR = '/unused'", "ADVANTAGES = @objectives.leave_one_out"]
    )
    assert gin.get_bindings(training.train)["learner"].rollouts.samples_per_prompt == 4


def test_rl_from_a_reward_loads_what_rewards(tmp_path):
    """A run of another length, gamma and seed; one that also corrects; and a learned value where it is asked for."""
    reward = make_run(
        tmp_path / "reward", "DISCOUNT = 0.9", "TASK_FEATURE_LENGTHS = {'inputs': 9, 'targets': 24}"
    )
    bindings = ["MODEL_DIR = '/unused'", f"REWARD_CHECKPOINT_PATH = '{reward}'", "BATCH_SIZE = 32"]
    configuration.load(["gin/runs/rl_from_reward.gin"], bindings)
    learner = gin.get_bindings(training.train)["learner"]
    assert isinstance(learner.reward, online.FrozenReward) and learner.heads == ()
    assert learner.reward.policy.discount == 0.9 and learner.rollouts.discount == 1.0
    assert learner.rollouts.prompts.lengths["targets"] == 23 and learner.loss.kl_weight > 0
    assert learner.reward.reference is None
    both = [f"REFERENCE_PATH = '{reward}'", "BETA = 0.5", "SHAPING = 'value'"]
    configuration.load(["gin/runs/rl_from_reward.gin"], [*bindings, *both, "ADVANTAGES = @objectives.gae"])
    learner = gin.get_bindings(training.train)["learner"]
    assert learner.heads == ("value",) and learner.reward.shaping == "value"
    assert learner.reward.reference.checkpoint == learner.reward.policy.checkpoint


def test_the_filter_runs_settings_are_the_functions_own():
    configuration.load(["gin/runs/filter.gin"], ["SCORED = 'a'", "OUTPUT_PATH = 'b'"])
    assert configuration.with_configuration(rewards.FilterConfig)() == rewards.FilterConfig()


def test_the_papers_beams():
    bindings = [*RUN_BINDINGS, "CHECKPOINT_PATH = '/unused'"]
    configuration.load(["gin/runs/number_paths.gin", "gin/runs/beam_eval.gin"], bindings)
    with gin.config_scope("sweep"):
        generator = configuration.with_configuration(evaluation.Generator)()
    assert (generator.num_beams, generator.beam_alpha, generator.num_samples) == (4, 0.6, 1)
    assert configuration.macro("TEMPERATURES") == [1.0]
    assert (configuration.macro("EVAL_SPLIT"), configuration.macro("EVALUATOR_NUM_EXAMPLES", None)) == (
        "test",
        None,
    )


@pytest.mark.parametrize("name", ["gin/runs/eval.gin", "gin/runs/beam_eval.gin", "gin/runs/infer.gin"])
def test_runs_over_a_checkpoint(name):
    bindings = [*RUN_BINDINGS, "MIXTURE_OR_TASK_NAME = 'number_paths'", "CHECKPOINT_PATH = '/unused'"]
    configuration.load(["gin/runs/number_paths.gin", name], bindings)
    assert configuration.macro("CHECKPOINT_PATH") == "/unused"
    text = configuration.config_text()
    assert "number_paths" in text and "CHECKPOINT_PATH" in text
