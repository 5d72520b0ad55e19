"""Tiny decoder-only models of transformers, and what it computes from them; `transformers_models.py` imports it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers

# The window is longer than the shortest prompt with its answer, and shorter than the others.
WINDOW = 40
NAMES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")


def models(stack: Mapping[str, Any]) -> dict:
    """A model of each family, by its name.

    Args:
        stack: sizes, with the options of Gemma 2.
    """
    gemma = {**stack, "sliding_window": WINDOW}
    caps = ("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping")
    plain = {name: value for name, value in stack.items() if name not in (*caps, "sliding_window")}
    third = {name: value for name, value in gemma.items() if name != "attn_logit_softcapping"}
    # Wavelengths of 6 to 670 tokens, of which the scaling keeps the first, changes the second a little, and stretches others.
    llama3 = {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0}
    llama3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    windows = {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}
    ropes = {
        "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
    configs = {
        "llama": transformers.LlamaConfig(
            **plain
            | {
                "head_dim": 8,
                "rope_parameters": llama3,
                "tie_word_embeddings": False,
                "initializer_range": 0.3,
            }
        ),
        "qwen2": transformers.Qwen2Config(**plain | windows | {"tie_word_embeddings": True}),
        "qwen3": transformers.Qwen3Config(**plain | {"tie_word_embeddings": True, "bos_token_id": None}),
        "gemma2": transformers.Gemma2Config(**gemma),
        "gemma3": transformers.Gemma3TextConfig(
            **third | {"sliding_window_pattern": 3, "rope_parameters": ropes, "num_hidden_layers": 4}
        ),
    }
    made = {}
    for name, config in configs.items():
        # The attention of torch has no soft caps.
        made[name] = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return made


def compute(
    model, inputs: np.ndarray, lengths: tuple[int, ...], answers: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The logits of the tokens of answers, from the one of the first token on, and the greedy answers.

    Args:
        model: the model.
        inputs: the prompts, padded at their ends.
        lengths: the number of tokens of each prompt.
        answers: the answers; each has one token behind those that are read, in the place of its first one. It is the last
            token of the prompt that the first one is predicted from.
        steps: the number of tokens of the greedy answers.
    """
    for row, length, answer in zip(inputs, lengths, answers):
        answer[0] = row[length - 1]
    rows = [np.concatenate([row[:n], answer[1:]]) for row, n, answer in zip(inputs, lengths, answers)]
    count = answers.shape[1]
    found = []
    with torch.no_grad():
        for left in (False, True):
            given, begins = _padded(rows, left)
            logits = model(**given).logits.numpy()
            firsts = [begin + length - 1 for begin, length in zip(begins, lengths)]
            found.append(np.stack([row[first : first + count] for row, first in zip(logits, firsts)]))
        np.testing.assert_allclose(*found, atol=2e-5, rtol=0)
        given, _ = _padded([row[:length] for row, length in zip(inputs, lengths)], left=True)
        del given["position_ids"]
        made = model.generate(**given, max_new_tokens=steps, do_sample=False, num_beams=1)
    return found[0], made.numpy()[:, max(lengths) :]


def _padded(rows: list[np.ndarray], left: bool) -> tuple[dict[str, torch.Tensor], list[int]]:
    """What a model is given, with padding on one side, and the place of the first token of each row."""
    longest = max(map(len, rows))
    ids, mask = np.zeros((2, len(rows), longest), np.int64)
    begins = [longest - len(row) if left else 0 for row in rows]
    for number, (row, begin) in enumerate(zip(rows, begins)):
        ids[number, begin : begin + len(row)] = row
        mask[number, begin : begin + len(row)] = 1
    positions = np.maximum(np.cumsum(mask, 1) - 1, 0)
    arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {name: torch.tensor(array) for name, array in arrays.items()}, begins
