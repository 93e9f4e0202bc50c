"""A result as a picture: one bar for each row with its interval as a whisker, as SVG. Needs no other package.

A notebook shows the value of ``result.plot()`` by itself. For anything beyond one noisy column, use ``to_pandas``.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from insitu_access.files import write_file
from insitu_privacy.errors import ConfigInvalid

from insitu.output import cell_text

if TYPE_CHECKING:
    from insitu.result import Interval, Result

_ROW, _LABEL, _BAR, _VALUE, _TOP = 24, 180, 400, 180, 28
_LABEL_CHARS = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row."""

    label: str
    value: float
    interval: Interval
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
    """Bars of one numeric column: the one named, or the first noisy one. Other exact columns label the rows."""
    index = _column(result, column)
    labels = [place for place, one in enumerate(result.columns) if not one.noisy and place != index]
    bars = []
    for row, intervals in zip(result.rows, result.intervals, strict=True):
        value = row[index]
        if isinstance(value, (int, float)):
            label = ", ".join(cell_text(row[place], None) for place in labels)
            bars.append(
                Bar(label=label, value=value, interval=intervals[index], text=cell_text(value, intervals[index]))
            )
    return Plot(svg=_svg(result.columns[index].name, bars))


def _column(result: Result, wanted: str | None) -> int:
    numeric = [i for i, one in enumerate(result.columns) if one.type in ("integer", "decimal")]
    known = {result.columns[i].name: i for i in numeric}
    chosen = next((i for i in numeric if result.columns[i].noisy), None) if wanted is None else known.get(wanted)
    if chosen is None:
        hint = f"Numeric columns are: {', '.join(known) or 'none'}."
        raise ConfigInvalid("INSITU-CONFIG-USAGE", reason="there is no such column to plot", hint=hint)
    return chosen


def _svg(title: str, bars: list[Bar]) -> str:
    ends = [end for bar in bars for end in (bar.value, *(bar.interval or ()))]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    span = (high - low) or 1.0
    rows = "".join(_bar(bar, _TOP + place * _ROW, low, span) for place, bar in enumerate(bars))
    width, height = _LABEL + _BAR + _VALUE, _TOP + _ROW * len(bars) + 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><text x="{_LABEL}" y="16" font-weight="bold">{_text(title)}</text>'
        f"{rows}</svg>"
    )


def _bar(bar: Bar, top: int, low: float, span: float) -> str:
    def place(value: float) -> float:
        return _LABEL + _BAR * ((value - low) / span)

    left, right = sorted((place(0), place(bar.value)))
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
