"""How different several samples of one prompt are: Self-BLEU and distinct n-grams."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.helpers import extract_all_word_ngrams

from lmirl_jax.evaluation.corpus_metrics import sacrebleu_bleu
from lmirl_jax.types import UserError

Samples = Sequence[Sequence[str]]


def self_bleu(samples: Samples, *, tokenize: str = "13a") -> float:
    """Self-BLEU, 0 to 100: how well each sample of a prompt is predicted by the others. High means little diversity.

    It is sacrebleu's sentence BLEU (effective order, exponential smoothing) of each sample against the prompt's other
    samples as references, averaged over the samples of a prompt and then over prompts. Equal samples give 100.

    Args:
        samples: for each prompt its samples, at least two.
        tokenize: the name of a sacrebleu tokenizer. 13a also splits arithmetic: `3+8=11` is `3 + 8 = 11`.

    Returns:
        The mean, on sacrebleu's scale of 0 to 100.

    Raises:
        UserError: no prompt, a prompt with fewer than two samples, or an unknown tokenizer.

    Source: Zhu et al., Texygen, https://arxiv.org/abs/1802.01886.
    """
    values = self_bleu_per_prompt(samples, tokenize=tokenize)
    return sum(values) / len(values)


def self_bleu_per_prompt(samples: Samples, *, tokenize: str = "13a") -> list[float]:
    """Self-BLEU of each prompt, 0 to 100; see `self_bleu`, which is its mean."""
    if not samples:
        raise UserError("Self-BLEU: there are no samples; generate some for at least one prompt")
    bleu = sacrebleu_bleu("Self-BLEU", tokenize, effective_order=True)
    for i, texts in enumerate(samples):
        if len(texts) < 2:
            raise UserError(
                f"Self-BLEU: prompt {i} has {len(texts)} sample(s), at least 2 are needed; draw more samples a prompt"
            )
    return [_prompt_self_bleu(bleu, texts) for texts in samples]


def distinct_n(samples: Samples, n: int) -> float:
    """Distinct-n of the whole corpus, 0 to 1: unique n-grams over all n-grams, of all samples of all prompts.

    Tokens are split at white space; no n-gram crosses a sample's end. As the ratio falls with the size of the corpus,
    compare equal numbers of prompts and samples only. It is no mean over prompts, and has no bootstrap interval: a prompt
    drawn twice would say all its n-grams again. `distinct_n_per_prompt` is what such an interval can be made of.

    Args:
        samples: for each prompt its samples.
        n: the order, 1 or more.

    Returns:
        The ratio; 0 where every sample is shorter than n tokens.

    Raises:
        UserError: n below 1, or no samples.

    Source: Li et al., https://arxiv.org/abs/1510.03055.
    """
    _check_distinct(samples, n)
    return _distinct([text for texts in samples for text in texts], n)


def distinct_n_per_prompt(samples: Samples, n: int) -> list[float]:
    """Distinct-n of each prompt's samples, 0 to 1: unique n-grams over all n-grams within the prompt; see `distinct_n`."""
    _check_distinct(samples, n)
    return [_distinct(texts, n) for texts in samples]


def _check_distinct(samples: Samples, n: int) -> None:
    if n < 1:
        raise UserError(f"distinct-n: n is {n}; give 1 or more")
    if not any(samples):
        raise UserError("distinct-n: there are no samples; generate some for at least one prompt")


def _distinct(texts: Sequence[str], n: int) -> float:
    grams: list[tuple[str, ...]] = []
    for text in texts:
        tokens = text.split()
        grams += [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _prompt_self_bleu(bleu: BLEU, texts: Sequence[str]) -> float:
    """Mean sentence BLEU of each text against the others, with each text's n-grams counted once.

    BLEU clips an n-gram's count at its maximum over the references. The references of text i are all texts but i, so that
    the largest and the second largest count over all texts tell it: the second where text i itself holds the largest.
    """
    counted = [
        extract_all_word_ngrams(bleu.tokenizer(text.rstrip()), 1, bleu.max_ngram_order) for text in texts
    ]
    largest: dict[tuple[str, ...], int] = {}
    second: dict[tuple[str, ...], int] = {}
    for grams, _ in counted:
        for gram, count in grams.items():
            top = largest.get(gram, 0)
            largest[gram] = max(top, count)
            second[gram] = max(second.get(gram, 0), min(top, count))

    total = 0.0
    for i, (grams, length) in enumerate(counted):
        correct, possible = [0] * bleu.max_ngram_order, [0] * bleu.max_ngram_order
        for gram, count in grams.items():
            order = len(gram) - 1
            possible[order] += count
            # A count below the largest leaves the largest to another text; otherwise the clip is the second.
            correct[order] += count if count < largest[gram] else second[gram]
        others = [other for j, (_, other) in enumerate(counted) if j != i]
        closest = min(others, key=lambda other: (abs(other - length), other))
        score = bleu.compute_bleu(
            correct,
            possible,
            length,
            closest,
            smooth_method=bleu.smooth_method,
            effective_order=bleu.effective_order,
            max_ngram_order=bleu.max_ngram_order,
        )
        total += score.score
    return total / len(texts)
