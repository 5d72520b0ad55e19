"""What a run's gin files say of its programs: model, optimizer, learner, mesh and shapes, with no data and no folder of a run."""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import gin

from lmirl_jax import compilation, configuration, evaluation, labelled, sharding, training
from lmirl_jax.cli.configure import set_data_folders
from lmirl_jax.cli.flags import Flags
from lmirl_jax.types import UserError

# Online IQLearn on the settings of the run; gin/runs/online_iqlearn.gin is a run of its own, on another task.
ONLINE = configuration.GinText(
    "online IQLearn",
    """
from __gin__ import dynamic_registration
from lmirl_jax import online
from lmirl_jax import training
LEARNER = @online.OnlineIQLearn()
online.OnlineIQLearn:
    objective = %OBJECTIVE
    rollouts = @online.Rollouts()
    td_weight = %TD_WEIGHT
    soft_q_config = @training.SoftQConfig()
online.Rollouts.discount = %DISCOUNT
""",
)
# What names under --objectives add to the gin files.
OBJECTIVES: dict[str, list[str | configuration.GinText]] = {
    "online_iqlearn": ["gin/objectives/iqlearn.gin", ONLINE]
}


@dataclasses.dataclass(frozen=True)
class Programs:
    """What is compiled of one run.

    Args:
        setting, learner, data: see `compilation.compile_update`.
        generator: the sampler of its evaluations.
    """

    setting: training.Setting
    learner: Any
    data: compilation.AbstractData
    generator: evaluation.Generator

    def describe(self) -> str:
        """One line on the run: its mesh, batch, lengths and parameters."""
        setting, data = self.setting, self.data
        mesh = sharding.describe_mesh(setting.mesh)
        count, _ = compilation.count_parameters(setting)
        model = setting.model
        return (
            f"{count / 1e9:,.2f}B parameters, batch {data.batch_size} x ({data.lengths['inputs']} + "
            f"{data.lengths['targets']}), {getattr(model, 'dtype', '')}, remat {getattr(model, 'remat', '')}, "
            f"{setting.microbatches} microbatch(es), mesh {mesh}"
        )


def objective_files(name: str) -> list[str | configuration.GinText]:
    """The gin files that an objective's name stands for: gin/objectives/NAME.gin, or online IQLearn.

    Raises:
        UserError: there is no such objective.
    """
    if name in OBJECTIVES:
        return OBJECTIVES[name]
    bundled = [path for path in configuration.bundled_files() if path.startswith("gin/objectives/")]
    if f"gin/objectives/{name}.gin" not in bundled:
        names = [path.removeprefix("gin/objectives/").removesuffix(".gin") for path in bundled]
        raise UserError(f"--objectives: no objective {name!r}; there are {', '.join([*names, *OBJECTIVES])}")
    return [f"gin/objectives/{name}.gin"]


def read_programs(flags: Flags, objective: str | None, devices: Sequence[Any]) -> Programs:
    """Reads the gin files as `lmirl train` does, with an objective's on top, for a mesh of these devices.

    Raises:
        UserError: a setting that compilation needs has no value, or settings do not fit each other.
    """
    more = [] if objective is None else objective_files(objective)
    files = [*flags.gin_file, *more]
    configuration.load(files, flags.gin_bindings, flags.gin_search_paths, complete=False)
    set_data_folders(flags)
    configuration.require("BATCH_SIZE", "TASK_FEATURE_LENGTHS", "MODEL", "MESH", "OPTIMIZER", "LEARNER")
    _set_placeholders()
    data = compilation.AbstractData(
        configuration.macro("BATCH_SIZE"), configuration.macro("TASK_FEATURE_LENGTHS")
    )
    _set_prompts(data)
    learner = configuration.macro("LEARNER")
    from_labels = isinstance(learner, labelled.RewardModel) and not configuration.macro(
        "FROM_PREFERENCES", True
    )
    data.has_labels = from_labels
    if isinstance(learner, labelled.Preferences | labelled.RewardModel) and not from_labels:
        data.rows_together, data.has_preferences = 2, True
    data.has_rewards = isinstance(learner, labelled.ILQL)
    with sharding.use_devices(devices):
        mesh = configuration.macro("MESH")
    faults = training.FaultConfig(on_nonfinite=configuration.macro("ON_NONFINITE", "stop"))
    setting = training.make_setting(
        configuration.macro("NETWORK"),
        configuration.macro("OPTIMIZER"),
        data,
        mesh,
        configuration.macro("NUM_MICROBATCHES", 1),
        configuration.macro("RANDOM_SEED", 0),
        faults,
        configuration.macro("OFFLOAD_OPTIMIZER", False),
    )
    generator = evaluation.Generator(
        configuration.macro("EVAL_BATCH_SIZE", data.batch_size), configuration.macro("EVAL_NUM_SAMPLES", 1)
    )
    return Programs(setting, configuration.macro("LEARNER"), data, generator)


def _set_placeholders() -> None:
    """Gives macros a value that a run needs and that no compiled program depends on."""
    unset = {"MODEL_DIR": "/tmp/none", "TRAIN_STEPS": 1000}
    values = {name: value for name, value in unset.items() if configuration.macro(name, None) is None}
    if isinstance(_raw("VOCAB_SIZE"), int):
        values["DECODER_START_ID"] = 0
    elif all(configuration.macro(name, None) is None for name in ("DATA", "MIXTURE_OR_TASK_NAME")):
        raise UserError(
            "VOCAB_SIZE is that of the task's vocabulary, and there is no task: set it (T5: --gin.VOCAB_SIZE=32128, Llama 3: "
            "128256), or DATA or MIXTURE_OR_TASK_NAME as in training"
        )
    configuration.set_macros(values)


def _set_prompts(data: compilation.AbstractData) -> None:
    """Replaces the prompts of rollouts by their shapes."""
    size = copy.deepcopy(_raw("data.TrainDataset.batch_size", "prompts")) or data.batch_size
    with gin.unlock_config():
        for selector in [key for _, key in gin.config._CONFIG if key.endswith("online.Rollouts")]:
            gin.bind_parameter(f"{selector}.prompts", dataclasses.replace(data, batch_size=size))


def _raw(name: str, scope: str | None = None) -> Any:
    """The value of a macro, or of a parameter in a scope, with its references as they are; None where it has none."""
    try:
        return gin.query_parameter(f"{name}/gin.macro.value" if scope is None else f"{scope}/{name}")
    except ValueError:
        return None
