"""How much of a text each token of a Hugging Face tokenizer stands for, without decoding every prefix of the tokens."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from lmirl_jax.data.offsets import Offsets, shared_length


def stream_ends(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> list[int] | None:
    """The character of the text before which each token ends; None where the tokens' pieces do not add up to the text.

    Args:
        tokenizer: the tokenizer.
        ids: tokens, each of which the tokenizer has.
        text: the text that they decode to.
    """
    stream = DecodeStream(skip_special_tokens=False)
    ends, begin, waiting = [], 0, []
    for place, i in enumerate(ids):
        waiting.append(i)
        chunk = stream.step(tokenizer, i)
        if place == len(ids) - 1:
            # The stream holds back an incomplete character, and at the end it is part of the text.
            chunk = text[begin:]
        if chunk is None:
            continue
        if not text.startswith(chunk, begin):
            return None
        parts = (tokenizer.decode(waiting[:count]) for count in range(1, len(waiting)))
        ends += [*(begin + shared_length(part, chunk) for part in parts), begin + len(chunk)]
        begin += len(chunk)
        waiting = []
    return ends


def contiguous(ends: Sequence[int]) -> Offsets:
    """Offsets of tokens that begin where the one before ends, so that white space belongs to the token after it."""
    offsets, begin = [], 0
    for end in ends:
        end = max(begin, end)
        offsets.append((begin, end))
        begin = end
    return tuple(offsets)
