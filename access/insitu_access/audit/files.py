"""The files that a log is in, and copies of it: a directory of days, or one exported file. Reads; decides nothing.

000000000417-2026-03-01.jsonl      a day: the number of its first entry, and the day it began
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    """The lines of a log as it is now: of a directory's files in order, or of one file. Raises ConfigInvalid."""
    for file, size in _snapshot(path):
        left = size
        try:
            with file.open("rb") as stream:
                while left > 0 and (line := stream.readline(min(left, LINE_LIMIT + 1))):
                    left -= len(line)
                    yield line
        except OSError as error:
            raise unreadable(file, error.strerror or "it cannot be opened") from error


def find(path: Path) -> Path:
    """The log that a path means: an export, a directory of days, or a state directory that holds one."""
    for folder in (path / "audit", path / "state" / "audit"):
        if folder.is_dir():
            return folder
    return path


def _snapshot(path: Path) -> list[tuple[Path, int]]:
    """The files and their lengths between two appends: a line that is just being written is left out."""
    try:
        if not path.is_dir():
            return [(path, path.stat().st_size)]
        with _between_appends(path):
            found = [(file, file.stat().st_size) for file in days(path)]
    except OSError as error:
        raise unreadable(path, error.strerror or "it cannot be opened") from error
    if not found:
        raise unreadable(path, "there is no audit log in it")
    return found


@contextmanager
def _between_appends(directory: Path) -> Iterator[None]:
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY)
    except OSError:  # a copy, which nobody writes
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


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
