"""Corpus BLEU and ChrF by sacrebleu, with signatures and bootstrap intervals."""

import difflib
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Num
from sacrebleu.metrics import BLEU, CHRF

from lmirl_jax.argument_rules import fits
from lmirl_jax.arguments import Whole
from lmirl_jax.evaluation.references import Targets, reference_lists, sample_lists
from lmirl_jax.evaluation.words import lacks_spaces, warn_once
from lmirl_jax.statistics.bootstrap import Ends, interval_of, resampling_weights
from lmirl_jax.statistics.evidence import Evidence, event_prompts
from lmirl_jax.types import UserError


def bleu(
    targets: Targets, predictions: Sequence[str], *, tokenize: str = "13a", lowercase: bool = False
) -> dict[str, float]:
    """Corpus BLEU, 0 to 100, as sacrebleu computes it (exponential smoothing); see `bleu_signature`.

    Args:
        targets: for each prompt a reference or several, not all of them empty; prompts may differ in their number.
        predictions: one text for each prompt.
        tokenize: the name of a sacrebleu tokenizer.
        lowercase: whether to ignore case.

    Returns:
        `{"bleu": ...}`.

    Raises:
        UserError: no prompts, lists of different lengths, a prompt without a reference, or an unknown tokenizer.

    Source: Post, https://arxiv.org/abs/1804.08771.
    """
    metric = sacrebleu_bleu("BLEU", tokenize, lowercase)
    references = reference_lists("BLEU", targets, predictions)
    if tokenize in ("13a", "intl", "none"):
        unspaced = next((text for texts in references for text in texts if lacks_spaces(text)), None)
        if unspaced is not None:
            warn_once(
                "BLEU: this tokenizer takes a run of characters without spaces for one word, such as %r; tokenize='zh', "
                "'ja-mecab' or 'char' compares its parts",
                unspaced,
            )
    return {"bleu": metric.corpus_score(list(predictions), _streams(references)).score}


def t5_bleu(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """Corpus BLEU, 0 to 100, as T5's own metrics have it: sacrebleu with its `intl` tokenizer, which T5's papers report.

    Args:
        targets, predictions: see `bleu`.

    Returns:
        `{"t5_bleu": ...}`; its signature is `bleu_signature(tokenize="intl")`.

    Raises:
        UserError: as `bleu`.

    Source: bleu of t5/evaluation/metrics.py, https://github.com/google-research/text-to-text-transfer-transformer.
    """
    return {"t5_bleu": bleu(targets, predictions, tokenize="intl")["bleu"]}


def chrf(
    targets: Targets, predictions: Sequence[str], *, word_order: int = 0, lowercase: bool = False
) -> dict[str, float]:
    """Corpus ChrF2, 0 to 100, as sacrebleu computes it: each prompt by its best reference; see `chrf_signature`.

    Args:
        targets: for each prompt a reference or several, not all of them empty.
        predictions: one text for each prompt.
        word_order: 0 for ChrF, 2 for ChrF++.
        lowercase: whether to ignore case.

    Returns:
        `{"chrf": ...}`.

    Raises:
        UserError: no prompts, lists of different lengths, a prompt without a reference, or a negative order.

    Source: Popović, https://aclanthology.org/W15-3049.
    """
    metric = _chrf(word_order, lowercase)
    references = reference_lists("ChrF", targets, predictions)
    return {"chrf": metric.corpus_score(list(predictions), _streams(references)).score}


def bleu_interval(
    targets: Targets,
    predictions: Sequence[str | Sequence[str]],
    seed: int = 0,
    *,
    tokenize: str = "13a",
    lowercase: bool = False,
    coverage: float = 0.95,
) -> Ends:
    """Bootstrap interval of corpus BLEU over prompts, from sacrebleu's counts of each; see `bootstrap.interval_of`.

    Args:
        targets: see `bleu`.
        predictions: one text for each prompt; or the same number of samples for each, for the interval of their mean BLEU.
        seed: the seed of the resampling; `bootstrap_interval` draws the same prompts with it.
        tokenize: the name of a sacrebleu tokenizer.
        lowercase: whether to ignore case.
        coverage: the coverage of the interval, between 0 and 1.

    Returns:
        The lower and the upper end; None for both with fewer than 10 prompts, or where fewer than 8 prompts have a sentence
        score other than the commonest.

    Raises:
        UserError: as `bleu`, or samples that differ in number.

    Source: Koehn, https://aclanthology.org/W04-3250.
    """
    metric = sacrebleu_bleu("BLEU", tokenize, lowercase)
    return _corpus_interval("BLEU", metric, targets, predictions, seed, coverage)


def chrf_interval(
    targets: Targets,
    predictions: Sequence[str | Sequence[str]],
    seed: int = 0,
    *,
    word_order: int = 0,
    lowercase: bool = False,
    coverage: float = 0.95,
) -> Ends:
    """Bootstrap interval of corpus ChrF over prompts; see `bleu_interval`."""
    return _corpus_interval("ChrF", _chrf(word_order, lowercase), targets, predictions, seed, coverage)


def bleu_signature(num_references: int | None = 1, *, tokenize: str = "13a", lowercase: bool = False) -> str:
    """sacrebleu's signature, to report beside the value of `bleu`. `num_references` is None where prompts differ in it."""
    return _signature(sacrebleu_bleu("BLEU", tokenize, lowercase), num_references)


def chrf_signature(num_references: int | None = 1, *, word_order: int = 0, lowercase: bool = False) -> str:
    """sacrebleu's signature, to report beside the value of `chrf`; see `bleu_signature`."""
    return _signature(_chrf(word_order, lowercase), num_references)


# Cached, because a tokenizer keeps a cache of the texts that it has tokenized.
@functools.lru_cache(maxsize=16)
def sacrebleu_bleu(name: str, tokenize: str, lowercase: bool = False, effective_order: bool = False) -> BLEU:
    """sacrebleu's BLEU with a tokenizer by name; `name` is the metric that errors speak of."""
    if tokenize not in BLEU.TOKENIZERS:
        near = difflib.get_close_matches(tokenize, BLEU.TOKENIZERS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(BLEU.TOKENIZERS)}"
        raise UserError(f"{name}: sacrebleu has no tokenizer {tokenize!r}; {hint}")
    try:
        return BLEU(tokenize=tokenize, lowercase=lowercase, effective_order=effective_order)
    except (ImportError, RuntimeError) as error:
        # Tokenizers such as ja-mecab need further packages.
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: sacrebleu's tokenizer {tokenize!r} does not start: {reason}") from error


def _chrf(word_order: int, lowercase: bool) -> CHRF:
    if not fits(word_order, Whole):
        raise UserError(f"ChrF: word_order is {word_order!r}; give 0 for ChrF or 2 for ChrF++")
    return CHRF(word_order=word_order, lowercase=lowercase)


def _signature(metric: BLEU | CHRF, num_references: int | None) -> str:
    metric.num_refs = -1 if num_references is None else num_references
    return str(metric.get_signature())


def _corpus_interval(
    name: str, metric: BLEU | CHRF, targets: Targets, predictions: Sequence[Any], seed: int, coverage: float
) -> Ends:
    references = _streams(reference_lists(name, targets, predictions, several=True))
    samples = sample_lists(predictions)
    if len({len(texts) for texts in samples}) > 1:
        raise UserError(f"{name}: prompts have different numbers of samples; draw equally many of each")
    counts = np.array([metric._extract_corpus_statistics(texts, references) for texts in zip(*samples)])
    draws = np.rint(resampling_weights(len(samples), seed) * len(samples))
    totals = np.einsum("dp,spn->dsn", draws, counts, optimize=True).astype(int)
    evidence = Evidence(len(samples), len(samples), len(event_prompts(_means(metric, counts.swapaxes(0, 1)))))
    value = float(_means(metric, counts.sum(axis=1)[None])[0])
    return interval_of(value, _means(metric, totals), evidence, coverage)


def _means(metric: BLEU | CHRF, counts: Num[np.ndarray, "some samples n"]) -> Float[np.ndarray, " some"]:
    """The mean over samples of the score that each row of sacrebleu's counts gives."""
    scores = [[metric._compute_score_from_stats(row).score for row in rows] for rows in counts.tolist()]
    return np.array(scores).mean(axis=1)


def _streams(references: list[list[str]]) -> list[list[Any]]:
    """The references in sacrebleu's order: the first of every prompt, the second of every prompt, and so on.

    A prompt that has fewer references than another has None in place of those that it lacks.
    """
    # The items are `str | None`: sacrebleu's annotations say `str`, but its code leaves out a reference that is None.
    most = max(map(len, references))
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]
