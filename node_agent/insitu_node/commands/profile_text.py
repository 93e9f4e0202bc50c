"""A profile as a table for people: each measure on a line, with what stands clear of the noise drawn small."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, timedelta
from fractions import Fraction

from insitu_privacy.data_profile import Histogram
from insitu_privacy.dataset import Dataset

from insitu_node.profile_site import Account
from insitu_node.profiling import Made, unfinished

_KINDS = {"rows": "rows per unit", "distinct": "distinct values", "sums": "sum per unit", "values": "values"}
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 32
_CLEAR = 3.0
"""Deviations of the noise that a bar stands above it to be drawn."""
_SAID = {
    "kept": "It was made before: nothing was charged now, whatever --epsilon says. --refresh charges another.",
    "made": "It was charged now, before data was read.",
    "finished": "A run that was cut off was finished, at the cost it had been charged then: nothing was charged now.",
}


def show(made: Made, account: Account, dataset: Dataset) -> None:
    """Prints it."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    one = made.profile
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    console.print(
        f"Profile of {one.profile.dataset} at {one.node}: number {one.serial}, made {one.issued_at:%Y-%m-%d %H:%M} UTC,"
        f" ε = {_g(one.epsilon)}. It is public."
    )
    console.print(_SAID[made.how])
    if made.how == "kept" and unfinished(account.charges, one.serial) is not None:
        console.print("Another was begun, and is paid for: --refresh finishes it, and charges nothing.")
    of = "none is set" if account.budget is None else f"of {_g(account.budget)} in node.toml"
    console.print(f"Profiles of this dataset have cost each person ε = {_g(account.spent)} in all, {of}.\n")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("table", "measure", "column", "bins", "noise ±", "clear of noise", "from", "to"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("bins", "noise ±", "from", "to") else "left")
    for each in one.profile.histograms:
        table.add_row(*_row(each, dataset))
    console.print(table)


def _row(one: Histogram, dataset: Dataset) -> list[str]:
    measure = one.measure
    clear = [place for place, count in enumerate(one.counts) if count > _CLEAR * one.deviation]
    kind = dataset.tables[measure.table].columns[measure.column].type if measure.column else "integer"
    dated = measure.kind == "values" and kind in ("date", "timestamp")
    first = _edge(one, clear[0] - 1, dated=dated) if clear else "-"
    last = _edge(one, clear[-1], dated=dated) if clear else "-"
    name = measure.column or ""
    return [measure.table, _KINDS[measure.kind], name, str(measure.bins), _g(one.deviation), drawn(one), first, last]


def drawn(one: Histogram) -> str:
    """Bars for bins, several bins in each where there are many; a dot where nothing stands clear of the noise."""
    each = -(-len(one.counts) // _WIDTH)
    groups = [one.counts[start : start + each] for start in range(0, len(one.counts), each)]
    noise = _CLEAR * one.deviation * each**0.5
    return "".join(_bar(sum(group), noise, max(map(sum, groups))) for group in groups)


def _bar(count: float, noise: float, most: float) -> str:
    return "·" if count <= noise else _BARS[min(len(_BARS) - 1, int(count / most * len(_BARS)))]


def _edge(one: Histogram, place: int, *, dated: bool) -> str:
    """Where a bin begins; nothing below the first edge or after the last."""
    edges: Sequence[Fraction] = one.measure.edges
    if not 0 <= place < len(edges):
        return ""
    return str(date(1970, 1, 1) + timedelta(days=int(edges[place]))) if dated else _g(edges[place])


def _g(value: Fraction | float) -> str:
    return f"{float(value):.4g}"
