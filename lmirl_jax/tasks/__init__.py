"""The bundled SeqIO tasks, a file a data set. In a checkout they lie in `tasks/` at its root; a wheel holds them here."""

# SeqIO before a task imports it, and TensorFlow with it: without their greetings.
import lmirl_jax.data.seqio_library  # noqa: F401

__path__.append(__import__("os").path.join(__path__[0], "..", "..", "tasks"))
