"""A walk over everything that gin files can set: each wrong value is refused in one line, or accepted for a stated reason.

The table says what each argument may be, a second time and by hand: it is held against the annotations of the library.
"""

import inspect
import json
import math

import gin
import pytest

from lmirl_jax import (
    argument_rules,
    arguments,
    configuration,
    configuration_values,
    objectives,
    training,
)
from lmirl_jax.cli import main
from lmirl_jax.types import UserError
from tests.pretrained import GOLDEN

WRONG = {
    "None": None,
    "text": "a",
    "empty": "",
    "True": True,
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "nan": math.nan,
    "inf": math.inf,
    "1e39": 1e39,  # Above float32's largest.
    "list": [],
    "dictionary": {},
    "function": training.adamw,  # A configurable without brackets.
}
# Which of these an argument of each kind takes, and why.
KINDS = {
    "count": "",  # 1 or more of something
    "whole": "0",  # 0 or more of something
    "seed": "0",
    "positive": "1.5",
    "non-negative": "0 1.5",
    "number": "-1 0 1.5",
    "share": "0",  # from 0 to 1
    "positive-share": "",  # above 0 and at most 1
    "share-below": "0",  # from 0 to below 1, or below 1/2
    "rate": "1.5",  # a positive number or a schedule of them
    "weight": "0 1.5",  # a number of 0 or more, or a schedule of them
    "switch": "True",
    "text": "text",
    "label": "text empty",  # the empty one is no label
    "path": "text",  # whether something is there shows when it is read
    "choice": "",  # one of a few texts
    "choices": "",  # a list of a few texts, one or more
    "lengths": "",
    "axis": "-1",  # of the mesh: -1 is what the others leave
    "rules": "dictionary",  # mesh axes by logical axis; none of them changes nothing
    "numbers": "",  # a list of one or more
    "texts": "text",  # one, or a list of one or more
    "columns": "",  # names of columns by role, one or more
    "corruptions": "dictionary",  # functions by name; none of them tests nothing
    "function": "function",  # any: which arguments it takes shows at its first call
    "certain": "",  # a function with certain arguments, a loss, a divergence
    "metrics": "",  # a list of names, or functions; none of them computes nothing
    "objects": "list",  # none of them is nothing to do
    "object": "",  # what a configurable with brackets makes
    "caller": "",  # given by whoever calls the function, so that a binding would have no effect
}
# Of each configurable what its arguments may be, in their order; '?' may be None too.
TABLE = {
    "cli.convert_script.convert": "path path choice choice? path? object?",
    "cli.eval_script.evaluate": "caller object object object? object numbers path? caller",
    "cli.infer_script.infer": "caller object object object object non-negative path? object function?",
    "cli.report_plan.ReportConfig": "text? text? corruptions? function? seed function? corruptions?",
    "cli.report_plan.RewardingRun": (
        "caller caller caller object object object lengths share object? object certain non-negative"
    ),
    "cli.reranking.Reranking": "switch? path? share? share",
    "cli.score_script.score": (
        "caller caller object object object lengths share certain certain path? path? switch"
    ),
    "cli.sweep_plan.AnsweringRun": "caller caller caller object object object? object object",
    "cli.sweep_plan.SweepConfig": "numbers numbers text texts? text? whole positive?",
    "data.TrainDataset": (
        "object count lengths text share seed switch switch path? count? seed choice choice switch count switch switch"
    ),
    "data.get_task": "text? path? path? path? switch? columns? share-below objects?",
    "data.pairs": "object lengths path? text count? switch",
    "data.prompts": "certain path? object lengths count? switch",
    "data.validation_dataset": "object lengths text count? share switch switch switch",
    "data.decoder_start_id": "object",
    "data.vocab_size": "object",
    "evaluation.Evaluator": "object? object non-negative label path",
    "evaluation.Generator": (
        "count count count? seed whole? positive-share share count? non-negative switch switch"
    ),
    "evaluation.metric_functions": "metrics? text text",
    "labelled.Fills": "function? number choice?",
    "labelled.Gaps": "function?",
    "labelled.ILQL": "object",
    "labelled.ILQLLoss": "positive-share non-negative non-negative non-negative positive positive share object",
    "labelled.RewardLoss": "certain",
    "labelled.RewardModel": "object",
    "labelled.RewardValidation": "object? object count count?",
    "labelled.Labels": "choice function? function? number function? function? count share share switch seed",
    "labelled.PreferenceLoss": (
        "certain certain non-negative switch choice switch non-negative weight object"
    ),
    "labelled.PreferenceValidation": "object? object function count count?",
    "labelled.Preferences": "object",
    "models.DecoderOnlyConfig": (
        "count count count count count count count choice switch positive object? positive? count? choices? positive? switch "
        "switch positive? positive? positive non-negative switch switch switch share-below choice choice count whole choice"
    ),
    "models.HeadsConfig": "object objects objects non-negative",
    "models.LinearRopeScaling": "positive",
    "models.Llama3RopeScaling": "positive positive positive count",
    "models.LoRAConfig": "object count positive share-below choices choice?",
    "models.T5Config": (
        "count count count count count count count share-below choice choice count count count whole "
        "choices switch switch? switch positive choice"
    ),
    "models.T5GemmaConfig": (
        "count object object positive? switch share-below choice choice count whole choice"
    ),
    "models.T5GemmaStackConfig": (
        "count count count count count count count choices? positive? positive? positive choice positive"
    ),
    "objectives.chi_squared": "caller",
    "objectives.dft": "caller",
    "objectives.dpo": "caller positive share-below",
    "objectives.entropy_regularised_mle": "caller non-negative",
    "objectives.focal": "caller non-negative",
    "objectives.forward_kl": "caller",
    "objectives.gae": "caller caller caller caller caller share",
    "objectives.gem": "caller",
    "objectives.group_relative": "caller switch positive whole",
    "objectives.hellinger": "caller",
    "objectives.hinge": "caller positive",
    "objectives.ipo": "caller positive",
    "objectives.iqlearn": "caller caller caller non-negative non-negative number non-negative certain",
    "objectives.jensen_shannon": "caller",
    "objectives.mle": "caller share-below non-negative caller",
    "objectives.reverse_kl": "caller",
    "objectives.softplus_reward": "caller",
    "objectives.total_variation": "caller",
    "online.Adversary": "certain count share-below non-negative",
    "online.FrozenReward": "object choice? share? object? non-negative",
    "online.Loss": "certain non-negative non-negative? switch weight non-negative non-negative choice switch object",
    "online.OnlineIQLearn": "certain object weight share-below switch object",
    "online.PairwiseAdversary": "count non-negative",
    "online.PolicyGradient": "object object object object? switch",
    "online.RewardFunction": "function",
    "online.Rollouts": "object count count count? whole? positive share",
    "online.num_prompts": "count count",
    "rewards.FilterConfig": "text count? positive-share choice positive?",
    "rewards.RolloutScores": "object? function? count count positive seed",
    "rewards.Scorer": "object count lengths? share? object? non-negative choice? switch",
    "rewards.answer_returns": "object?",
    "rewards.dropped_step": "caller caller caller text?",
    "rewards.repeated_step": "caller caller caller text?",
    "rewards.shuffled_steps": "caller caller caller text?",
    "rewards.truncation": "caller caller caller text?",
    "rewards.wrong_digit": "caller caller caller",
    "runs.load": "path object? object? path? switch?",
    "runs.load_if_any": "path? object? object?",
    "sharding.make_mesh": "axis axis axis axis count? rules?",
    "tasks.number_paths.model": "",
    "tasks.number_paths.reward": "caller caller",
    "tasks.number_paths.wrong_step": "caller caller caller",
    "tasks.operation_chains.random_step_scores": "caller caller",
    "tasks.operation_chains.reward": "caller caller",
    "tasks.operation_chains.step_scores": "caller caller",
    "training.BestConfig": "text? choice? count? non-negative",
    "training.CheckpointConfig": "count count? count? switch",
    "training.FaultConfig": "choice count positive? count positive?",
    "training.Offline": "certain weight object switch",
    "training.SoftQConfig": "positive? whole?",
    "training.Validation": "object? certain weight object count count?",
    "training.adafactor": "rate switch positive-share count positive?",
    "training.adamw": "rate share-below share-below positive non-negative positive? switch",
    "training.annealed": "non-negative non-negative whole whole",
    "training.delayed_constant": "non-negative whole whole",
    "training.train": (
        "path count object object object object object objects count object object path? objects count switch seed count objects "
        "switch text? object caller"
    ),
    "training.warmup_constant": "positive whole",
}


@pytest.fixture(scope="module", autouse=True)
def _restored():
    yield
    gin.clear_config()


def reached() -> dict[str, tuple[str, str]]:
    """Every configurable of the library that a bundled gin file names: the file, and gin's selector for it."""
    found: dict[str, tuple[str, str]] = {}
    for file in configuration.bundled_files():
        configuration.load([file], complete=False)
        selectors = {selector for _, selector in gin.config._CONFIG}
        selectors |= {reference.selector for reference in gin.config.iterate_references(gin.config._CONFIG)}
        for selector in selectors:
            configurable = gin.config._REGISTRY.get_match(selector)
            if configurable.wrapped.__module__.startswith("lmirl_jax."):
                name = configurable.selector.removeprefix("lmirl_jax.")
                found.setdefault(name, (file, configurable.selector))
    return found


REACHED = reached()


def parameters(selector: str) -> list[str]:
    target = gin.config._REGISTRY.get_match(selector).wrapped
    return [name for name in inspect.signature(target).parameters if name != "self"]


def test_the_table_holds_all_that_gin_files_can_set():
    assert sorted(TABLE) == sorted(REACHED)
    for name, (_, selector) in REACHED.items():
        assert len(TABLE[name].split()) == len(parameters(selector)), f"{name}: {parameters(selector)}"


@pytest.mark.parametrize("name", TABLE)
def test_every_wrong_value_is_refused_in_one_line_or_accepted_for_a_reason(name):
    file, selector = REACHED[name]
    configuration.load([file], complete=False)
    before = configuration_values.bindings()
    for parameter, kind in zip(parameters(selector), TABLE[name].split(), strict=True):
        accepted = set(KINDS[kind.removesuffix("?")].split()) | ({"None"} if kind.endswith("?") else set())
        for label, value in WRONG.items():
            gin.config._CONFIG["", selector] = {**before.get(("", selector), {}), parameter: value}
            try:
                configuration_values.check(before, complete=False)
            except UserError as error:
                line = str(error)
                assert label not in accepted, line
                assert "\n" not in line and f".{parameter}" in line
                assert "--gin." in line or "leave it out" in line or "with brackets" in line
            else:
                assert label in accepted, f"{name}.{parameter} takes {label}"


MACROS = ["BATCH_SIZE", "TRAIN_STEPS", "LEARNING_RATE", "TASK_FEATURE_LENGTHS", "OPTIMIZER", "EVALUATIONS"]


@pytest.mark.parametrize("macro", MACROS)
@pytest.mark.parametrize("value", ["''", "-1", "1e39", "{}", "@training.adamw"])
def test_an_error_names_the_macro_and_a_value_that_fits(macro, value):
    files = ["gin/runs/finetune.gin"]
    required = [f"{name} = {given}" for name, given in {"MODEL_DIR": "'/run'", "TRAIN_STEPS": "3"}.items()]
    with pytest.raises(UserError) as caught:
        configuration.load(files, [*required, f"{macro} = {value}"])
    line = str(caught.value)
    assert line.startswith(f"{macro}=") and "\n" not in line
    assert f"--gin.{macro}=" in line or "with brackets, @training.adamw()" in line


def test_an_error_names_superfluous_brackets():
    required = ["MODEL_DIR = '/run'", "TRAIN_STEPS = 3", "OBJECTIVE = @objectives.mle()"]
    with pytest.raises(UserError, match=r"OBJECTIVE=@objectives.mle\(\) calls objectives.mle without soft_q"):
        configuration.load(["gin/runs/finetune.gin"], required)


@pytest.mark.parametrize("clip_norm", [0, -1.0, math.nan, math.inf, True, "1"])
def test_a_clip_that_would_stop_or_turn_the_updates_is_refused_in_python_too(clip_norm):
    with pytest.raises(UserError, match=r"training.adamw: clip_norm=.* must be a number above 0, or None"):
        training.adamw(1e-3, clip_norm=clip_norm)


def test_a_mistake_in_a_users_objective_has_its_place_in_the_error():
    """And not as a function that is no loss."""

    def mine(soft_q):
        return soft_q.q - soft_q.values

    with pytest.raises(UserError) as caught:
        training.Offline(mine)
    line = str(caught.value)
    assert "\n" not in line and "mine raised AttributeError" in line and "test_configurables.py, line" in line
    with pytest.raises(UserError, match="must be a loss of tokens"):
        training.Offline(objectives.chi_squared)
    with pytest.raises(UserError, match="rate raised ZeroDivisionError"):
        training.adamw(_dividing_rate)


def _dividing_rate(step):
    return 1 / 0


def test_numbers_are_judged_in_float32():
    """What float32 takes for 0, infinity or 1 is that."""
    assert not argument_rules.fits(1e-46, arguments.NonNegative) and argument_rules.fits(
        1e-30, arguments.Positive
    )
    assert not argument_rules.fits(1e39, arguments.NonNegative) and argument_rules.fits(
        1e38, arguments.NonNegative
    )
    assert not argument_rules.fits(0.999999999, arguments.ShareBelowOne)
    assert not argument_rules.fits(10**400, float) and not argument_rules.fits(2**32, int)


class _Reached(Exception):
    """All is checked, and MODEL_DIR would be made next."""


# Macros of which the command, not the configuration, says that a text leads nowhere; and what it calls it then.
FOUND_LATER = {"INITIAL_CHECKPOINT_PATH": "no checkpoint at"}
TYPED = ["None", "'a'", "''", "True", "-1", "0", "1.5", "1e999", "1e39", "[]", "{}", "@training.adamw"]
# What a run of each file takes, in the words of `KINDS`.
MACRO_KINDS = {
    "finetune": {
        "count": "BATCH_SIZE CHECKPOINT_PERIOD EVAL_BATCH_SIZE EVAL_NUM_SAMPLES EVAL_PERIOD LOG_PERIOD NUM_MICROBATCHES "
        "TRAIN_STEPS VOCAB_SIZE MAX_NONFINITE_UPDATES MAX_ROLLBACKS BUCKETS "
        "EARLY_STOPPING_PATIENCE? EVALUATOR_NUM_EXAMPLES? EVAL_STEPS? KEEP_CHECKPOINTS? "
        "TRAIN_NUM_EXAMPLES?",
        "whole": "DECODER_START_ID WARMUP_STEPS SOFT_Q_BLOCK_SIZE?",
        "seed": "RANDOM_SEED TRAIN_EXAMPLES_SEED",
        "share": "DISCOUNT",
        "share-below": "DROPOUT_RATE VALIDATION_SHARE",
        "columns": "COLUMNS?",
        "positive": "LEARNING_RATE SOFT_Q_TEMPERATURE? SPIKE_FACTOR? WATCHDOG_SECONDS?",
        "rate": "LEARNING_RATE_SCHEDULE",
        "weight": "TD_WEIGHT",
        "non-negative": "EARLY_STOPPING_MIN_DELTA EVAL_TEMPERATURE",
        "switch": "OFFLOAD_OPTIMIZER PACK SHUFFLE_TRAIN_EXAMPLES TRUNCATE",
        # No evaluation reads it here, so that a text is not looked up.
        "path": "MODEL_DIR VALIDATION_DATA?",
        "choice": "CHAT_EPISODES CHAT_TURNS DTYPE REMAT ON_NONFINITE BEST_MODE? BLEU_TOKENIZER ROUGE_TOKENIZER",
        "text": "WANDB_PROJECT?",
        "lengths": "TASK_FEATURE_LENGTHS",
        "metrics": "METRICS?",
        "objects": "EVALUATIONS NEW_PARAMETERS PROFILE_STEPS",
        # Texts that name nothing are refused as well.
        "object": "DATA LEARNER MESH MODEL OBJECTIVE OPTIMIZER TASK BEST_METRIC? INITIAL_CHECKPOINT_PATH? "
        "MIXTURE_OR_TASK_NAME? VOCABULARY_PATH? CHAT?",
    },
    "lora": {
        "count": "LORA_RANK",
        "positive": "LORA_ALPHA",
        "share-below": "LORA_DROPOUT_RATE",
        "choices": "LORA_MATRICES",
        "choice": "LORA_BASE_DTYPE?",
    },
    "online_iqlearn": {
        "count": "SAMPLES_PER_PROMPT SAMPLE_BATCH_SIZE SAMPLE_EVERY REPLAY_SIZE?",
        "whole": "REPLAY_MAX_AGE? TD_RAMP_STEPS",
        "seed": "PROMPT_SEED",
        "share-below": "ONLINE_ALPHA",
        "switch": "ONLINE_RESCALE",
        "positive": "SAMPLE_TEMPERATURE",
        "non-negative": "TD_PEAK",
    },
    "dpo": {
        "positive": "BETA",
        "share-below": "LABEL_SMOOTHING",
        "non-negative": "DEMONSTRATION_WEIGHT PREFERENCE_WEIGHT",
        "switch": "LENGTH_NORMALISED REFERENCE_FREE REJECTED_ENDS",
        "choice": "SCORE",
        "certain": "PREFERENCE",
    },
    "ilql": {
        "positive-share": "TAU",
        "non-negative": "BETA CQL_WEIGHT GUIDE_WEIGHT POLICY_WEIGHT",
        "positive": "MAX_WEIGHT REWARD_SCALE",
        "share": "TARGET_RATE",
    },
    "labelled_iqlearn": {"non-negative": "REWARD_SCALE TD_PEAK", "whole": "TD_RAMP_STEPS"},
    "reward_model": {
        "switch": "FROM_PREFERENCES REJECTED_ENDS",
        "share-below": "LABEL_SMOOTHING",
        "choices": "REWARD_HEADS",
    },
    "grpo": {
        "non-negative": "CLIP CLIP_HIGH? ENTROPY_WEIGHT MLE_WEIGHT Z_LOSS",
        "weight": "KL_WEIGHT",
        "whole": "GROUP_DDOF",
        "share": "GAE_TRACE",
        "share-below": "LABEL_SMOOTHING",
        "positive": "CRITIC_LEARNING_RATE",
        "switch": "MASK_TRUNCATED SHARE_TRUNK WHITEN",
        "choice": "MEAN_OVER",
        "certain": "ADVANTAGES",
        "object": "REWARD",
        "function": "REWARD_FUNCTION",
    },
    "gail": {
        "certain": "DISCRIMINATOR_REWARD",
        "count": "DISCRIMINATOR_UPDATES",
        "share-below": "DISCRIMINATOR_LABEL_SMOOTHING",
        "non-negative": "GRADIENT_PENALTY KL_START KL_END",
        "whole": "KL_ANNEAL_STEPS",
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "kind"), [(run, kind) for run, kinds in MACRO_KINDS.items() for kind in kinds]
)
def test_the_command_refuses_each_wrong_macro_before_its_folder_is_made(
    run, kind, tmp_path, monkeypatch, capfd
):
    """`lmirl train` itself, as far as the last check before MODEL_DIR is made."""
    monkeypatch.chdir(tmp_path)
    needed: dict[str, dict] = {"ilql": {"reward": 1}, "labelled_iqlearn": {"label": True}}
    row = {"inputs": "1+1", "targets": "2", "rejected": "3"} | needed.get(run, {})
    (tmp_path / "mine.jsonl").write_text(f"{json.dumps(row)}\n" * 8)

    def reach(*arguments, **options):
        raise _Reached

    monkeypatch.setattr("lmirl_jax.files.prepare_directory", reach)
    given = {
        "TRAIN_STEPS": "3",
        "MODEL_DIR": "'run'",
        "DATA": "'mine.jsonl'",
        "MIXTURE_OR_TASK_NAME": "None",
        "EVALUATIONS": "[]",
        "BATCH_SIZE": "32",
        "TASK_FEATURE_LENGTHS": "{'inputs': 8, 'targets': 8}",
    }
    files = [f"--gin_file=gin/runs/{run}.gin", "--gin_file=gin/models/t5_1_1/tiny.gin"]
    if run == "dpo":
        given["DEMONSTRATION_WEIGHT"] = given["PREFERENCE_WEIGHT"] = "1.0"
    if run in ("ilql", "reward_model"):
        # Their heads are new beside the parameters of a checkpoint.
        given["NEW_PARAMETERS"] = "[]"
    if run == "lora":
        # Adapters need a model to stand on, and have its network.
        files = ["--gin_file=gin/runs/finetune.gin", "--gin_file=gin/adapters/lora.gin"]
        given["INITIAL_CHECKPOINT_PATH"] = repr(str(GOLDEN / "t5_1_1"))
    for macro in MACRO_KINDS[run][kind].split():
        name, optional = macro.removesuffix("?"), macro.endswith("?")
        accepted = {
            "text": "'a'",
            "empty": "''",
            "list": "[]",
            "dictionary": "{}",
            "function": "@training.adamw",
        }
        takes = {accepted.get(word, word) for word in KINDS[kind].split()} | ({"None"} if optional else set())
        for value in TYPED:
            flags = [f"--gin.{key}={text}" for key, text in (given | {name: value}).items()]
            try:
                code = main(["train", *files, *flags])
            except _Reached:
                assert value in takes, f"{name}={value} is taken"
                continue
            line = capfd.readouterr().err.strip().splitlines()[-1]
            assert code == 1 and line.startswith("lmirl: ") and value not in takes, line
            assert name in line or FOUND_LATER.get(name, name) in line, line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.jsonl"]
