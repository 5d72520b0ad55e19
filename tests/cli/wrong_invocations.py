"""Command lines that a user gets wrong, and files that are wrong, each with its exit code and what its one line says."""

import gzip
import json
import pathlib

TRAIN = "train --gin_file=gin/runs/finetune.gin --gin_file=gin/models/t5_1_1/tiny.gin"
RUN = f"{TRAIN} --gin.MODEL_DIR='out' --gin.TRAIN_STEPS=1"
DATA = (
    f"{RUN} --gin.DATA='good.jsonl' --gin.BATCH_SIZE=8 --gin.TASK_FEATURE_LENGTHS={{'inputs':8,'targets':8}}"
)
CHAT = f"{RUN} --gin.BATCH_SIZE=8 --gin.VOCABULARY_PATH='chat' --gin.DATA='chat.jsonl'"

# What stands after `DATA`, or a whole command line; the exit code; what the line holds.
FLAGS = [
    ("", 2, "x"),
    ("trian", 2, "x"),
    ("train", 2, "x"),
    ("train --gin_file", 2, "x"),
    ("train --gin_file=", 2, "x"),
    ("train --ginfile=gin/runs/finetune.gin", 2, "x"),
    ("train gin/runs/finetune.gin", 2, "x"),
    ("train --gin_file=gin/runs/fine_tune.gin", 1, "x"),
    ("train --gin_file=.", 1, "x"),
    (f"{TRAIN} --TRAIN_STEPS=5", 2, "x"),
    (f"{TRAIN} --gin.=5", 1, "x"),
    (f"{TRAIN} --gin.TRAIN_STEPS=", 2, "x"),
    (f"{TRAIN} --process_count=two", 2, "x"),
    (f"{TRAIN} --process_count=2", 2, "x"),
    (f"{TRAIN} --process_count=2 --process_index=2 --coordinator_address=localhost:1", 2, "x"),
    ("doctor --show_batch=1", 2, "x"),
    ("doctor --checkpoint=", 2, "x"),
    ("tasks shwo gsm8k", 2, "x"),
    ("tasks show gsm9k", 1, "x"),
    ("tasks show --gin.DATA='good.jsonl' --num_examples=-1", 2, "x"),
    ("tasks show --gin.DATA='good.jsonl' --split=tset", 1, "x"),
    ("tasks --import=no_such_module", 1, "x"),
    ("prepare --gin_file=gin/runs/finetune.gin --beam=", 2, "x"),
]
GIN = [
    (TRAIN, 1, "x"),
    (RUN, 1, "x"),
    (f"{RUN} --gin.DATA='good.jsonl' --gin.MIXTURE_OR_TASK_NAME='gsm8k'", 1, "x"),
    (f"{RUN} --gin.MIXTURE_OR_TASK_NAME='gsm9k'", 1, "x"),
    (f"{DATA} --gin.TRAIN_STESP=5", 1, "x"),
    (f"{DATA} --gin.training.adamw.weight_deacy=0.1", 1, "x"),
    (f"{DATA} --gin.training.adamv.weight_decay=0.1", 1, "x"),
    (f"{DATA} --gin.MODEL_DIR=out", 1, "x"),
    (f"{DATA} --gin.LEARNING_RATE=[", 1, "x"),
    (f"{DATA} --gin.LEARNING_RATE=__import__('os')", 1, "x"),
    (f"{DATA} --gin.OPTIMIZER=@training.nothing()", 1, "x"),
    (f"{DATA} --gin.OPTIMIZER=@training.adamw", 1, "x"),
    (f"{DATA} --gin.MODEL=5", 1, "x"),
    (f"{DATA} --gin.OBJECTIVE='iqlearn'", 1, "x"),
    (f"{DATA} --gin.LEARNER=@objectives.mle", 1, "x"),
    (f"{DATA} --gin.MESH=8", 1, "x"),
    (f"{DATA} --gin_file=bad_syntax.gin", 1, "x"),
    (f"{DATA} --gin_file=latin.gin", 1, "x"),
    (f"{DATA} --gin_file=unknown_import.gin", 1, "x"),
    (f"{DATA} --gin_file=includes_itself.gin", 1, "x"),
]
NUMBERS = [
    (f"{DATA} --gin.TRAIN_STEPS=0", 1, "x"),
    (f"{DATA} --gin.TRAIN_STEPS=-1", 1, "x"),
    (f"{DATA} --gin.TRAIN_STEPS=1.5", 1, "x"),
    (f"{DATA} --gin.TRAIN_STEPS='5'", 1, "x"),
    (f"{DATA} --gin.BATCH_SIZE=0", 1, "x"),
    (f"{DATA} --gin.BATCH_SIZE=3", 1, "x"),
    (f"{DATA} --gin.NUM_MICROBATCHES=3", 1, "x"),
    (f"{DATA} --gin.LEARNING_RATE=float('nan')", 1, "x"),
    (f"{DATA} --gin.LEARNING_RATE=1e999", 1, "x"),
    (f"{DATA} --gin.LEARNING_RATE=-1e-3", 1, "x"),
    (f"{DATA} --gin.TD_WEIGHT=-0.1", 1, "x"),
    (f"{DATA} --gin.TD_WEIGHT=1e999", 1, "x"),
    (f"{DATA} --gin.DISCOUNT=1.1", 1, "x"),
    (f"{DATA} --gin.DROPOUT_RATE=1.0", 1, "x"),
    (f"{DATA} --gin.WARMUP_STEPS=-5", 1, "x"),
    (f"{DATA} --gin.RANDOM_SEED=-1", 1, "x"),
    (f"{DATA} --gin.RANDOM_SEED=4294967296000000000000", 1, "x"),
    (f"{DATA} --gin.VOCAB_SIZE=10", 1, "x"),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS=16", 1, "x"),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':8}}", 1, "x"),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':0,'targets':8}}", 1, "x"),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':8,'target':8}}", 1, "x"),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':8,'targets':1000000000000}}", 1, "x"),
    (f"{DATA} --gin.TRAIN_NUM_EXAMPLES=1000", 1, "x"),
    (f"{DATA} --gin.VALIDATION_SHARE=1.0", 1, "x"),
    (f"{DATA} --gin.EVAL_TEMPERATURE=-1.0", 1, "x"),
    (f"{DATA} --gin.EVAL_PERIOD=0", 1, "x"),
    (f"{DATA} --gin.CHECKPOINT_PERIOD=0", 1, "x"),
    (f"{DATA} --gin.KEEP_CHECKPOINTS=0", 1, "x"),
    (f"{DATA} --gin.BEST_METRIC='eval/nothing'", 1, "x"),
    (f"{DATA} --gin.BEST_METRIC='eval/loss' --gin.BEST_MODE='lowest'", 1, "x"),
    (f"{DATA} --gin.EARLY_STOPPING_PATIENCE=3", 1, "x"),
    (f"{DATA} --gin.DTYPE='float8'", 1, "x"),
    (f"{DATA} --gin.REMAT='most'", 1, "x"),
    (f"{DATA} --gin.SOFT_Q_BLOCK_SIZE=-1", 1, "x"),
    (f"{DATA} --gin.METRICS=['exact']", 1, "x"),
    (f"{DATA} --gin.METRICS=['os.system']", 1, "x"),
    (f"{DATA} --gin.METRICS=['no_module.function']", 1, "x"),
    (f"{DATA} --gin.BLEU_TOKENIZER='klingon'", 1, "x"),
    (f"{DATA} --gin.WANDB_PROJECT=''", 1, "x"),
    (f"{DATA} --gin.models.T5Config.num_heads=0", 1, "x"),
    (f"{DATA} --gin_file=gin/adapters/lora.gin --gin.LORA_RANK=4", 1, "x"),
]
MESHES = [
    (f"{DATA} --gin.sharding.make_mesh.tensor=3", 1, "x"),
    (f"{DATA} --gin.sharding.make_mesh.fsdp=0", 1, "x"),
    (f"{DATA} --gin.sharding.make_mesh.fsdp=16", 1, "x"),
    (f"{DATA} --gin.BATCH_SIZE=4", 1, "x"),
    (f"{DATA} --gin.BATCH_SIZE=8 --gin_file=gin/meshes/tensor.gin --gin.models.T5Config.num_heads=3", 1, "x"),
]
PATHS = [
    (f"{RUN} --gin.DATA='none.jsonl'", 1, "x"),
    (f"{RUN} --gin.DATA='none-*.jsonl'", 1, "x"),
    (f"{RUN} --gin.DATA='empty_folder'", 1, "x"),
    (f"{RUN} --gin.DATA=''", 1, "x"),
    (f"{RUN} --gin.DATA=5", 1, "x"),
    (f"{RUN} --gin.DATA={{}}", 1, "x"),
    (f"{RUN} --gin.DATA={{'good.jsonl':-1}}", 1, "x"),
    (f"{RUN} --gin.DATA={{'good.jsonl':0}}", 1, "x"),
    (f"{RUN} --gin.DATA='https://example.org/a.jsonl'", 1, "x"),
    (f"{DATA} --gin.VALIDATION_DATA='none.jsonl'", 1, "x"),
    (f"{DATA} --gin.VALIDATION_DATA='good.jsonl' --gin.VALIDATION_SHARE=0.5", 1, "x"),
    (f"{RUN} --gin.MIXTURE_OR_TASK_NAME='number_paths' --gin.VALIDATION_DATA='good.jsonl'", 1, "x"),
    (f"{RUN} --gin.MIXTURE_OR_TASK_NAME='number_paths' --gin.COLUMNS={{'inputs':'a'}}", 1, "x"),
    (f"{DATA} --gin.COLUMNS={{'inputs':'question','targets':'answer'}}", 1, "x"),
    (f"{DATA} --gin.COLUMNS={{'prompt':'inputs'}}", 1, "x"),
    (f"{DATA} --gin.MODEL_DIR=''", 1, "x"),
    (f"{DATA} --gin.MODEL_DIR='good.jsonl'", 1, "x"),
    (f"{DATA} --gin.MODEL_DIR='good.jsonl/run'", 1, "x"),
    (f"{DATA} --gin.MODEL_DIR='a\\x00b'", 1, "x"),
    (f"{DATA} --gin.INITIAL_CHECKPOINT_PATH='none'", 1, "x"),
    (f"{DATA} --gin.INITIAL_CHECKPOINT_PATH='empty_folder'", 1, "x"),
    (f"{DATA} --gin.VOCABULARY_PATH='none'", 1, "x"),
    (f"{DATA} --gin.VOCABULARY_PATH='empty_folder'", 1, "x"),
    (f"{DATA} --gin.VOCABULARY_PATH='good.jsonl'", 1, "x"),
    (f"{DATA} --gin.VOCABULARY_PATH='junk.model'", 1, "x"),
    (f"{DATA} --gin.VOCABULARY_PATH='gs://bucket/spiece.model'", 1, "x"),
    (f"{DATA} --gin.CHAT=True", 1, "x"),
    (f"{RUN} --gin.MIXTURE_OR_TASK_NAME='gsm8k' --tfds_data_dir=none", 1, "x"),
    ("eval --gin_file=gin/runs/eval.gin", 1, "x"),
    ("eval --gin_file=gin/runs/eval.gin --gin.CHECKPOINT_PATH='none'", 1, "x"),
    ("infer --gin_file=gin/runs/infer.gin --gin.CHECKPOINT_PATH='empty_folder'", 1, "x"),
    ("score --gin_file=gin/runs/score.gin --gin.CHECKPOINT_PATH='good.jsonl'", 1, "x"),
    ("score --gin_file=gin/runs/finetune.gin --gin.CHECKPOINT_PATH='none'", 1, "x"),
    ("convert --gin.CHECKPOINT_PATH='none' --gin.OUTPUT_PATH='out' --gin.FORMAT='hf'", 1, "x"),
    ("convert --gin.CHECKPOINT_PATH='none' --gin.OUTPUT_PATH='out' --gin.FORMAT='gguf'", 1, "x"),
    ("convert --gin.OUTPUT_PATH='out'", 1, "x"),
    (
        "filter --gin_file=gin/runs/filter.gin --gin.SCORED='none.jsonl' --gin.OUTPUT_PATH='kept.jsonl' --gin.KEEP=0.5",
        1,
        "x",
    ),
    (
        "filter --gin_file=gin/runs/filter.gin --gin.SCORED='good.jsonl' --gin.OUTPUT_PATH='kept.jsonl' --gin.KEEP=0.5",
        1,
        "x",
    ),
    (
        "filter --gin_file=gin/runs/filter.gin --gin.SCORED='deep.jsonl' --gin.OUTPUT_PATH='kept.jsonl' --gin.KEEP=0.5",
        1,
        "x",
    ),
    ("sweep --gin_file=gin/runs/sweep.gin --gin.RUNS={} --gin.OUTPUT_DIR='out'", 1, "x"),
    ("sweep --gin_file=gin/runs/sweep.gin --gin.RUNS={'MLE':['none']} --gin.OUTPUT_DIR='out'", 1, "x"),
    ("report --gin_file=gin/runs/report.gin --gin.RUNS={'MLE':'none'} --gin.OUTPUT_DIR='out'", 1, "x"),
    ("doctor --checkpoint=none", 1, "x"),
    ("doctor --checkpoint=escaping_index", 1, "x"),
    ("doctor --checkpoint=pickled", 1, "x"),
    ("doctor --checkpoint=deep_header", 1, "x"),
    ("doctor --checkpoint=huge_header", 1, "x"),
]


def line(**row: object) -> bytes:
    return json.dumps(row).encode() + b"\n"


GOOD = line(inputs="a", targets="b")
# Contents of a file that is DATA, and what the line about it holds.
FILES: dict[str, tuple[bytes, str]] = {
    "empty.jsonl": (b"", "x"),
    "blank.jsonl": (b"\n \n", "x"),
    "not_json.jsonl": (GOOD + b"{inputs: a}\n", "x"),
    "cut.jsonl": (GOOD + b'{"inputs": "a", "targ', "x"),
    "array_line.jsonl": (GOOD + b'["a", "b"]\n', "x"),
    "number.jsonl": (line(inputs=1, targets="b"), "x"),
    "no_targets.jsonl": (line(inputs="a"), "x"),
    "unknown_columns.jsonl": (line(question="a", solution="b"), "x"),
    "two_namings.jsonl": (line(inputs="a", targets="b", prompt="c", completion="d"), "x"),
    "empty_target.jsonl": (GOOD + line(inputs="a", targets=""), "x"),
    "null_target.jsonl": (GOOD + line(inputs="a", targets=None), "x"),
    "no_reference.jsonl": (line(inputs="a", targets=[]), "x"),
    "nan_weight.jsonl": (b'{"inputs": "a", "targets": "b", "weight": NaN}\n', "x"),
    "negative_weight.jsonl": (line(inputs="a", targets="b", weight=-1), "x"),
    "text_weight.jsonl": (line(inputs="a", targets="b", weight="2"), "x"),
    "infinite_reward.jsonl": (b'{"inputs": "a", "targets": "b", "reward": 1e999}\n', "x"),
    "rewards_length.jsonl": (line(inputs="a", targets="b", rewards=[1.0]), "x"),
    "latin.jsonl": ('{"inputs": "é", "targets": "b"}\n'.encode("latin-1"), "x"),
    "utf16.jsonl": ('{"inputs": "a", "targets": "b"}\n'.encode("utf-16"), "x"),
    "surrogate.jsonl": (b'{"inputs": "\\ud800", "targets": "b"}\n', "x"),
    "deep.jsonl": (GOOD + b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b', "targets": "b"}\n', "x"),
    "twice.jsonl": (b'{"inputs": "a", "inputs": "b", "targets": "c"}\n', "x"),
    "conversation.jsonl": (line(messages=[{"role": "user", "content": "a"}]), "x"),
    "cut.jsonl.gz": (gzip.compress(GOOD * 50)[:-9], "x"),
    "no_gzip.jsonl.gz": (b"\x1f\x8b" + b"junk" * 9, "x"),
    "cut.parquet": (b"PAR1" + b"\x00" * 40, "x"),
    "cut.arrow": (b"ARROW1\x00\x00" + b"\x00" * 8, "x"),
    "ragged.csv": (b"inputs,targets\na,b\nc\n", "x"),
    "quote.csv": (b'inputs,targets\na,"b\nc,d\n', "x"),
    "no_header.csv": (b"a,b\nc,d\n", "x"),
    "null_byte.csv": (b"inputs,targets\na,b\x00\n", "x"),
    "program.jsonl": (b"\x7fELF" + bytes(range(256)), "x"),
}
CHATS: dict[str, tuple[bytes, str]] = {
    "roles.jsonl": (
        line(messages=[{"role": "wizard", "content": "a"}, {"role": "assistant", "content": "b"}]),
        "x",
    ),
    "no_answer.jsonl": (line(messages=[{"role": "user", "content": "a"}]), "x"),
    "empty_chat.jsonl": (line(messages=[]), "x"),
    "chat_content.jsonl": (
        line(messages=[{"role": "user", "content": 5}, {"role": "assistant", "content": "b"}]),
        "x",
    ),
    "chat_text.jsonl": (line(messages="hello"), "x"),
}
# Templates that would reach outside their sandbox, or never end.
TEMPLATES = {
    "attributes": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "imports": "{% import 'os' as os %}{{ os.system('true') }}",
    "includes": "{% include '/etc/passwd' %}",
    "globals": "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "range": "{% for i in range(10**12) %}x{% endfor %}",
    "syntax": "{% for message in messages %}",
}


def write(folder: pathlib.Path) -> None:
    """Writes the files that the command lines name."""
    (folder / "empty_folder").mkdir()
    (folder / "good.jsonl").write_bytes(GOOD * 4)
    for name, (content, _) in {**FILES, **CHATS}.items():
        (folder / name).write_bytes(content)
    (folder / "bad_syntax.gin").write_text("BATCH_SIZE = \n= 5\n")
    (folder / "latin.gin").write_bytes("# é\nBATCH_SIZE = 2\n".encode("latin-1"))
    (folder / "unknown_import.gin").write_text(
        "from __gin__ import dynamic_registration\nimport no_such_module\n"
    )
    (folder / "includes_itself.gin").write_text("include 'includes_itself.gin'\n")
    (folder / "junk.model").write_bytes(b"junk" * 20)
