"""The bundled SeqIO tasks, a file a data set. In a checkout they lie in `tasks/` at its root; a wheel holds them here."""

__path__.append(__import__("os").path.join(__path__[0], "..", "..", "tasks"))
