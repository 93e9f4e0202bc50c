"""A result as a picture: one bar for each row with its interval as a whisker, as SVG. Needs no other package.

Bars of numbers start at zero, those of dates at the earliest of all. A value without a bounded interval has no whisker,
and ``± ?`` stands beside it.

A notebook shows the value of ``result.plot()`` by itself. For anything beyond one noisy column, use ``to_pandas``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from insitu_access.files import write_file
from insitu_privacy.errors import ConfigInvalid

from insitu.output import cell_text

if TYPE_CHECKING:
    from insitu_privacy.dataset import ColumnType

    from insitu.result import Cell, Result

_ROW, _LABEL, _BAR, _VALUE, _TOP = 24, 180, 400, 240, 28
_LABEL_CHARS = 26
_PLOTTED = ("integer", "decimal", "date", "timestamp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row; of dates, value and interval are days."""

    label: str
    value: float
    interval: tuple[float, float] | None
    text: str


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
    """Bars of one column of numbers or dates: the one named, or the first noisy one. Exact columns label the rows."""
    index = _column(result, column)
    shown = result.columns[index]
    labels = [place for place, one in enumerate(result.columns) if not one.noisy and place != index]
    bars = []
    for row, intervals in zip(result.rows, result.intervals, strict=True):
        value, ends = row[index], intervals[index]
        if value is not None:
            bars.append(
                Bar(
                    label=", ".join(cell_text(row[place], None) for place in labels),
                    value=_number(value, shown.type),
                    interval=None if ends is None else (_number(ends[0], shown.type), _number(ends[1], shown.type)),
                    text=cell_text(value, ends, noisy=shown.noisy),
                )
            )
    return Plot(svg=_svg(shown.name, bars, from_zero=shown.type in ("integer", "decimal")))


def _number(value: Cell, kind: ColumnType) -> float:
    if kind in ("date", "timestamp"):
        moment = datetime.fromisoformat(str(value)) if kind == "timestamp" else None
        if moment is None:
            return float(date.fromisoformat(str(value)[:10]).toordinal())
        plain = moment.replace(tzinfo=moment.tzinfo or UTC)
        return (plain - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() / 86_400
    return float(value or 0)


def _column(result: Result, wanted: str | None) -> int:
    places = [i for i, one in enumerate(result.columns) if one.type in _PLOTTED]
    known = {result.columns[i].name: i for i in places}
    chosen = next((i for i in places if result.columns[i].noisy), None) if wanted is None else known.get(wanted)
    if chosen is None:
        hint = f"Columns of numbers and dates are: {', '.join(known) or 'none'}."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason="there is no such column to plot", hint=hint)
    return chosen


def _svg(title: str, bars: list[Bar], *, from_zero: bool) -> str:
    ends = [end for bar in bars for end in (bar.value, *(bar.interval or ()))] + ([0.0] if from_zero else [])
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    span = (high - low) or 1.0
    base = 0.0 if from_zero else low
    rows = "".join(_bar(bar, _TOP + place * _ROW, low, span, base) for place, bar in enumerate(bars))
    width, height = _LABEL + _BAR + _VALUE, _TOP + _ROW * len(bars) + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><text x="{_LABEL}" y="16" font-weight="bold">{_text(title)}</text>'
        f"{rows}</svg>"
    )


def _bar(bar: Bar, top: int, low: float, span: float, base: float) -> str:
    def place(value: float) -> float:
        return _LABEL + _BAR * ((value - low) / span)

    left, right = sorted((place(base), place(bar.value)))
    middle = top + 8
    whisker = ""
    if bar.interval is not None:
        start, end = place(bar.interval[0]), place(bar.interval[1])
        whisker = f'<path d="M{start:.1f} {middle}H{end:.1f}" stroke="#222" stroke-width="2"/>'
    return (
        f'<text x="{_LABEL - 8}" y="{top + 12}" text-anchor="end">{_text(bar.label)}</text>'
        f'<rect x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="16" fill="#7aa6c2"/>{whisker}'
        f'<text x="{_LABEL + _BAR + 8}" y="{top + 12}">{_text(bar.text)}</text>'
    )


def _text(text: str) -> str:
    short = text if len(text) <= _LABEL_CHARS else text[: _LABEL_CHARS - 1] + "…"
    return escape(short)
