"""What the pictures of a result share: points, scales with round ticks, texts, and the legend, all as SVG text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from html import escape
from typing import TYPE_CHECKING

from insitu.output import one_line

if TYPE_CHECKING:
    from insitu.result import Cell

HATCH = (
    '<defs><pattern id="insitu-hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><path d="M0 0V6" stroke="#999" stroke-width="2"/></pattern></defs>'
)
HATCHED = 'fill="url(#insitu-hatch)"'
DASHED = 'stroke-dasharray="4 3"'
GRID = "#ddd"
LEGEND_ROW = 18
_LABEL_CHARS, _TITLE_CHARS = 26, 60
_TICKS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One row; of dates, value and interval are days."""

    keys: tuple[Cell, ...]
    label: str
    value: float | None
    interval: tuple[float, float] | None
    text: str
    suppressed: bool = False
    uncertain: bool = False
    """It has noise and no bounded interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """What the marks of a picture mean; only those that it has are told."""

    level: float | None
    """Of the intervals; None for an exact column."""
    below: int
    """Where cells are suppressed."""

    def lines(self, points: Sequence[Point]) -> list[tuple[str, str]]:
        """A mark of 16 by 10 and its meaning, for each kind of mark."""
        found = []
        if self.level is not None and any(one.interval is not None for one in points):
            mark = '<path d="M0 5H16M0 1V9M16 1V9" stroke="#222" stroke-width="2"/>'
            found.append((mark, f"{self.level:.0%} interval over the noise of all nodes"))
        if any(one.uncertain for one in points):
            mark = f'<rect width="16" height="10" fill="none" stroke="#7aa6c2" {DASHED}/>'
            found.append((mark, "± ?: noise without a bounded interval"))
        if any(one.suppressed for one in points):
            mark = f'<rect width="16" height="10" {HATCHED}/>'
            found.append((mark, f"suppressed: below {self.below} by the noisy count"))
        return found

    def svg(self, points: Sequence[Point], left: float, top: float) -> str:
        """The legend, a line for each kind of mark."""
        return "".join(
            f'<g transform="translate({left:.0f} {top + LEGEND_ROW * place:.0f})">{mark}</g>'
            f"{text(said, left + 24, top + LEGEND_ROW * place + 10, limit=80)}"
            for place, (mark, said) in enumerate(self.lines(points))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """From values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Halves are compared, so that no difference of finite numbers is infinite."""
        share = (value / 2 - self.low / 2) / ((self.high / 2 - self.low / 2) or 1.0)
        return self.start + (self.end - self.start) * share

    def ticks(self, *, dated: bool) -> list[tuple[float, str]]:
        """A few round values inside, with their labels."""
        step = _round_step((self.high / 2 - self.low / 2) / _TICKS * 2)
        if dated:
            step = max(1.0, round(step))
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        values = [place * step for place in range(first, last + 1)] if last - first <= 3 * _TICKS else []
        values = [value for value in values if self.low <= value <= self.high]  # of large ones the last digits are gone
        return [(value, _day(value) if dated else _tick_text(value, step)) for value in values or [self.low]]


def scale_of(points: Iterable[Point], start: float, end: float, *, from_zero: bool) -> Scale:
    """A scale that holds all values and intervals."""
    ends = [end for one in points for end in (one.value, *(one.interval or ())) if end is not None]
    ends = [end for end in ends if math.isfinite(end)] + ([0.0] if from_zero else [])
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    return Scale(low=low, high=high if high > low else low + 1.0, start=start, end=end)


def _round_step(least: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    if not math.isfinite(least) or least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next((power * times for times in (1, 2, 5) if power * times >= least), power * 10) or least


def _tick_text(value: float, step: float) -> str:
    if abs(value) >= 1e12 or step < 1e-6:
        return f"{value:.3g}"
    return f"{value:,.{max(0, -math.floor(math.log10(step)))}f}"


def _day(value: float) -> str:
    place = min(max(1, round(value)), date.max.toordinal())
    return date.fromordinal(place).isoformat()


def words(said: str, limit: int) -> str:
    """Any text, on one line, shortened, and safe inside an element."""
    short = one_line(said)
    return escape(short if len(short) <= limit else short[: limit - 1] + "…")


def text(said: str, x: float, y: float, *, anchor: str = "start", limit: int = _LABEL_CHARS) -> str:
    """A text that starts, ends or has its middle at a place."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words(said, limit)}</text>'


def picture(title: str, width: float, height: float, left: float, content: str) -> str:
    """A whole SVG document."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="12">{HATCH}'
        f'<text x="{left:.1f}" y="16" font-weight="bold">{words(title, _TITLE_CHARS)}</text>{content}</svg>'
    )


def message(title: str, said: str) -> str:
    """A picture of words alone."""
    return picture(title, 420, 52, 8, text(said, 8, 38, limit=80))
