"""The reward of every token as an HTML heat map."""

import dataclasses
import html
import math
from collections.abc import Collection, Sequence
from typing import Any

from lmirl_jax.types import UserError

# Blue above 0 and orange below 0 differ under every common colour blindness. The text stays readable on the full colour.
STYLE = """
:root { --positive: 84, 152, 228; --negative: 236, 137, 52; }
@media (prefers-color-scheme: dark) { :root { --positive: 38, 103, 186; --negative: 160, 79, 17; } }
.heat { margin: .5rem 0 1.75rem; max-width: 46rem; }
.heat + .caption { margin: -1.25rem 0 1.75rem; }
.heat-row { margin: .75rem 0 0; }
.heat-label { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; color: var(--muted);
  font-size: .85rem; }
.heat-label b { color: var(--ink); font-weight: 600; }
.heat-tokens { margin: .2rem 0 0; line-height: 1.75; font-family: var(--mono); font-size: .95rem; }
.heat-tokens span { display: inline-block; max-width: 100%; min-width: .62em; margin: 0 1px 1px 0; padding: 0 .12em;
  border-radius: 2px; text-align: center; white-space: pre-wrap; overflow-wrap: anywhere;
  box-shadow: inset 0 0 0 1px var(--hairline); }
.heat-tokens .space { color: var(--muted); }
.heat-tokens .marked { box-shadow: inset 0 0 0 2px var(--ink); }
.heat-tokens span:focus { outline: 2px solid var(--accent); outline-offset: 1px; }
.heat-tokens span:focus::after { content: attr(title); position: fixed; z-index: 1; left: 50%; bottom: 1rem;
  transform: translateX(-50%); padding: .45rem .9rem; border-radius: 6px; background: var(--ink); color: var(--card);
  font: 500 .95rem/1.3 var(--sans); font-variant-numeric: tabular-nums; white-space: nowrap; }
.heat-tokens .none { box-shadow: none; border-bottom: 2px dotted var(--muted); border-radius: 0; }
.heat-legend { display: flex; align-items: center; gap: .5rem; flex-wrap: wrap; margin-top: .9rem; color: var(--muted);
  font-size: .8rem; font-variant-numeric: tabular-nums; }
.heat-bar { flex: 0 1 9rem; height: .7rem; border-radius: 2px; box-shadow: inset 0 0 0 1px var(--hairline);
  background: linear-gradient(90deg, rgb(var(--negative)), rgba(var(--negative), 0) 50%, rgba(var(--positive), 0) 50%,
  rgb(var(--positive))); }
.heat details { margin-top: .5rem; font-size: .8rem; color: var(--muted); }
.heat summary { cursor: pointer; }
.heat-values { display: flex; flex-wrap: wrap; gap: .15rem .8rem; margin: .4rem 0 .6rem; font-variant-numeric: tabular-nums; }
.heat-values code { color: var(--ink); white-space: pre-wrap; overflow-wrap: anywhere; }
"""


@dataclasses.dataclass(frozen=True)
class Row:
    """An answer with a label.

    Args:
        label: the text above the answer.
        tokens: the texts of the tokens.
        rewards: the reward of each token, in nats; None where a token has none.
        note: the text above the answer at the right, in place of the sum of the rewards.
        marked: the numbers of the tokens that are framed.
    """

    label: str
    tokens: Sequence[str]
    rewards: Sequence[float | int | None]
    note: str = ""
    marked: Collection[int] = ()


def heat_map(rows: Sequence[Row], *, unit: str = "nats") -> str:
    """Rows of coloured tokens on one diverging scale centred at 0, as an HTML fragment that needs `STYLE`.

    The reward of each token is in its tooltip, at the foot of the screen while the token has the focus, and in a list that
    opens. All texts are escaped.

    Args:
        rows: the answers; they share the scale.
        unit: the unit of the rewards.

    Returns:
        A `div`.

    Raises:
        UserError: no rows, rewards and tokens that differ in number, or a reward that is not finite.
    """
    if not rows:
        raise UserError("heat map: there are no rows; give one answer or more")
    for row in rows:
        _check(row)
    scale, saturated = _scale(rows)
    body = "".join(_row(row, scale, unit) for row in rows)
    values = "".join(f"<div><b>{html.escape(row.label)}</b>{_values(row)}</div>" for row in rows)
    return (
        f'<div class="heat">{body}{_legend(rows, scale, saturated, unit)}'
        f"<details><summary>Values ({html.escape(unit)})</summary>{values}</details></div>"
    )


def _check(row: Row) -> None:
    if len(row.tokens) != len(row.rewards):
        raise UserError(
            f"heat map: row {row.label!r} has {len(row.tokens)} tokens and {len(row.rewards)} rewards; give one for each"
        )
    for i, reward in enumerate(row.rewards):
        if reward is not None and not math.isfinite(reward):
            raise UserError(
                f"heat map: row {row.label!r}, token {i} has reward {reward}; use None where there is none"
            )


def _defined_rewards(rows: Sequence[Row]) -> list[float]:
    return [float(reward) for row in rows for reward in row.rewards if reward is not None]


def _scale(rows: Sequence[Row]) -> tuple[float, bool]:
    """The magnitude that gets the full colour, and whether any token exceeds it, so that outliers do not pale all others."""
    sizes = sorted(map(abs, _defined_rewards(rows)))
    if not sizes or sizes[-1] == 0:
        return 1.0, False
    usual = 3 * sizes[math.floor(0.9 * (len(sizes) - 1))]
    return (usual, True) if 0 < usual < sizes[-1] else (sizes[-1], False)


def _visible(token: str) -> str:
    """The token with white space made visible, where it has nothing else."""
    if token == "" or token.isspace():
        return token.replace(" ", "␣").replace("\t", "⇥").replace("\n", "↵") or "∅"
    return token


def _row(row: Row, scale: float, unit: str) -> str:
    spans = "".join(
        _span(token, reward, scale, unit, i in row.marked)
        for i, (token, reward) in enumerate(zip(row.tokens, row.rewards, strict=True))
    )
    total = (
        f"sum {_with_sign(sum(_defined_rewards([row])))} {html.escape(unit)}"
        if _defined_rewards([row])
        else ""
    )
    total = html.escape(row.note) or total
    return (
        f'<div class="heat-row"><div class="heat-label"><b>{html.escape(row.label)}</b><span>{total}</span></div>'
        f'<p class="heat-tokens">{spans}</p></div>'
    )


def _span(token: str, reward: Any, scale: float, unit: str, marked: bool) -> str:
    names = ["space"] * (not token.strip()) + ["none"] * (reward is None) + ["marked"] * marked
    kind = f' class="{" ".join(names)}"' if names else ""
    if reward is None:
        colour, title = "", "no reward"
    else:
        side, strength = ("positive" if reward >= 0 else "negative"), min(abs(reward) / scale, 1.0)
        colour = f' style="background:rgba(var(--{side}),{strength:.3f})"'
        title = f"{_with_sign(reward)} {html.escape(unit)}"
    # A tap can focus a token; the tabulator key cannot, because it would have to pass every token of the page.
    return f'<span{kind}{colour} title="{title}" tabindex="-1">{html.escape(_visible(token))}</span>'


def _legend(rows: Sequence[Row], scale: float, saturated: bool, unit: str) -> str:
    bounds = ("≤ ", "≥ ") if saturated else ("", "")
    missing = any(reward is None for row in rows for reward in row.rewards)
    note = "; dotted: no reward" if missing else ""
    note += "; framed: what was changed" if any(row.marked for row in rows) else ""
    return (
        f'<div class="heat-legend"><span>{bounds[0]}{_with_sign(-scale)}</span><span class="heat-bar"></span>'
        f"<span>{bounds[1]}{_with_sign(scale)}</span>"
        f"<span>{html.escape(unit)} a token; 0 is colourless{note}</span></div>"
    )


def _values(row: Row) -> str:
    items = "".join(
        f"<span><code>{html.escape(_visible(token))}</code> {'–' if reward is None else _with_sign(reward)}</span>"
        for token, reward in zip(row.tokens, row.rewards, strict=True)
    )
    return f'<div class="heat-values">{items}</div>'


def _with_sign(value: Any) -> str:
    """A number with its sign, with few decimals and a true minus."""
    digits = 2 if abs(value) >= 0.095 or value == 0 else 4
    return f"{value:+.{digits}f}".replace("-", "−")
