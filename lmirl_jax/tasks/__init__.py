"""The bundled SeqIO tasks, a file a data set. In a checkout they lie in `tasks/` at its root; a wheel holds them here."""

# First, as it says how SeqIO and TensorFlow are loaded.
import lmirl_jax.data  # noqa: F401

__path__.append(__import__("os").path.join(__path__[0], "..", "..", "tasks"))
