"""SeqIO and TensorFlow, for the modules of this room that work on SeqIO tasks; `seqio_import` says how they are loaded."""

import seqio
import tensorflow as tf

__all__ = ["seqio", "tf"]
