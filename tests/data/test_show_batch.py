"""`lmirl doctor --show_batch`: every token of the first batch with the numbers that the loss multiplies it by."""

import ast

import pytest

from lmirl_jax import configuration
from lmirl_jax.cli import main


@pytest.fixture
def show(tmp_path, monkeypatch, capsys):
    """Prints the first batch of a run on a file, and returns its rows without those that explain them."""
    monkeypatch.setenv("LMIRL_CACHE_DIR", str(tmp_path / "cache"))

    def show(path, *bindings, rows=9, settings="TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 24}"):
        given = [f"MODEL_DIR={str(tmp_path / 'run')!r}", "TRAIN_STEPS=1", f"DATA={str(path)!r}", settings]
        given += ["SHUFFLE_TRAIN_EXAMPLES=False", *bindings]
        command = ["doctor", "--gin_file=gin/runs/finetune.gin", *(f"--gin.{binding}" for binding in given)]
        with configuration.restore_afterwards():
            assert main([*command, "--show_batch", f"--num_examples={rows}"]) == 0
        assert not (tmp_path / "run").exists()
        return capsys.readouterr().out.partition("\nweight: ")[0].splitlines()

    return show


HEADER = "        place      id  weight discount TD weight  reward  token"


def test_a_packed_batch_of_an_encoder_decoder(write_jsonl, show):
    """Bytes have the ids of ByT5: a character's code and 3; the reward stands at the last token."""
    path = write_jsonl(
        [
            {"inputs": "a\x1b[1m", "targets": "4", "weight": 0.5, "reward": 1.5},
            {"inputs": "b\nc", "targets": "hi", "reward": -1},
        ]
    )
    assert show(path, "BATCH_SIZE=1", "PACK=True", "DISCOUNT=0.9") == [
        "row 1 of 1: 2 examples, 10 of 32 places of inputs, 5 of 24 places of targets",
        "  example 1: a prompt of 6 tokens",
        r"    | a\x1b[1m</s>",
        HEADER,
        "            0      55     0.5      0.9         1       0  '4'",
        "            1       1     0.5        0         1     1.5  '</s>'",
        "  example 2: a prompt of 4 tokens",
        "    | b",
        "    | c</s>",
        HEADER,
        "            2     107       1      0.9         1       0  'h'",
        "            3     108       1      0.9         1       0  'i'",
        "            4       1       1        0         1      -1  '</s>'",
    ]


def test_a_truncated_target_has_no_reward_at_its_last_token(write_jsonl, show):
    path = write_jsonl([{"inputs": "a", "targets": "hi"}] * 3)
    lengths = "TASK_FEATURE_LENGTHS={'inputs': 8, 'targets': 2}"
    lines = show(path, "BATCH_SIZE=3", rows=1, settings=lengths)
    assert lines[-2:] == [
        "            0     107       1        1         1       0  'h'",
        "            1     108       1        0         0       0  'i'",
    ]
    assert lines[0].startswith("row 1 of 3: ") and not any(line.startswith("row 2") for line in lines)


CHAT = [
    {"role": "user", "content": "x"},
    {"role": "assistant", "content": "hi"},
    {"role": "user", "content": "y"},
    {"role": "assistant", "content": "ho"},
]


def test_a_conversation_shows_its_template_and_what_is_not_learnt(write_jsonl, show, hf_chat):
    lines = show(
        write_jsonl([{"messages": CHAT}]),
        "BATCH_SIZE=1",
        f"VOCABULARY_PATH={str(hf_chat['qwen'])!r}",
        "CHAT_EPISODES='conversation'",
        settings="TASK_FEATURE_LENGTHS={'inputs': 96, 'targets': 96}",
    )
    start = lines.index(HEADER)
    prompt = "\n".join(line.removeprefix("    | ") for line in lines[2:start])
    assert (
        prompt
        == "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"
    )
    cells = [line.split(maxsplit=6) for line in lines[start + 1 :]]
    answer = "".join(ast.literal_eval(piece) for *_, piece in cells)
    assert answer == "hi<|im_end|>\n<|im_start|>user\ny<|im_end|>\n<|im_start|>assistant\nho<|im_end|>"
    learnt = "".join(
        ast.literal_eval(piece) for _, _, weight, _, td, _, piece in cells if weight == td == "1"
    )
    assert learnt == "hi<|im_end|>ho<|im_end|>"
    # One episode: the discount is 0 at its very end alone.
    assert [discount for _, _, _, discount, *_ in cells] == ["1"] * (len(cells) - 1) + ["0"]
