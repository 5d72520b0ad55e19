"""The tables of `lmirl compile`: one column for each program, one row for each number."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmirl_jax.compilation import DoesNotFit, Summary

Result = Summary | DoesNotFit

CONVENTION = (
    "Model FLOPs: 6 x parameters of matrix products x tokens that they are applied to, and 12 x queries x keys x width for "
    "attention (causal masks take nothing off); lookups, norms and recomputation do not count."
)
ROOFLINE = "Step time: the slowest of compute, memory and links at their peak, the others behind it; a real step takes longer."


def lines(results: Mapping[str, Result]) -> list[str]:
    """The tables of several programs, by their names."""
    rows = [("", *results)]
    rows += [(label, *(_cell(result, cell) for result in results.values())) for label, cell in _ROWS]
    fitting = {name: result for name, result in results.items() if isinstance(result, Summary)}
    keys = dict.fromkeys(
        (each.operation, each.axes) for result in fitting.values() for each in result.traffic
    )
    rows.append(("sent to other chips:", *("" for _ in results)))
    for operation, axes in keys:
        cells = (_traffic(result, operation, axes) for result in results.values())
        rows.append((f"  {operation} over {' x '.join(axes) or 'other groups'}", *cells))
    found = _align(rows)
    for name, result in results.items():
        if isinstance(result, DoesNotFit):
            found.append(f"{name} does not fit: {result.reason}")
        elif result.turns:
            found.append(
                f"{name}: loops whose length depends on data are counted with {result.turns} turns, the most"
            )
    return [*found, CONVENTION, ROOFLINE]


def as_json(result: Result) -> dict[str, Any]:
    """All numbers of a program, for JSON."""
    if isinstance(result, DoesNotFit):
        return {"fits": False, **dataclasses.asdict(result)}
    memory = dataclasses.asdict(result.memory)
    memory |= {"peak": result.memory.peak, "share": round(result.memory.share, 4)}
    derived = ("bound_by", "step_seconds", "mfu_bound", "waste")
    return {
        "fits": result.memory.fits,
        **dataclasses.asdict(result),
        "memory": memory,
        **{name: getattr(result, name) for name in derived},
    }


def _bytes(count: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.2f} {unit}"
    return f"{count:.0f} B"


def _ratio(value: float | None, form: str) -> str:
    return "unknown" if value is None else format(value, form)


def _logits(result: Summary) -> str:
    return {None: "", True: "yes", False: "no"}[result.holds_logits]


_ROWS: Sequence[tuple[str, Callable[[Summary], str]]] = (
    ("memory of a chip: arguments", lambda x: _bytes(x.memory.arguments)),
    ("  outputs in memory of their own", lambda x: _bytes(x.memory.outputs - x.memory.aliased)),
    ("  temporaries", lambda x: _bytes(x.memory.temporaries)),
    ("  peak", lambda x: _bytes(x.memory.peak)),
    ("  share of HBM", lambda x: f"{x.memory.share:.1%}"),
    ("  fits", lambda x: "yes" if x.memory.fits else "no"),
    ("  largest array", lambda x: x.largest_array),
    ("  logits of all tokens at once", _logits),
    ("TFLOPs of a chip, compiled", lambda x: f"{x.flops / 1e12:,.4g}"),
    ("  of these computed again", lambda x: f"{x.recomputed_flops / 1e12:,.4g}"),
    ("  model FLOPs", lambda x: _ratio(x.model_flops and x.model_flops / 1e12, ",.4g")),
    ("  compiled / model, without what is computed again", lambda x: _ratio(x.waste, ".3f")),
    ("bytes between HBM and core", lambda x: _bytes(x.hbm_bytes)),
    ("least time: compute", lambda x: f"{1e3 * x.seconds['compute']:,.4g} ms"),
    ("  HBM", lambda x: f"{1e3 * x.seconds['hbm']:,.4g} ms"),
    ("  links between chips", lambda x: f"{1e3 * x.seconds['ici']:,.4g} ms"),
    ("  network between slices", lambda x: f"{1e3 * x.seconds['dcn']:,.4g} ms" if "dcn" in x.seconds else ""),
    ("step time at the roofline", lambda x: f"{1e3 * x.step_seconds:,.4g} ms, by {x.bound_by}"),
    ("bound on MFU", lambda x: _ratio(x.mfu_bound, ".1%")),
    ("compilation", lambda x: f"{x.compile_seconds:.0f} s"),
)


def _cell(result: Result, cell: Callable[[Summary], str]) -> str:
    return cell(result) if isinstance(result, Summary) else "-"


def _traffic(result: Result, operation: str, axes: tuple[str, ...]) -> str:
    if not isinstance(result, Summary):
        return "-"
    found = [each for each in result.traffic if (each.operation, each.axes) == (operation, axes)]
    return f"{found[0].count} x, {_bytes(found[0].bytes)}" if found else ""


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]
        ).rstrip()
        for row in rows
    ]
