"""Learning from labels: what makes them, and learners of preferences between answers."""

from lmirl_jax.labelled.answer_sets import AnswerSet, read_answer_sets
from lmirl_jax.labelled.checkers import make_checker
from lmirl_jax.labelled.gaps import Fills, Gaps
from lmirl_jax.labelled.ilql import ILQL, ilql_step
from lmirl_jax.labelled.ilql_loss import ILQLLoss
from lmirl_jax.labelled.judge import TwoStageJudge
from lmirl_jax.labelled.labelling import Labels, Tally
from lmirl_jax.labelled.pits import first_pit, prefix_with_pit
from lmirl_jax.labelled.preference_loss import PreferenceLoss
from lmirl_jax.labelled.preference_validation import PreferenceValidation
from lmirl_jax.labelled.preferences import Preferences, preference_step
from lmirl_jax.labelled.reward_loss import RewardLoss
from lmirl_jax.labelled.reward_model import RewardModel, reward_step
from lmirl_jax.labelled.reward_validation import RewardValidation

__all__ = [
    "ILQL",
    "AnswerSet",
    "Fills",
    "Gaps",
    "ILQLLoss",
    "Labels",
    "PreferenceLoss",
    "PreferenceValidation",
    "Preferences",
    "RewardLoss",
    "RewardModel",
    "RewardValidation",
    "Tally",
    "TwoStageJudge",
    "first_pit",
    "ilql_step",
    "make_checker",
    "preference_step",
    "prefix_with_pit",
    "read_answer_sets",
    "reward_step",
]
