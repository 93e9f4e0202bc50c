"""From spreads to what an answer says of a cell: an interval, or why there is none. A warning names the columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal

from insitu_privacy.percentiles import Spread

Interval = tuple[float, float] | tuple[str, str] | None
"""Numbers; of dates and timestamps ISO 8601 texts."""
Reason = Literal["partial", "rows", "lost", "edge", "kind", "many"]
"""Why a noisy cell has no interval."""
Reach = tuple[float, float] | Reason
"""How far an interval reaches below and above its value; in days of dates, in microseconds of timestamps."""

_TEXTS: Mapping[Reason, str] = {
    "partial": "not every node named the group, and what the others have of it is unknown",
    "rows": "no column without noise tells their rows apart, or noise moves them in and out of the answer",
    "lost": "for all the noise lets know a denominator may be zero, or nothing may be left to make a value of",
    "edge": "the value is at the edge of what noise makes of it",
    "many": "there are too many rows to tell",
    "kind": "they are neither numbers nor dates",
}


def reach(spread: Spread, cell: int) -> Reach:
    """Of one cell."""
    low, high = float(spread.low[cell]), float(spread.high[cell])
    if math.isfinite(low) and math.isfinite(high):
        return low, high
    return "lost" if spread.lost[cell] else "edge"


def interval(found: Reach | None, value: Any) -> Interval:
    """The interval around a value as the database gave it."""
    if value is None or found is None or isinstance(found, str):
        return None
    low, high = found
    if isinstance(value, date):
        return _moved(value, low).isoformat(), _moved(value, high).isoformat()
    if isinstance(value, int) and low.is_integer() and high.is_integer():
        return value + int(low), value + int(high)
    middle = float(value)
    return (middle + low, middle + high) if math.isfinite(middle + low + high) else None


def _moved(value: date, distance: float) -> date:
    """Beyond the calendar's ends, its end."""
    step = timedelta(microseconds=1) if isinstance(value, datetime) else timedelta(days=1)
    try:
        return value + round(distance) * step
    except OverflowError:
        return type(value).max if distance > 0 else type(value).min


def unbounded(
    names: Mapping[int, str],
    rows: Sequence[Sequence[Any]],
    intervals: Sequence[Sequence[Interval]],
    reaches: Sequence[Mapping[int, Reach]],
) -> tuple[str, ...]:
    """For each noisy column, how many of its values have no interval, and why."""
    found = []
    for index, name in names.items():
        values = [place for place, row in enumerate(rows) if row[index] is not None]
        without = [place for place in values if intervals[place][index] is None]
        why = Counter(_why(reaches[place].get(index)) for place in without)
        if why:
            reasons = "; ".join(_TEXTS[reason] for reason, _ in why.most_common())
            found.append(f"{name}: {len(without)} of {len(values)} values have no bounded interval: {reasons}")
    return tuple(found)


def _why(found: Reach | None) -> Reason:
    return found if isinstance(found, str) else "kind" if found is None else "edge"
