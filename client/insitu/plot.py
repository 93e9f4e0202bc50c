"""A result as a picture, as SVG: lines over time where its rows are a series, else one bar for each row.

Needs no other package. Bars of numbers start at zero, those of dates at the earliest of all. A value without a bounded
interval is drawn hollow, with ``± ?`` beside a bar; a suppressed cell is hatched over the whole plot, so that it shows
no value, not even zero; NULL is an empty place.

A notebook shows the value of ``result.plot()`` by itself. For anything beyond one noisy column, use ``to_pandas``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from insitu_access.files import write_file
from insitu_privacy.errors import ConfigInvalid

from insitu.output import cell_text
from insitu.plot_bars import bars
from insitu.plot_drawing import Legend, Point, message
from insitu.plot_lines import lines
from insitu.plot_series import time_series

if TYPE_CHECKING:
    from insitu_privacy.dataset import ColumnType

    from insitu.result import Cell, Result

_PLOTTED = ("integer", "decimal", "date", "timestamp")
_DAYS_TO_1970 = date(1970, 1, 1).toordinal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """The picture; ``svg`` is its text."""

    svg: str

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | Path) -> None:
        """Write the SVG to a file."""
        write_file(Path(path), self.svg.encode())


def plot_result(result: Result, column: str | None = None) -> Plot:
    """One column of numbers or dates: the one named, or the first noisy one. Exact columns are keys or labels."""
    index = _column(result, column)
    shown = result.columns[index]
    keys = [place for place, one in enumerate(result.columns) if not one.noisy and place != index]
    points = [_point(result, place, index, keys) for place in range(len(result.rows))]
    if not points:
        return Plot(svg=message(shown.name, "no rows: there is nothing to draw"))
    dated = shown.type in ("date", "timestamp")
    below = 0 if result.suppression is None else result.suppression.below
    legend = Legend(level=result.level if shown.noisy else None, below=below)
    series = time_series(points, [result.columns[place] for place in keys])
    if series is not None:
        return Plot(svg=lines(shown.name, series, legend, dated=dated))
    return Plot(svg=bars(shown.name, points, legend, dated=dated))


def _point(result: Result, place: int, index: int, keys: list[int]) -> Point:
    row, shown = result.rows[place], result.columns[index]
    value, ends = row[index], result.intervals[place][index]
    hidden = value is None and result.suppression is not None and place in result.suppression.rows
    return Point(
        keys=tuple(row[key] for key in keys),
        label=", ".join(cell_text(row[key], None) for key in keys),
        value=None if value is None else _number(value, shown.type),
        interval=None if ends is None else (_number(ends[0], shown.type), _number(ends[1], shown.type)),
        text="suppressed" if hidden else cell_text(value, ends, noisy=shown.noisy),
        suppressed=hidden,
        uncertain=shown.noisy and value is not None and ends is None,
    )


def _number(value: Cell, kind: ColumnType) -> float:
    """Of dates and timestamps the day, counted as ``date.toordinal`` does."""
    if kind == "date":
        return float(date.fromisoformat(str(value)[:10]).toordinal())
    if kind == "timestamp":
        moment = datetime.fromisoformat(str(value))
        plain = moment.replace(tzinfo=moment.tzinfo or UTC)
        return (plain - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() / 86_400 + _DAYS_TO_1970
    return float(value or 0)


def _column(result: Result, wanted: str | None) -> int:
    places = [i for i, one in enumerate(result.columns) if one.type in _PLOTTED]
    known = {result.columns[i].name: i for i in places}
    chosen = next((i for i in places if result.columns[i].noisy), None) if wanted is None else known.get(wanted)
    if chosen is None:
        hint = f"Columns of numbers and dates are: {', '.join(known) or 'none'}."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason="there is no such column to plot", hint=hint)
    return chosen
