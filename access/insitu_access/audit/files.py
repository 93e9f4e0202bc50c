"""The files that a log is in, and copies of it: a directory of days, or one exported file. Reads; decides nothing.

    000000000417-2026-03-01.jsonl      a day: the number of its first entry, and the day it began
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from insitu_access.audit.entry import LINE_LIMIT
from insitu_access.files import unreadable

_BLOCK = 64 * 1024


def day_name(first: int, day: date) -> str:
    """The name of a day's file."""
    return f"{first:012d}-{day.isoformat()}.jsonl"


def day_of(path: Path) -> str:
    """The day a file was begun, in ISO 8601."""
    return path.stem[13:]


def days(directory: Path) -> list[Path]:
    """The files of a log, oldest first."""
    return sorted(path for path in directory.glob("*.jsonl") if path.stem[:12].isdigit())


def lines(path: Path) -> Iterator[bytes]:
    """The lines of a log: of a directory's files in order, or of one file. Raises ConfigInvalid."""
    files = days(path) if path.is_dir() else [path]
    if not files:
        raise unreadable(path, "there is no audit log in it")
    for file in files:
        try:
            with file.open("rb") as stream:
                while line := stream.readline(LINE_LIMIT + 1):
                    yield line
        except OSError as error:
            raise unreadable(file, error.strerror or "it cannot be opened") from error


def whole_lines(path: Path, start: int = 0) -> tuple[list[bytes], int]:
    """The lines from byte ``start``, and how many bytes after the last newline are no line."""
    with path.open("rb") as stream:
        stream.seek(start)
        found = stream.read().splitlines(keepends=True)
    if found and not found[-1].endswith(b"\n"):
        return found[:-1], len(found[-1])
    return found, 0


def first_line(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.readline(LINE_LIMIT + 1)


def last_line(path: Path) -> bytes:
    """The last line, read from the end."""
    with path.open("rb") as stream:
        left = stream.seek(0, os.SEEK_END)
        data = b""
        while left and b"\n" not in data[:-1]:
            step = min(left, _BLOCK)
            left -= step
            stream.seek(left)
            data = stream.read(step) + data
    return data[data.rfind(b"\n", 0, -1) + 1 :]
