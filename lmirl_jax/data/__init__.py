"""Makes deterministic, resumable global batches with Grain, from a file or a SeqIO task.

This is the only home of TensorFlow beside the tasks themselves. It loads with SeqIO, where a registered task is named; a
file needs neither.
"""

import importlib

from lmirl_jax.data import seqio_import

seqio_import.install()

_HOMES = {
    "EvalDataset": "eval_dataset",
    "MissingVocabulary": "missing_vocabulary",
    "Packer": "packing",
    "Pair": "task_pairs",
    "PairFile": "pair_file",
    "PromptFile": "prompt_file",
    "Records": "records",
    "Task": "mixture_or_task",
    "TaskPairs": "task_pairs",
    "TrainDataset": "dataset",
    "add_cache_dirs": "tfds_folder",
    "answer_metrics": "task_metrics",
    "content_hash": "prompt_file",
    "decoder_start_id": "mixture_or_task",
    "get_task": "mixture_or_task",
    "get_task_or_vocabulary": "mixture_or_task",
    "has_split": "mixture_or_task",
    "has_tokenizer": "tokenizer_files",
    "make_pair": "task_pairs",
    "padded_vocab_size": "vocabularies",
    "pairs": "pair_file",
    "prompts": "prompt_file",
    "seqio_vocabulary": "seqio_vocabularies",
    "set_tfds_data_dir": "tfds_folder",
    "tokenized_records": "records",
    "validation_dataset": "validation_split",
    "vocab_size": "mixture_or_task",
    "vocabulary": "vocabularies",
    "vocabulary_fingerprint": "vocabularies",
    "vocabulary_task": "mixture_or_task",
    "write_tokenizer": "tokenizer_writing",
}


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_HOMES])
