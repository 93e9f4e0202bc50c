"""Calendar arithmetic as both engines do it."""

from __future__ import annotations

from calendar import monthrange
from datetime import MAXYEAR, MINYEAR, date, datetime, timedelta


def add_months(day: date, months: int) -> date | None:
    """The same day of another month, or its last day where it has no such; None outside the calendar."""
    place = day.year * 12 + day.month - 1 + months
    year, month = divmod(place, 12)
    if not MINYEAR <= year <= MAXYEAR:
        return None
    return date(year, month + 1, min(day.day, monthrange(year, month + 1)[1]))


SECONDS = 366 * 86_400 * 10_000
"""More seconds than the calendar has."""
ORIGIN = datetime(1, 1, 1)  # noqa: DTZ001  # moments have no zone here
_SECOND = timedelta(seconds=1)


def midnight(day: date) -> datetime:
    """The moment a day begins; a moment is its own."""
    return day if isinstance(day, datetime) else datetime(day.year, day.month, day.day)  # noqa: DTZ001


def day_of(moment: date) -> date:
    """The day of a moment; a day is its own."""
    return moment.date() if isinstance(moment, datetime) else moment


def seconds_of(moment: date) -> int:
    """Whole seconds since the calendar's first: a Monday, so that days and weeks are multiples."""
    return (midnight(moment) - ORIGIN) // _SECOND


def microseconds(moment: date) -> int:
    """Since 1970."""
    return (midnight(moment) - datetime(1970, 1, 1)) // timedelta(microseconds=1)  # noqa: DTZ001


def add_days(day: date, days: int) -> date | None:
    """So many days later; None outside the calendar."""
    try:
        return day + timedelta(days=days)
    except OverflowError:
        return None


def add_seconds(moment: datetime, seconds: int) -> datetime | None:
    """So many seconds later; None outside the calendar."""
    return moment + timedelta(seconds=seconds) if 0 <= seconds_of(moment) + seconds <= seconds_of(_LAST) else None


_LAST = datetime(9999, 12, 31, 23, 59, 59)  # noqa: DTZ001


def make_date(year: int, month: int, day: int) -> date | None:
    """A day by its numbers; None where there is no such."""
    try:
        return date(year, month, day)
    except (ValueError, OverflowError):
        return None


def first_of_quarter(day: date) -> date:
    """The first day of a day's quarter."""
    return date(day.year, (day.month - 1) // 3 * 3 + 1, 1)


def monday_of(moment: date) -> date:
    """The Monday of a day's week."""
    day = day_of(moment)
    return day - timedelta(days=day.weekday())
