"""What a damage does to an answer's rewards: how often the return falls, and whether the place of the damage shows."""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from lmirl_jax.rewards.corruptions import Corruption
from lmirl_jax.rewards.scored import Scored
from lmirl_jax.rewards.steps import Span
from lmirl_jax.statistics.proportions import mean_interval

Interval = tuple[float, float]
Pair = tuple[Scored, Scored, Corruption]
EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class CorruptionEffect:
    """What one kind of damage does; shares of answers, with 95% Wilson intervals.

    Where several seeds reward the same damaged answers, an interval counts what the answers differ by, as
    `evaluation.mean_interval` does of a prompt's samples: not every seed for a case of its own.

    The reward at a place is the mean of r_t over its tokens, as `Corruption` says which they are: EOS, for an empty place.
    r_t = q_t - gamma v_{t+1} holds the value after the token too, which may well fall with q_t: `site_log_prob_drops` is
    the same share for log pi alone. At gamma = 1 the return is v_0 + log pi(y|x): an answer with fewer tokens has fewer
    terms, most of them negative, so that the return of one that ends early may rise; by token it may not.

    Args:
        kind: the damage.
        count: answers that were damaged in this way, in all seeds together; 0 where the damage found a place in none.
        return_drops: the share whose return is lower than the original's; None where there are none.
        return_drops_interval: of it.
        site_drops: the share whose reward at the place is lower than at its counterpart in the original, among answers
            with rewards at both; None where there are none.
        site_drops_interval: of it.
        located: among the same answers, the share whose largest drop of the reward, of all tokens with a counterpart,
            lies at the place; always so where the answer ends early, as all before the place is as it was.
        located_interval: of it.
        examples: the original, the damaged answer and the place in it, of those whose return falls most, by the median,
            and least.
        normalised_return_drops: the share whose return by token is lower.
        site_log_prob_drops: the share whose mean log pi at the place is lower, among the answers of `site_drops`.
        answers: that were damaged in this way, each once whatever the number of seeds.
        of: how many answers there were to damage; None where that is not known.
        sites: answers of `site_drops`, in all seeds together.
    """

    kind: str
    count: int
    return_drops: float | None
    return_drops_interval: Interval | None
    site_drops: float | None
    site_drops_interval: Interval | None
    located: float | None
    located_interval: Interval | None
    examples: tuple[tuple[Scored, Scored, Span], ...]
    normalised_return_drops: float | None = None
    site_log_prob_drops: float | None = None
    answers: int = 0
    of: int | None = None
    sites: int = 0


def effects_of_corruptions(
    pairs: Iterable[Pair], kinds: Iterable[str] = (), of: int | None = None, seeds: int = 1
) -> list[CorruptionEffect]:
    """Summarises pairs by kind.

    Args:
        pairs: an answer as scored, the damaged one as scored, and the damage; of several seeds one after the other.
        kinds: that were tried, in this order: one without a pair is told with a count of 0. Others follow as they come.
        of: how many answers there were to damage.
        seeds: how many seeds scored the same damaged answers.
    """
    found: dict[str, list[Pair]] = {kind: [] for kind in kinds}
    for pair in pairs:
        found.setdefault(pair[2].kind, []).append(pair)
    return [_effect(kind, own, of, seeds) for kind, own in found.items()]


def _effect(kind: str, pairs: list[Pair], of: int | None, seeds: int) -> CorruptionEffect:
    drops = [original.total - damaged.total for original, damaged, _ in pairs]
    by_token = [original.normalised_return > damaged.normalised_return for original, damaged, _ in pairs]
    found = [_site(*pair) or (np.nan,) * 3 for pair in pairs]
    fall, fall_interval = _share([drop > 0 for drop in drops], seeds)
    site, site_interval = _share([falls for falls, _, _ in found], seeds)
    place, place_interval = _share([most for _, most, _ in found], seeds)
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
        site_log_prob_drops=_share([likely for _, _, likely in found], seeds)[0],
        answers=len(pairs) // seeds,
        of=of,
        sites=int(np.isfinite(np.array(found, float)[:, 0]).sum()) if found else 0,
    )


def _share(cases: Sequence[float], seeds: int) -> tuple[float | None, Interval | None]:
    """The share of cases that are so, NaN being none, with its interval over answers: each is worth one case or more."""
    table = np.array(cases, float).reshape(seeds, -1)
    known = np.isfinite(table)
    if not known.any():
        return None, None
    answers = known.any(axis=0)
    low, high = mean_interval(np.nansum(table, axis=0)[answers] / known.sum(axis=0)[answers])
    return float(table[known].mean()), None if low is None or high is None else (low, high)


def _examples(pairs: list[Pair], drops: list[float]) -> tuple[tuple[Scored, Scored, Span], ...]:
    if not pairs:
        return ()
    order = sorted(range(len(pairs)), key=lambda index: -drops[index])  # Equal drops keep their order.
    places = np.linspace(0, len(order) - 1, EXAMPLES).astype(int).tolist()
    chosen = [order[place] for place in dict.fromkeys(places)]
    return tuple((pairs[i][0], pairs[i][1], pairs[i][2].span) for i in chosen)


def _site(original: Scored, damaged: Scored, corruption: Corruption) -> tuple[bool, bool, bool] | None:
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


def _rewards_at(scored: Scored, span: Span) -> dict[int, float]:
    """The rewards of the tokens at a place, by the token's number; at an empty place that of EOS, the last token."""
    if span[0] == span[1]:
        tokens = [] if scored.truncated else [len(scored.tokens) - 1]
    else:
        tokens = [
            t for t, (begin, end) in enumerate(scored.offsets) if max(begin, span[0]) < min(end, span[1])
        ]
    return {t: reward for t in tokens if (reward := scored.reward[t]) is not None}


def _counterparts(original: Sequence[int], damaged: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Pairs of a damaged answer's token and the original's that it stands for: equal runs, and others of equal length."""
    matcher = difflib.SequenceMatcher(None, original, damaged, autojunk=False)
    for _, begin, end, other, other_end in matcher.get_opcodes():
        if end - begin == other_end - other:
            yield from zip(range(other, other_end), range(begin, end), strict=True)
