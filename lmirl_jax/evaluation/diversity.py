"""The diversity of several samples of one prompt: Self-BLEU and distinct n-grams."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sacrebleu.metrics import BLEU
from sacrebleu.metrics.helpers import extract_all_word_ngrams

from lmirl_jax.argument_rules import fits
from lmirl_jax.arguments import Count
from lmirl_jax.evaluation.corpus_metrics import sacrebleu_bleu
from lmirl_jax.evaluation.words import spread_characters
from lmirl_jax.types import UserError

Samples = Sequence[Sequence[str]]


def self_bleu(samples: Samples, *, tokenize: str | None = None) -> float:
    """Self-BLEU, 0 to 100: how well each sample of a prompt is predicted by the others. High means little diversity.

    It is sacrebleu's sentence BLEU (effective order, exponential smoothing) of each sample against the prompt's other
    samples as references, averaged over the samples of a prompt and then over prompts. Equal samples give 100, empty ones
    too; an empty sample among others that are not gives 0. Prompts may differ in how many samples they have.

    Args:
        samples: for each prompt its samples, at least two.
        tokenize: the name of a sacrebleu tokenizer; None for 13a, with each character of a script without spaces (Chinese,
            Japanese, Thai, ...) as a word. 13a also splits arithmetic: `3+8=11` is `3 + 8 = 11`.

    Returns:
        The mean, on sacrebleu's scale of 0 to 100.

    Raises:
        UserError: no prompt, a prompt with fewer than two samples, samples that are no lists of texts, or an unknown tokenizer.

    Source: Zhu et al., Texygen, https://arxiv.org/abs/1802.01886.
    """
    values = self_bleu_per_prompt(samples, tokenize=tokenize)
    return sum(values) / len(values)


def self_bleu_per_prompt(samples: Samples, *, tokenize: str | None = None) -> list[float]:
    """Self-BLEU of each prompt, 0 to 100; see `self_bleu`, which is its mean."""
    texts_by_prompt = _check_samples("Self-BLEU", samples, least=2)
    bleu = sacrebleu_bleu("Self-BLEU", tokenize or "13a", effective_order=True)
    if tokenize is None:
        # Without this, a Chinese sentence would be one word, and two sentences that differ in one character would share no word.
        texts_by_prompt = [[spread_characters(text) for text in texts] for texts in texts_by_prompt]
    return [_prompt_self_bleu(bleu, texts) for texts in texts_by_prompt]


def distinct_n(samples: Samples, n: int) -> float:
    """Distinct-n of the whole corpus, 0 to 1: unique n-grams over all n-grams, of all samples of all prompts.

    Tokens are split at white space, and each character of a script without spaces is one; no n-gram crosses a sample's end.
    The ratio falls with the size of the corpus, so compare only equal numbers of prompts and samples. It is not a mean over
    prompts and has no bootstrap interval: a prompt that is drawn twice would repeat all its n-grams. Use the mean of
    `distinct_n_per_prompt` where you need an interval.

    Args:
        samples: for each prompt its samples.
        n: the order, 1 or more.

    Returns:
        The ratio; 0 where every sample is shorter than n tokens.

    Raises:
        UserError: n below 1, a prompt without samples, or samples that are no lists of texts.

    Source: Li et al., https://arxiv.org/abs/1510.03055.
    """
    return _distinct([text for texts in _check_distinct(samples, n) for text in texts], n)


def distinct_n_per_prompt(samples: Samples, n: int) -> list[float]:
    """Distinct-n of each prompt's samples, 0 to 1: unique n-grams over all n-grams within the prompt; see `distinct_n`."""
    return [_distinct(texts, n) for texts in _check_distinct(samples, n)]


def _check_distinct(samples: Samples, n: int) -> list[list[str]]:
    if not fits(n, Count):
        raise UserError(f"distinct-n: n is {n!r}; give a whole number of 1 or more")
    return _check_samples("distinct-n", samples, least=1)


def _check_samples(measure: str, samples: Any, least: int) -> list[list[str]]:
    """Returns the samples as lists of texts; raises a UserError unless each prompt has at least `least` texts."""
    if isinstance(samples, (str, bytes, Mapping)):
        raise UserError(
            f"{measure}: samples is a {type(samples).__name__}; give a list with a list of samples for each prompt"
        )
    if len(samples) == 0 or all(not isinstance(texts, str) and len(texts) == 0 for texts in samples):
        raise UserError(f"{measure}: there are no samples; generate some for at least one prompt")
    for i, texts in enumerate(samples):
        if isinstance(texts, (str, bytes, Mapping)) or not isinstance(texts, Collection):
            raise UserError(
                f"{measure}: prompt {i} is a {type(texts).__name__} and no list of samples; give a list of texts for each prompt"
            )
        wrong = next((text for text in texts if not isinstance(text, str)), "")
        if wrong != "":
            raise UserError(
                f"{measure}: prompt {i} has a {type(wrong).__name__} among its samples; give a list of texts for each prompt"
            )
        if len(texts) < least:
            raise UserError(
                f"{measure}: prompt {i} has {len(texts)} sample(s), at least {least} are needed; draw more samples a prompt"
            )
    return [list(texts) for texts in samples]


def _distinct(texts: Sequence[str], n: int) -> float:
    grams: list[tuple[str, ...]] = []
    for text in texts:
        tokens = spread_characters(text).split()
        grams += [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _prompt_self_bleu(bleu: BLEU, texts: Sequence[str]) -> float:
    """Mean sentence BLEU of each text against the others, with each text's n-grams counted once.

    BLEU clips an n-gram's count at its maximum over the references. The references of text i are all texts but i. So the
    largest and the second largest count over all texts suffice: the clip is the second where text i itself has the largest.
    """
    ngrams = [
        extract_all_word_ngrams(bleu.tokenizer(text.rstrip()), 1, bleu.max_ngram_order) for text in texts
    ]
    largest: dict[tuple[str, ...], int] = {}
    second: dict[tuple[str, ...], int] = {}
    for grams, _ in ngrams:
        for gram, count in grams.items():
            top = largest.get(gram, 0)
            largest[gram] = max(top, count)
            second[gram] = max(second.get(gram, 0), min(top, count))

    total = 0.0
    for i, (grams, length) in enumerate(ngrams):
        correct, possible = [0] * bleu.max_ngram_order, [0] * bleu.max_ngram_order
        for gram, count in grams.items():
            order = len(gram) - 1
            possible[order] += count
            # A count below the largest leaves the largest to another text; otherwise the clip is the second.
            correct[order] += count if count < largest[gram] else second[gram]
        others = [other for j, (_, other) in enumerate(ngrams) if j != i]
        if length == 0:
            # sacrebleu gives 0 to every empty text, but another empty text predicts it perfectly.
            total += 100.0 if 0 in others else 0.0
            continue
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
