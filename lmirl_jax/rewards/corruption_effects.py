"""The effect of corruptions on rewards: how often the return falls, and whether the rewards show the place of the damage."""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from lmirl_jax.data.steps import Span
from lmirl_jax.rewards.corruptions import Corruption
from lmirl_jax.rewards.scored import ScoredAnswer
from lmirl_jax.statistics.proportions import mean_interval

Interval = tuple[float, float]
Pair = tuple[ScoredAnswer, ScoredAnswer, Corruption]
EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class CorruptionEffect:
    """The effect of one kind of damage: shares of answers, with 95% Wilson intervals.

    Where several seeds reward the same damaged answers, the seeds of one answer do not count as independent cases; see
    `evaluation.mean_interval`, which treats the samples of a prompt the same way.

    The reward at a place is the mean of r_t over its tokens, or the reward of EOS for an empty place. r_t = q_t - gamma v_{t+1}
    includes the value after the token, which may fall together with q_t: `site_log_prob_drops` is the same share for log pi.
    At gamma = 1 the return is v_0 + log pi(y|x): a shorter answer has fewer terms, most of them negative, so that the return of
    an answer that ends early may rise although its mean over tokens falls.

    Args:
        kind: the name of the damage.
        count: the number of damaged answers, in all seeds together; 0 where no answer could be damaged.
        return_drops: the share of answers whose return is lower than the original's; None where there are none.
        return_drops_interval: the interval of this share.
        site_drops: the share of answers whose reward at the place is lower than in the original, among answers with rewards
            at both; None where there are none.
        site_drops_interval: the interval of this share.
        located: the share, among the same answers, where the largest drop of all tokens with a counterpart lies at the place.
            It is 1 where the damage ends the answer, because all tokens before the place are unchanged.
        located_interval: the interval of this share.
        examples: the original, the damaged answer and the place in it, for the largest, the median and the smallest drop of
            the return.
        normalised_return_drops: the share of answers whose mean reward over tokens is lower.
        site_log_prob_drops: the share, among the answers of `site_drops`, whose mean log pi at the place is lower.
        answers: the number of damaged answers, where each counts once, whatever the number of seeds.
        of: the number of answers that could have been damaged; None where it is not known.
        sites: the number of answers of `site_drops`, in all seeds together.
    """

    kind: str
    count: int
    return_drops: float | None
    return_drops_interval: Interval | None
    site_drops: float | None
    site_drops_interval: Interval | None
    located: float | None
    located_interval: Interval | None
    examples: tuple[tuple[ScoredAnswer, ScoredAnswer, Span], ...]
    normalised_return_drops: float | None = None
    site_log_prob_drops: float | None = None
    answers: int = 0
    of: int | None = None
    sites: int = 0


def effects_of_corruptions(
    pairs: Iterable[Pair], kinds: Iterable[str] = (), of: int | None = None, seeds: int = 1
) -> list[CorruptionEffect]:
    """Summarises pairs of answers by the kind of damage.

    Args:
        pairs: the scored original, the scored damaged answer, and the damage; the seeds one after the other.
        kinds: the kinds that come first in the result, in this order; a kind without a pair has a count of 0.
        of: the number of answers that could have been damaged.
        seeds: the number of seeds that scored the same damaged answers.
    """
    by_kind: dict[str, list[Pair]] = {kind: [] for kind in kinds}
    for pair in pairs:
        by_kind.setdefault(pair[2].kind, []).append(pair)
    return [_effect(kind, kind_pairs, of, seeds) for kind, kind_pairs in by_kind.items()]


def _effect(kind: str, pairs: list[Pair], of: int | None, seeds: int) -> CorruptionEffect:
    drops = [original.total - damaged.total for original, damaged, _ in pairs]
    by_token = [original.normalised_return > damaged.normalised_return for original, damaged, _ in pairs]
    sites = [_site(*pair) or (np.nan,) * 3 for pair in pairs]
    fall, fall_interval = _share([drop > 0 for drop in drops], seeds)
    site, site_interval = _share([falls for falls, _, _ in sites], seeds)
    place, place_interval = _share([most for _, most, _ in sites], seeds)
    return CorruptionEffect(
        kind=kind,
        count=len(pairs),
        return_drops=fall,
        return_drops_interval=fall_interval,
        site_drops=site,
        site_drops_interval=site_interval,
        located=place,
        located_interval=place_interval,
        examples=_examples(pairs, drops),
        normalised_return_drops=_share(by_token, seeds)[0],
        site_log_prob_drops=_share([likely for _, _, likely in sites], seeds)[0],
        answers=len(pairs) // seeds,
        of=of,
        sites=int(np.isfinite(np.array(sites, float)[:, 0]).sum()) if sites else 0,
    )


def _share(cases: Sequence[float], seeds: int) -> tuple[float | None, Interval | None]:
    """The share of cases that are true, with its interval over answers; NaN is no case."""
    table = np.array(cases, float).reshape(seeds, -1)
    defined = np.isfinite(table)
    if not defined.any():
        return None, None
    answers = defined.any(axis=0)
    low, high = mean_interval(np.nansum(table, axis=0)[answers] / defined.sum(axis=0)[answers])
    return float(table[defined].mean()), None if low is None or high is None else (low, high)


def _examples(pairs: list[Pair], drops: list[float]) -> tuple[tuple[ScoredAnswer, ScoredAnswer, Span], ...]:
    if not pairs:
        return ()
    order = sorted(range(len(pairs)), key=lambda index: -drops[index])
    places = np.linspace(0, len(order) - 1, EXAMPLES).astype(int).tolist()
    chosen = [order[place] for place in dict.fromkeys(places)]
    return tuple((pairs[i][0], pairs[i][1], pairs[i][2].span) for i in chosen)


def _site(
    original: ScoredAnswer, damaged: ScoredAnswer, corruption: Corruption
) -> tuple[bool, bool, bool] | None:
    """Whether the reward falls at the place, whether it falls most there, and whether log pi falls; None without rewards."""
    before, after = _rewards_at(original, corruption.original_span), _rewards_at(damaged, corruption.span)
    if not before or not after:
        return None
    mean = float(np.mean(list(before.values())))
    expected = list(before.values()) if len(after) == len(before) else [mean] * len(after)
    drops = {t: high - low for (t, low), high in zip(after.items(), expected, strict=True)}
    for t, s in _counterparts(original.tokens, damaged.tokens):
        high, low = original.reward[s], damaged.reward[t]
        if t not in after and high is not None and low is not None:
            drops[t] = high - low
    largest = max(drops, key=drops.__getitem__)
    falls = mean > np.mean(list(after.values()))
    log_prob, damaged_log_prob = (
        np.mean([scored.log_prob[t] for t in place])
        for scored, place in ((original, before), (damaged, after))
    )
    return bool(falls), largest in after and drops[largest] > 0, bool(log_prob > damaged_log_prob)


def _rewards_at(scored: ScoredAnswer, span: Span) -> dict[int, float]:
    """The rewards of the tokens at a place, by the token's number; at an empty place that of EOS, the last token."""
    if span[0] == span[1]:
        tokens = [] if scored.truncated else [len(scored.tokens) - 1]
    else:
        tokens = [
            t for t, (begin, end) in enumerate(scored.offsets) if max(begin, span[0]) < min(end, span[1])
        ]
    return {t: reward for t in tokens if (reward := scored.reward[t]) is not None}


def _counterparts(original: Sequence[int], damaged: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Pairs of a token of the damaged answer and its counterpart in the original: within runs that are equal or equally long."""
    matcher = difflib.SequenceMatcher(None, original, damaged, autojunk=False)
    for _, begin, end, other, other_end in matcher.get_opcodes():
        if end - begin == other_end - other:
            yield from zip(range(other, other_end), range(begin, end), strict=True)
