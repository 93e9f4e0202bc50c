"""Calendar arithmetic as both engines do it."""

from __future__ import annotations

from calendar import monthrange
from datetime import MAXYEAR, MINYEAR, date


def add_months(day: date, months: int) -> date | None:
    """The same day of another month, or its last day where it has no such; None outside the calendar."""
    place = day.year * 12 + day.month - 1 + months
    year, month = divmod(place, 12)
    if not MINYEAR <= year <= MAXYEAR:
        return None
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))
