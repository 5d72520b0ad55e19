"""Learning from labels: preferences between answers."""

from lmirl_jax.labelled.preference_loss import PreferenceLoss
from lmirl_jax.labelled.preference_validation import PreferenceValidation
from lmirl_jax.labelled.preferences import Preferences, preference_step

__all__ = ["PreferenceLoss", "PreferenceValidation", "Preferences", "preference_step"]
