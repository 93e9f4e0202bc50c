"""Whether the rows of a result are a series over time, by their keys alone: then they are drawn as lines.

A time is a key of dates, or of whole numbers in steps of one such as years: of these at least eight, since fewer may as
well be codes. One other key may tell series apart. Everything else is bars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from insitu.output import cell_text
from insitu.plot_drawing import Point

if TYPE_CHECKING:
    from insitu.result import Cell, Column

_DATES, _NUMBERS, _SERIES = 3, 8, 8
"""The least number of dates and of whole numbers, and the most series that can be told apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Rows by time. Each line has a point or None for each of ``times``."""

    name: str
    times: tuple[float, ...]
    labels: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Point | None, ...]], ...]

    @property
    def points(self) -> list[Point]:
        """All points that there are."""
        return [one for _, line in self.lines for one in line if one is not None]


def time_series(points: Sequence[Point], keys: Sequence[Column]) -> Series | None:
    """The series that ``points`` with these keys are; None where they are none."""
    if len(keys) > 2:
        return None
    dated = [place for place, key in enumerate(keys) if key.type in ("date", "timestamp")]
    whole = [place for place, key in enumerate(keys) if key.type == "integer"]
    return next((found for time in (*dated, *whole) if (found := _series_over(time, points, keys)) is not None), None)


def _series_over(time: int, points: Sequence[Point], keys: Sequence[Column]) -> Series | None:
    if any(one.keys[time] is None for one in points):
        return None
    dated = keys[time].type != "integer"
    by_time = {_moment(one.keys[time], dated=dated): one.keys[time] for one in points}
    times = tuple(sorted(by_time))
    steady = dated or all(after - before == 1 for before, after in pairwise(times))
    if len(times) < (_DATES if dated else _NUMBERS) or not steady:
        return None
    found: dict[str, dict[float, Point]] = {}
    for one in points:
        name = ", ".join(cell_text(key, None) for place, key in enumerate(one.keys) if place != time)
        if found.setdefault(name, {}).setdefault(_moment(one.keys[time], dated=dated), one) is not one:
            return None  # two rows at one place
    if len(found) > _SERIES:
        return None
    return Series(
        name=keys[time].name,
        times=times,
        labels=tuple(_label(by_time[one]) for one in times),
        lines=tuple((name, tuple(map(line.get, times))) for name, line in found.items()),
    )


def _moment(key: Cell, *, dated: bool) -> float:
    if not dated:
        return float(key or 0)
    moment = datetime.fromisoformat(str(key)).replace(tzinfo=None)
    midnight = datetime.combine(moment.date(), datetime.min.time())
    return date.toordinal(moment) + (moment - midnight).total_seconds() / 86_400


def _label(key: Cell) -> str:
    """Of a timestamp at midnight, the day."""
    return cell_text(key, None).removesuffix("T00:00:00")
