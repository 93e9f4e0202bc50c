"""One bar for each row, with its interval as a whisker."""

from __future__ import annotations

from collections.abc import Sequence

from insitu.plot_drawing import DASHED, GRID, HATCHED, LEGEND_ROW, Legend, Point, Scale, picture, scale_of, text

_ROW, _LABEL, _BAR, _VALUE, _TOP, _AXIS = 24, 180, 400, 240, 28, 26
_FILL = "#7aa6c2"


def bars(title: str, points: Sequence[Point], legend: Legend, *, dated: bool) -> str:
    """The picture: bars under one another, an axis under them, and what the marks mean."""
    place = scale_of(points, _LABEL, _LABEL + _BAR, from_zero=not dated)
    bottom = _TOP + _ROW * len(points)
    base = place.low if dated else 0.0
    rows = "".join(_row(one, _TOP + place_in * _ROW, place, base) for place_in, one in enumerate(points))
    told = legend.svg(points, _LABEL, bottom + _AXIS)
    height = bottom + _AXIS + LEGEND_ROW * len(legend.lines(points)) + 4
    content = f"{_axis(place, bottom, dated=dated)}{rows}{told}"
    return picture(title, _LABEL + _BAR + _VALUE, height, _LABEL, content)


def _axis(place: Scale, bottom: float, *, dated: bool) -> str:
    ticks = [
        f'<path d="M{place(value):.1f} {_TOP - 4}V{bottom}" stroke="{GRID}"/>'
        f"{text(said, place(value), bottom + 14, anchor='middle')}"
        for value, said in place.ticks(dated=dated)
    ]
    return f'<path d="M{_LABEL} {bottom}H{_LABEL + _BAR}" stroke="#222"/>{"".join(ticks)}'


def _row(one: Point, top: float, place: Scale, base: float) -> str:
    label = text(one.label, _LABEL - 8, top + 12, anchor="end")
    return f"{label}{_mark(one, top, place, base)}{text(one.text, _LABEL + _BAR + 8, top + 12)}"


def _mark(one: Point, top: float, place: Scale, base: float) -> str:
    """A bar with its whisker; hatched over the whole plot where it is suppressed, which no value is."""
    if one.suppressed:
        return f'<rect class="suppressed" x="{_LABEL}" y="{top}" width="{_BAR}" height="16" {HATCHED}/>'
    if one.value is None:
        return ""
    left, right = sorted((place(base), place(one.value)))
    look = f'fill="#fff" stroke="{_FILL}" {DASHED}' if one.uncertain else f'fill="{_FILL}"'
    kind = "uncertain" if one.uncertain else "value"
    bar = f'<rect class="{kind}" x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="16" {look}/>'
    return bar + _whisker(one, top + 8, place)


def _whisker(one: Point, middle: float, place: Scale) -> str:
    if one.interval is None:
        return ""
    start, end = place(one.interval[0]), place(one.interval[1])
    ends = "".join(f"M{x:.1f} {middle - 4:.0f}v8" for x in (start, end))
    return f'<path class="interval" d="M{start:.1f} {middle:.0f}H{end:.1f}{ends}" stroke="#222" stroke-width="2"/>'
