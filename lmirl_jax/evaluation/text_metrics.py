"""Metrics that compare predictions with reference texts, prompt by prompt: ROUGE, sentence BLEU, exact match.

`targets` has for each prompt its reference, or a list of several. The functions of `(targets, predictions)` return numbers by
name, means over prompts, and can stand in the `metric_fns` of a SeqIO task as they are; so can `bleu` and `chrf`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lmirl_jax.evaluation.corpus_metrics import sacrebleu_bleu
from lmirl_jax.evaluation.references import Targets, check_lengths, reference_lists, sample_lists
from lmirl_jax.evaluation.rouge_tokenizers import (
    ROUGE_TOKENIZERS,
    RougeTokenizer,
    rouge_tokenizer,
    warn_of_cut_words,
)
from lmirl_jax.types import UserError

ROUGE_TYPES = ("rouge1", "rouge2", "rougeLsum")


def rouge(
    targets: Targets, predictions: Sequence[str], *, use_stemmer: bool = False, tokenize: str = "auto"
) -> dict[str, float]:
    """ROUGE-1, ROUGE-2 and ROUGE-Lsum, F-measures from 0 to 100, as the rouge-score library computes them.

    With several references, each metric takes the one for which it is largest (the library's `score_multi`). Sentences, of
    which ROUGE-Lsum joins the longest common subsequences, end at newlines: without newlines it is ROUGE-L.

    Args:
        targets: for each prompt a reference or several, not all of them empty.
        predictions: one text for each prompt.
        use_stemmer: whether words that Porter's stemmer (for English) makes equal count as equal.
        tokenize: "ascii": rouge-score's own words of a to z and digits, where every other letter is a space; "unicode": words
            of any language, and single characters where none are written apart (`words.unicode_words`); "auto": "unicode" for
            a prompt where "ascii" would cut at least half of the references' words, else "ascii". A warning says so, once.

    Returns:
        `rouge1`, `rouge2` and `rougeLsum`: means over prompts.

    Raises:
        UserError: no prompts, lists of different lengths, a prompt without a reference, or an unknown tokenizer.

    Source: Lin, https://aclanthology.org/W04-1013.
    """
    if tokenize not in ROUGE_TOKENIZERS:
        raise UserError(
            f"ROUGE: there is no tokenizer {tokenize!r}; choose one of {', '.join(ROUGE_TOKENIZERS)}"
        )
    scores = []
    for text, prompt_references in zip(predictions, reference_lists("ROUGE", targets, predictions)):
        tokenizer = rouge_tokenizer(prompt_references) if tokenize == "auto" else tokenize
        warn_of_cut_words(prompt_references, tokenizer, tokenize)
        scores.append(_rouge_scorer(use_stemmer, tokenizer).score_multi(prompt_references, text))
    return {name: 100 * float(np.mean([score[name].fmeasure for score in scores])) for name in ROUGE_TYPES}


def t5_rouge(targets: Targets, predictions: Sequence[str]) -> dict[str, float]:
    """ROUGE as T5's own metrics have it: sentences end after ` . `, so that ROUGE-Lsum is over them; words are of a to z.

    T5 reports the median of 1,000 means over resampled prompts, which differs from draw to draw; these are the plain means.

    Args:
        targets: for each prompt a reference or several, not all of them empty.
        predictions: one text for each prompt.

    Returns:
        `t5_rouge1`, `t5_rouge2` and `t5_rougeLsum`, 0 to 100: means over prompts.

    Raises:
        UserError: as `rouge`.

    Source: rouge of t5/evaluation/metrics.py, https://github.com/google-research/text-to-text-transfer-transformer.
    """
    references = [
        [_t5_sentences(text) for text in texts] for texts in reference_lists("ROUGE", targets, predictions)
    ]
    scores = rouge(references, [_t5_sentences(text) for text in predictions], tokenize="ascii")
    return {f"t5_{name}": value for name, value in scores.items()}


def _t5_sentences(text: str) -> str:
    return text.replace(" . ", " .\n")


def sentence_bleu(targets: Targets, predictions: Sequence[str], *, tokenize: str = "13a") -> dict[str, float]:
    """`sentence_bleu`, 0 to 100: the mean over prompts of sacrebleu's sentence BLEU (effective order); not comparable to BLEU."""
    metric = sacrebleu_bleu("sentence BLEU", tokenize, effective_order=True)
    references = reference_lists("sentence BLEU", targets, predictions)
    scores = [
        metric.sentence_score(text, prompt_references).score
        for text, prompt_references in zip(predictions, references)
    ]
    return {"sentence_bleu": float(np.mean(scores))}


def exact_match(targets: Sequence[Any], predictions: Sequence[Any]) -> dict[str, float]:
    """`exact_match`, 0 to 1: the fraction of predictions that equal their reference, or one of a list, to the letter."""
    check_lengths("exact match", targets, predictions)
    hits = [
        prediction in target if isinstance(target, (list, tuple)) else prediction == target
        for target, prediction in zip(targets, predictions)
    ]
    return {"exact_match": sum(hits) / len(hits)}


def by_prompt(
    metric: Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]],
    targets: Sequence[Any],
    predictions: Sequence[Any],
) -> dict[str, list[float]]:
    """A metric of each prompt alone, for `mean_interval`: of one prediction, or the mean over a list of samples.

    Their mean is the metric where that is a mean over prompts, as all of this file's are. `bleu` and `chrf` are not: their
    intervals come from `bleu_interval` and `chrf_interval`.
    """
    check_lengths("by_prompt", targets, predictions)
    values: dict[str, list[float]] = {}
    for target, texts in zip(targets, sample_lists(predictions)):
        for name, value in metric([target] * len(texts), texts).items():
            values.setdefault(name, []).append(float(value))
    return values


@functools.cache
def _rouge_scorer(use_stemmer: bool, tokenize: str) -> Any:
    # The import is here, because it loads NLTK, which takes a second.
    from rouge_score.rouge_scorer import RougeScorer

    words = None if tokenize == "ascii" else RougeTokenizer(use_stemmer)
    return RougeScorer(ROUGE_TYPES, use_stemmer=use_stemmer, tokenizer=words)
