"""Arguments that several commands take, and how their text is read."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated

import typer

from insitu_access.cli import usage

DirectoryArgument = Annotated[
    Path, typer.Argument(metavar="DIR", help="The authority's directory.", show_default=False)
]


def now() -> datetime:
    """The clock, read once by a command; in whole seconds, as signed objects hold it."""
    return datetime.now(UTC).replace(microsecond=0)


def required(value: str | None, option: str, role: str) -> str:
    """The value of an option that one role needs."""
    if value is None:
        raise usage(f"a {role} needs {option}", f"Pass {option}.")
    return value


def moment(text: str, option: str) -> datetime:
    """A date (midnight UTC) or a time with its offset, in ISO 8601."""
    hint = f"Pass {option} 2026-01-31 or {option} 2026-01-31T08:00:00Z."
    try:
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        value = datetime.fromisoformat(text)
    except ValueError as error:
        raise usage(f"{option} is not a date or time in ISO 8601", hint) from error
    if value.tzinfo is None:
        raise usage(f"{option} has no offset from UTC", hint)
    return value.astimezone(UTC)


def days(count: int) -> timedelta:
    """A lifetime in days; typer has checked that it is positive."""
    return timedelta(days=count)
