"""Series over time as lines, with intervals as bands; a lone point has a whisker.

A line is broken where a row is missing, NULL or suppressed. Points without a bounded interval are hollow, and what
leads to them is dashed. Where a point is suppressed, its time is hatched over the whole height.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from insitu.plot_drawing import DASHED, GRID, HATCHED, LEGEND_ROW, Legend, Point, Scale, picture, scale_of, text, words
from insitu.plot_series import Series

_LEFT, _TOP, _WIDTH, _HEIGHT, _NAMES, _AXIS = 90, 32, 560, 260, 180, 44
_COLOURS = ("#2f6f9f", "#c0562b", "#3b8554", "#7a5aa6", "#a8871f", "#b0447f", "#5d6570", "#1f8f8f")
_TIME_TICKS, _TITLE_CHARS = 6, 120
Placed = tuple[float, Point]


def lines(title: str, series: Series, legend: Legend, *, dated: bool) -> str:
    """The picture: a line for each series over both axes, its names, and what the marks mean."""
    points, bottom = series.points, _TOP + _HEIGHT
    up = _upwards(points, dated=dated)
    across = Scale(low=series.times[0], high=series.times[-1], start=_LEFT + 8, end=_LEFT + _WIDTH - 8)
    drawn = "".join(
        _line([across(time) for time in series.times], line, up, _COLOURS[place])
        for place, (_, line) in enumerate(series.lines)
    )
    height = bottom + _AXIS + LEGEND_ROW * len(legend.lines(points)) + 4
    axes = f"{_axis_up(up, dated=dated)}{_axis_across(series, across, bottom)}"
    content = f"{axes}{_hatches(series, across)}{drawn}{_names(series)}{legend.svg(points, _LEFT, bottom + _AXIS)}"
    return picture(title, _LEFT + _WIDTH + _NAMES, height, _LEFT, content)


def _upwards(points: Sequence[Point], *, dated: bool) -> Scale:
    """From zero unless all values are far from it: then what changes could not be seen."""
    plain = scale_of(points, _TOP + _HEIGHT, _TOP, from_zero=False)
    near = not dated and plain.low > 0 and plain.low < plain.high / 2
    return scale_of(points, _TOP + _HEIGHT, _TOP, from_zero=near)


def _axis_up(up: Scale, *, dated: bool) -> str:
    return "".join(
        f'<path d="M{_LEFT} {up(value):.1f}h{_WIDTH}" stroke="{GRID}"/>'
        f"{text(said, _LEFT - 6, up(value) + 4, anchor='end', limit=16)}"
        for value, said in up.ticks(dated=dated)
    )


def _axis_across(series: Series, across: Scale, bottom: float) -> str:
    every = -(-len(series.times) // _TIME_TICKS)
    ticks = "".join(
        f'<path d="M{across(time):.1f} {bottom}v4" stroke="#222"/>'
        f"{text(label, across(time), bottom + 16, anchor='middle', limit=16)}"
        for time, label in list(zip(series.times, series.labels, strict=True))[::every]
    )
    name = text(series.name, _LEFT + _WIDTH / 2, bottom + 34, anchor="middle")
    return f'<path d="M{_LEFT} {bottom}h{_WIDTH}" stroke="#222"/>{ticks}{name}'


def _names(series: Series) -> str:
    if len(series.lines) == 1:
        return ""
    left = _LEFT + _WIDTH + 12
    return "".join(
        f'<path d="M{left} {_TOP + 8 + place * 18}h16" stroke="{_COLOURS[place]}" stroke-width="2"/>'
        f"{text(name, left + 22, _TOP + 12 + place * 18, limit=22)}"
        for place, (name, _) in enumerate(series.lines)
    )


def _hatches(series: Series, across: Scale) -> str:
    """One for each time at which some series is suppressed, parted among them: each has its own strip."""
    width = max(3.0, min(14.0, _WIDTH / len(series.times) * 0.7))
    each = width / len(series.lines)
    return "".join(
        f'<rect class="suppressed" x="{across(time) - width / 2 + place * each:.1f}" y="{_TOP}" width="{each:.1f}" '
        f'height="{_HEIGHT}" {HATCHED}/><path d="M{across(time) - width / 2 + place * each:.1f} {_TOP + _HEIGHT}'
        f'h{each:.1f}" stroke="{_COLOURS[place]}" stroke-width="3"/>'
        for place, (_, line) in enumerate(series.lines)
        for time, one in zip(series.times, line, strict=True)
        if one is not None and one.suppressed
    )


def _line(across: Sequence[float], line: Sequence[Point | None], up: Scale, colour: str) -> str:
    found = []
    for run in _runs(across, line):
        found += [_band(part, up, colour) for part in _certain(run)]
        found += [_segment(before, after, up, colour) for before, after in pairwise(run)]
        found += [_marker(x, one, up, colour) for x, one in run]
    return "".join(found)


def _runs(across: Sequence[float], line: Sequence[Point | None]) -> Iterator[list[Placed]]:
    """Points next to one another that have a value."""
    run: list[Placed] = []
    for x, one in zip(across, line, strict=True):
        if one is not None and one.value is not None:
            run.append((x, one))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _certain(run: Sequence[Placed]) -> Iterator[list[tuple[float, float, float]]]:
    """The intervals of points next to one another that have one: where, and both ends."""
    part: list[tuple[float, float, float]] = []
    for x, one in run:
        if one.interval is not None:
            part.append((x, *one.interval))
        elif part:
            yield part
            part = []
    if part:
        yield part


def _band(part: Sequence[tuple[float, float, float]], up: Scale, colour: str) -> str:
    if len(part) == 1:
        ((x, low, high),) = part
        ends = "".join(f"M{x - 4:.1f} {up(end):.1f}h8" for end in (low, high))
        return f'<path class="interval" d="M{x:.1f} {up(low):.1f}V{up(high):.1f}{ends}" stroke="{colour}"/>'
    edge = [(x, high) for x, _, high in part] + [(x, low) for x, low, _ in reversed(part)]
    corners = " ".join(f"{x:.1f},{up(end):.1f}" for x, end in edge)
    return f'<polygon class="interval" points="{corners}" fill="{colour}" fill-opacity="0.2"/>'


def _segment(before: Placed, after: Placed, up: Scale, colour: str) -> str:
    (x1, first), (x2, last) = before, after
    dash = f" {DASHED}" if first.uncertain or last.uncertain else ""
    path = f"M{x1:.1f} {up(first.value or 0):.1f}L{x2:.1f} {up(last.value or 0):.1f}"
    return f'<path class="line" d="{path}" stroke="{colour}" stroke-width="1.5" fill="none"{dash}/>'


def _marker(x: float, one: Point, up: Scale, colour: str) -> str:
    """With its text, which is shown where one points at it."""
    fill, kind = ("#fff", "uncertain") if one.uncertain else (colour, "value")
    place = f'cx="{x:.1f}" cy="{up(one.value or 0):.1f}"'
    said = f"<title>{words(f'{one.label}: {one.text}', _TITLE_CHARS)}</title>"
    return f'<circle class="{kind}" {place} r="3" fill="{fill}" stroke="{colour}">{said}</circle>'
