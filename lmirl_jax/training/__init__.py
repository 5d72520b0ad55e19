"""State, step, loop, metrics: the trainer, which knows only protocols."""

from lmirl_jax.checkpoints import CheckpointConfig
from lmirl_jax.training.best import BestConfig
from lmirl_jax.training.fault_config import FaultConfig
from lmirl_jax.training.learner import Learner, Offline, Setting, Updates
from lmirl_jax.training.optimizers import adafactor, adamw
from lmirl_jax.training.parameter_axes import for_model
from lmirl_jax.training.schedules import (
    annealed,
    constant,
    delayed_constant,
    rsqrt_decay,
    warmup_constant,
    warmup_cosine,
    warmup_rsqrt,
)
from lmirl_jax.training.soft_q_config import SoftQConfig
from lmirl_jax.training.state import TrainState
from lmirl_jax.training.step import TokenLoss, loss_sums, train_step
from lmirl_jax.training.trainer import make_setting, train
from lmirl_jax.training.validation import Validation

__all__ = [
    "BestConfig",
    "CheckpointConfig",
    "FaultConfig",
    "Learner",
    "Offline",
    "Setting",
    "SoftQConfig",
    "TokenLoss",
    "TrainState",
    "Updates",
    "Validation",
    "adafactor",
    "adamw",
    "annealed",
    "constant",
    "delayed_constant",
    "for_model",
    "loss_sums",
    "make_setting",
    "rsqrt_decay",
    "train",
    "train_step",
    "warmup_constant",
    "warmup_cosine",
    "warmup_rsqrt",
]
