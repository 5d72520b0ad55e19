"""Command lines that a user gets wrong, and files that are wrong, each with its exit code and what its one line says."""

import gzip
import json
import pathlib

TRAIN = "train --gin_file=gin/runs/finetune.gin --gin_file=gin/models/t5_1_1/tiny.gin"
RUN = f"{TRAIN} --gin.MODEL_DIR='out' --gin.TRAIN_STEPS=1"
DATA = (
    f"{RUN} --gin.DATA='good.jsonl' --gin.BATCH_SIZE=8 --gin.TASK_FEATURE_LENGTHS={{'inputs':8,'targets':8}}"
)

# The command line, its exit code, and what its line holds.
FLAGS = [
    ("trian", 2, "no command 'trian'; did you mean 'train'?"),
    ("train", 2, "name one, such as --gin_file=gin/runs/finetune.gin"),
    ("train --gin_file", 2, "--gin_file needs a value: --gin_file=FILE"),
    ("train --gin_file=", 2, "needs a value: --gin_file=FILE"),
    ("train --ginfile=gin/runs/finetune.gin", 2, "did you mean --gin_file?"),
    ("train gin/runs/finetune.gin", 2, "flags begin with --"),
    ("train --gin_file=gin/runs/fine_tune.gin", 1, "did you mean 'gin/runs/finetune.gin'?"),
    ("train --gin_file=.", 1, "no gin file '.'"),
    (f"{TRAIN} --TRAIN_STEPS=5", 2, "did you mean --gin.TRAIN_STEPS=5?"),
    (f"{TRAIN} --gin.=5", 1, "write --gin.NAME=VALUE"),
    (f"{TRAIN} --gin.TRAIN_STEPS=", 2, "--gin.TRAIN_STEPS needs a value"),
    (f"{TRAIN} --process_count=two", 2, "needs a whole number"),
    (f"{TRAIN} --process_count=2", 2, "needs --coordinator_address and --process_index"),
    (f"{TRAIN} --process_count=2 --process_index=2 --coordinator_address=localhost:1", 2, "count from 0"),
    ("doctor --show_batch=1", 2, "takes no value: write --show_batch"),
    ("doctor --checkpoint=", 2, "needs a value: --checkpoint=PATH"),
    ("tasks shwo gsm8k", 2, "did you mean lmirl tasks show NAME?"),
    ("tasks show gsm9k", 1, "did you mean 'gsm8k'?"),
    ("tasks show --gin.DATA='good.jsonl' --num_examples=-1", 2, "needs a whole number"),
    ("tasks show --gin.DATA='good.jsonl' --split=tset", 1, "no split 'tset'; it has train"),
    ("tasks --import=no_such_module", 1, "it must lie in the current folder or on PYTHONPATH"),
    ("prepare --gin_file=gin/runs/finetune.gin --beam=", 2, "needs a value: --beam=OPTIONS"),
]
GIN = [
    (TRAIN, 1, "leaves MODEL_DIR, TRAIN_STEPS unset: add for example"),
    (RUN, 1, "set exactly one of them"),
    (f"{RUN} --gin.DATA='good.jsonl' --gin.MIXTURE_OR_TASK_NAME='gsm8k'", 1, "set exactly one of them"),
    (f"{RUN} --gin.MIXTURE_OR_TASK_NAME='gsm9k'", 1, "did you mean 'gsm8k'?"),
    (f"{DATA} --gin.TRAIN_STESP=5", 1, "did you mean 'TRAIN_STEPS'?"),
    (f"{DATA} --gin.training.adamw.weight_deacy=0.1", 1, "did you mean 'weight_decay'?"),
    (f"{DATA} --gin.training.adamv.weight_decay=0.1", 1, "did you mean 'adamw'?"),
    (f"{DATA} --gin.MODEL_DIR=out", 1, "a string needs quotes inside the shell's"),
    (f"{DATA} --gin.LEARNING_RATE=[", 1, "check its quotes and brackets"),
    (f"{DATA} --gin.LEARNING_RATE=__import__('os')", 1, "values are Python literals"),
    (f"{DATA} --gin.OPTIMIZER=@training.nothing()", 1, "'training.nothing' does not exist"),
    (f"{DATA} --gin.OPTIMIZER=@training.adamw", 1, "with brackets, @training.adamw()"),
    (f"{DATA} --gin.MODEL=5", 1, "MODEL=5 must be a ModelConfig"),
    (f"{DATA} --gin.OBJECTIVE='iqlearn'", 1, "a loss of tokens such as @objectives.mle"),
    (f"{DATA} --gin.LEARNER=@objectives.mle", 1, "must be a Learner"),
    (f"{DATA} --gin.MESH=8", 1, "MESH=8 must be a Mesh"),
    (
        f"{DATA} --gin_file=bad_syntax.gin",
        1,
        "bad_syntax.gin:1: Unable to parse value: check its quotes and brackets",
    ),
    (f"{DATA} --gin_file=latin.gin", 1, "latin.gin:1: not UTF-8"),
    (
        f"{DATA} --gin_file=unknown_import.gin",
        1,
        "unknown_import.gin:2: No module named 'no_such_module': install it",
    ),
    (f"{DATA} --gin_file=includes_itself.gin", 1, "includes lead back to a file that includes them"),
]
NUMBERS = [
    (f"{DATA} --gin.TRAIN_STEPS=0", 1, "TRAIN_STEPS=0 must be a whole number of 1 or more"),
    (f"{DATA} --gin.TRAIN_STEPS=-1", 1, "must be a whole number of 1 or more"),
    (f"{DATA} --gin.TRAIN_STEPS=1.5", 1, "must be a whole number of 1 or more"),
    (f"{DATA} --gin.TRAIN_STEPS='5'", 1, "must be a whole number of 1 or more"),
    (f"{DATA} --gin.BATCH_SIZE=0", 1, "BATCH_SIZE=0 must be a whole number of 1 or more"),
    (f"{DATA} --gin.BATCH_SIZE=3", 1, "make it a multiple of 8"),
    (f"{DATA} --gin.NUM_MICROBATCHES=3", 1, "make it a multiple of 24"),
    (f"{DATA} --gin.LEARNING_RATE=float('nan')", 1, "values are Python literals"),
    (f"{DATA} --gin.LEARNING_RATE=1e999", 1, "must be a number above 0 (float32 does not hold this one)"),
    (f"{DATA} --gin.LEARNING_RATE=-1e-3", 1, "must be a number above 0"),
    (f"{DATA} --gin.TD_WEIGHT=-0.1", 1, "TD_WEIGHT=-0.1 must be a number of 0 or more"),
    (f"{DATA} --gin.TD_WEIGHT=1e999", 1, "float32 does not hold this one"),
    (f"{DATA} --gin.DISCOUNT=1.1", 1, "must be a number from 0 to 1"),
    (f"{DATA} --gin.DROPOUT_RATE=1.0", 1, "from 0 to below 1"),
    (f"{DATA} --gin.WARMUP_STEPS=-5", 1, "must be a whole number of 0 or more"),
    (f"{DATA} --gin.RANDOM_SEED=-1", 1, "from 0 to 4294967295"),
    (f"{DATA} --gin.RANDOM_SEED=4294967296000000000000", 1, "from 0 to 4294967295"),
    (f"{DATA} --gin.VOCAB_SIZE=10", 1, "raise VOCAB_SIZE"),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS=16", 1, "for just these two"),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':8}}", 1, "for just these two"),
    (
        f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':0,'targets':8}}",
        1,
        "whole numbers from 1 to 16,777,216",
    ),
    (f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':8,'target':8}}", 1, "for just these two"),
    (
        f"{DATA} --gin.TASK_FEATURE_LENGTHS={{'inputs':8,'targets':1000000000000}}",
        1,
        "whole numbers from 1 to 16,777,216",
    ),
    (f"{DATA} --gin.TRAIN_NUM_EXAMPLES=1000", 1, "has 4 examples in split 'train'; set at most that"),
    (f"{DATA} --gin.VALIDATION_SHARE=1.0", 1, "from 0 to below 1"),
    (f"{DATA} --gin.EVAL_TEMPERATURE=-1.0", 1, "must be a number of 0 or more"),
    (f"{DATA} --gin.EVAL_PERIOD=0", 1, "must be a whole number of 1 or more"),
    (f"{DATA} --gin.CHECKPOINT_PERIOD=0", 1, "must be a whole number of 1 or more"),
    (f"{DATA} --gin.KEEP_CHECKPOINTS=0", 1, "must be a whole number of 1 or more, or None"),
    (f"{DATA} --gin.BEST_METRIC='eval/nothing'", 1, "BEST_METRIC"),
    (f"{DATA} --gin.BEST_METRIC='eval/loss' --gin.BEST_MODE='lowest'", 1, "must be 'max' or 'min'"),
    (f"{DATA} --gin.EARLY_STOPPING_PATIENCE=3", 1, "set BEST_METRIC, such as 'eval/loss'"),
    (f"{DATA} --gin.DTYPE='float8'", 1, "must be 'float32' or 'bfloat16'"),
    (f"{DATA} --gin.REMAT='most'", 1, "must be 'none' or 'minimal' or 'full'"),
    (f"{DATA} --gin.SOFT_Q_BLOCK_SIZE=-1", 1, "must be a whole number of 0 or more, or None"),
    (f"{DATA} --gin.METRICS=['exact']", 1, "write 'exact_match', or name a function of yours"),
    (f"{DATA} --gin.METRICS=['os.system']", 1, "a prompt, an answer and a reference"),
    (
        f"{DATA} --gin.METRICS=['no_module.function']",
        1,
        "put its file into this folder, or one of PYTHONPATH",
    ),
    (f"{DATA} --gin.BLEU_TOKENIZER='klingon'", 1, "choose one of none, zh, 13a"),
    (f"{DATA} --gin.WANDB_PROJECT=''", 1, "must be a text in quotes, or None"),
    (f"{DATA} --gin.models.T5Config.num_heads=0", 1, "must be a whole number of 1 or more"),
    (f"{DATA} --gin_file=gin/adapters/lora.gin --gin.LORA_RANK=4", 1, "INITIAL_CHECKPOINT_PATH"),
]
MESHES = [
    (f"{DATA} --gin.sharding.make_mesh.tensor=3", 1, "does not fit the 8 device(s)"),
    (f"{DATA} --gin.sharding.make_mesh.fsdp=0", 1, "or -1 for the devices that are left"),
    (f"{DATA} --gin.sharding.make_mesh.fsdp=16", 1, "does not fit the 8 device(s)"),
    (f"{DATA} --gin.BATCH_SIZE=4", 1, "make it a multiple of 8"),
]
PATHS = [
    (f"{RUN} --gin.DATA='none.jsonl'", 1, "no file at"),
    (f"{RUN} --gin.DATA='none-*.jsonl'", 1, "no file matches"),
    (f"{RUN} --gin.DATA='empty_folder'", 1, "is a folder: DATA must name a file"),
    (f"{RUN} --gin.DATA=''", 1, "DATA='' must be a path in quotes"),
    (f"{RUN} --gin.DATA=5", 1, "DATA=5 must be a path in quotes"),
    (f"{RUN} --gin.DATA={{}}", 1, "each path with a rate above 0"),
    (f"{RUN} --gin.DATA={{'good.jsonl':-1}}", 1, "each path with a rate above 0"),
    (f"{RUN} --gin.DATA={{'good.jsonl':0}}", 1, "each path with a rate above 0"),
    (f"{RUN} --gin.DATA='https://example.org/a.jsonl'", 1, "download it and name the copy"),
    (f"{DATA} --gin.VALIDATION_DATA='none.jsonl'", 1, "VALIDATION_DATA must name a file"),
    (f"{DATA} --gin.VALIDATION_DATA='good.jsonl' --gin.VALIDATION_SHARE=0.5", 1, "set one of them"),
    (
        f"{RUN} --gin.MIXTURE_OR_TASK_NAME='number_paths' --gin.VALIDATION_DATA='good.jsonl'",
        1,
        "VALIDATION_DATA goes with DATA",
    ),
    (
        f"{RUN} --gin.MIXTURE_OR_TASK_NAME='number_paths' --gin.COLUMNS={{'inputs':'a'}}",
        1,
        "COLUMNS goes with DATA",
    ),
    (
        f"{DATA} --gin.COLUMNS={{'inputs':'question','targets':'answer'}}",
        1,
        "no key 'question', which COLUMNS names (found: inputs, targets)",
    ),
    (f"{DATA} --gin.COLUMNS={{'prompt':'inputs'}}", 1, "or other names of columns"),
    (f"{DATA} --gin.MODEL_DIR=''", 1, "must be a path in quotes"),
    (f"{DATA} --gin.MODEL_DIR='good.jsonl'", 1, "choose a folder that you may write to"),
    (f"{DATA} --gin.MODEL_DIR='good.jsonl/run'", 1, "choose a folder that you may write to"),
    (f"{DATA} --gin.MODEL_DIR='a\\x00b'", 1, "holds a null character"),
    (f"{DATA} --gin.INITIAL_CHECKPOINT_PATH='none'", 1, "name a run's MODEL_DIR"),
    (f"{DATA} --gin.INITIAL_CHECKPOINT_PATH='empty_folder'", 1, "name a run's MODEL_DIR"),
    (
        f"{DATA} --gin.VOCABULARY_PATH='none'",
        1,
        "a folder with a Hugging Face tokenizer, a SentencePiece .model file, or None",
    ),
    (f"{DATA} --gin.VOCABULARY_PATH='empty_folder'", 1, "no tokenizer in the folder"),
    (f"{DATA} --gin.VOCABULARY_PATH='good.jsonl'", 1, "is no SentencePiece model"),
    (f"{DATA} --gin.VOCABULARY_PATH='junk.model'", 1, "is no SentencePiece model"),
    (
        f"{DATA} --gin.VOCABULARY_PATH='gs://bucket/spiece.model'",
        1,
        "copy it to a disk here and name the copy",
    ),
    (f"{DATA} --gin.CHAT=True", 1, "set VOCABULARY_PATH to the folder of a chat model"),
    (
        f"{RUN} --gin.MIXTURE_OR_TASK_NAME='gsm8k' --tfds_data_dir=none",
        1,
        "--tfds_data_dir must name an existing folder",
    ),
    ("eval --gin_file=gin/runs/eval.gin", 1, "leaves CHECKPOINT_PATH unset"),
    ("eval --gin_file=gin/runs/eval.gin --gin.CHECKPOINT_PATH='none'", 1, "the folder does not exist"),
    ("infer --gin_file=gin/runs/infer.gin --gin.CHECKPOINT_PATH='empty_folder'", 1, "name a run's MODEL_DIR"),
    ("score --gin_file=gin/runs/score.gin --gin.CHECKPOINT_PATH='good.jsonl'", 1, "name a run's MODEL_DIR"),
    ("score --gin_file=gin/runs/finetune.gin --gin.CHECKPOINT_PATH='none'", 1, "the folder does not exist"),
    (
        "convert --gin.CHECKPOINT_PATH='none' --gin.OUTPUT_PATH='out' --gin.FORMAT='hf'",
        1,
        "the folder does not exist",
    ),
    (
        "convert --gin.CHECKPOINT_PATH='none' --gin.OUTPUT_PATH='out' --gin.FORMAT='gguf'",
        1,
        "must be 'hf' or 't5x' or 'orbax' or 'peft'",
    ),
    ("convert --gin.OUTPUT_PATH='out'", 1, "leaves CHECKPOINT_PATH, FORMAT unset"),
    (
        "filter --gin_file=gin/runs/filter.gin --gin.SCORED='none.jsonl' --gin.OUTPUT_PATH='kept.jsonl' --gin.KEEP=0.5",
        1,
        "SCORED must be what lmirl score wrote",
    ),
    (
        "filter --gin_file=gin/runs/filter.gin --gin.SCORED='good.jsonl' --gin.OUTPUT_PATH='kept.jsonl' --gin.KEEP=0.5",
        1,
        "this is no line of lmirl score",
    ),
    (
        "filter --gin_file=gin/runs/filter.gin --gin.SCORED='deep.jsonl' --gin.OUTPUT_PATH='kept.jsonl' --gin.KEEP=0.5",
        1,
        "this is no line of lmirl score",
    ),
    (
        "sweep --gin_file=gin/runs/sweep.gin --gin.RUNS={} --gin.OUTPUT_DIR='out'",
        1,
        "must be labels with a list of paths each",
    ),
    (
        "sweep --gin_file=gin/runs/sweep.gin --gin.RUNS={'MLE':['none']} --gin.OUTPUT_DIR='out'",
        1,
        "the folder does not exist",
    ),
    (
        "report --gin_file=gin/runs/report.gin --gin.RUNS={'MLE':'none'} --gin.OUTPUT_DIR='out'",
        1,
        "the folder does not exist",
    ),
]


def line(**row: object) -> bytes:
    return json.dumps(row).encode() + b"\n"


GOOD = line(inputs="a", targets="b")
# Contents of a file that is DATA, and what the line about it holds.
FILES: dict[str, tuple[bytes, str]] = {
    "empty.jsonl": (b"", "is empty: write one JSON object with inputs and targets a line"),
    "blank.jsonl": (b"\n \n", "is empty: write one JSON object"),
    "not_json.jsonl": (GOOD + b"{inputs: a}\n", "line 2: not JSON (Expecting property name"),
    "cut.jsonl": (GOOD + b'{"inputs": "a", "targ', "line 2: not JSON (Unterminated string"),
    "array_line.jsonl": (GOOD + b'["a", "b"]\n', "line 2: not a JSON object"),
    "number.jsonl": (line(inputs=1, targets="b"), "line 1: inputs is int, not a string"),
    "no_targets.jsonl": (line(inputs="a"), "line 1: no key 'targets' (found: inputs)"),
    "unknown_columns.jsonl": (line(question="a", solution="b"), "found: question, solution"),
    "two_namings.jsonl": (line(inputs="a", targets="b", prompt="c", completion="d"), "say which by COLUMNS"),
    "null_target.jsonl": (GOOD + line(inputs="a", targets=None), "line 2: targets is null"),
    "no_reference.jsonl": (line(inputs="a", targets=[]), "line 1: targets is an empty list"),
    "nan_weight.jsonl": (b'{"inputs": "a", "targets": "b", "weight": NaN}\n', "line 1: weight is nan"),
    "negative_weight.jsonl": (
        line(inputs="a", targets="b", weight=-1),
        "line 1: weight is -1; write a number of 0 or more",
    ),
    "text_weight.jsonl": (line(inputs="a", targets="b", weight="2"), "line 1: weight is str, not a number"),
    "infinite_reward.jsonl": (b'{"inputs": "a", "targets": "b", "reward": 1e999}\n', "line 1: reward is inf"),
    "rewards_length.jsonl": (
        line(inputs="a", targets="b", rewards=[1.0]),
        "rewards has 1 numbers and the answer has 2 tokens",
    ),
    "latin.jsonl": ('{"inputs": "é", "targets": "b"}\n'.encode("latin-1"), "not UTF-8"),
    "utf16.jsonl": ('{"inputs": "a", "targets": "b"}\n'.encode("utf-16"), "not UTF-8"),
    "surrogate.jsonl": (b'{"inputs": "\\ud800", "targets": "b"}\n', "half of a surrogate pair"),
    "deep.jsonl": (
        GOOD + b'{"inputs": ' + b"[" * 10_000 + b"]" * 10_000 + b', "targets": "b"}\n',
        "line 2: brackets are nested too deeply",
    ),
    "twice.jsonl": (b'{"inputs": "a", "inputs": "b", "targets": "c"}\n', "the key 'inputs' is there twice"),
    "conversation.jsonl": (
        line(messages=[{"role": "user", "content": "a"}]),
        "messages need a chat template",
    ),
    "cut.jsonl.gz": (gzip.compress(GOOD * 50)[:-9], "damaged gzip"),
    "no_gzip.jsonl.gz": (b"\x1f\x8b" + b"junk" * 9, "damaged gzip"),
    "cut.parquet": (b"PAR1" + b"\x00" * 40, "not Parquet"),
    "cut.arrow": (b"ARROW1\x00\x00" + b"\x00" * 8, "not Arrow"),
    "ragged.csv": (b"inputs,targets\na,b\nc\n", "line 3: 1 values for 2 columns"),
    "quote.csv": (b'inputs,targets\na,"b\nc,d\n', "line 2: not CSV"),
    "no_header.csv": (b"a,b\nc,d\n", "no key 'inputs' (found: a, b)"),
    "program.jsonl": (b"\x7fELF" + bytes(range(256)), "not UTF-8"),
}


def write(folder: pathlib.Path) -> None:
    """Writes the files that the command lines name."""
    (folder / "empty_folder").mkdir()
    (folder / "good.jsonl").write_bytes(GOOD * 4)
    for name, (content, _) in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "bad_syntax.gin").write_text("BATCH_SIZE = \n= 5\n")
    (folder / "latin.gin").write_bytes("# é\nBATCH_SIZE = 2\n".encode("latin-1"))
    (folder / "unknown_import.gin").write_text(
        "from __gin__ import dynamic_registration\nimport no_such_module\n"
    )
    (folder / "includes_itself.gin").write_text("include 'includes_itself.gin'\n")
    (folder / "junk.model").write_bytes(b"junk" * 20)
