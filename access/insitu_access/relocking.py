"""Several key files changed as one: all of them, or none, wherever it is cut off.

The new files are written beside the old ones, then a marker that lists them, then each takes the place of the old one.
From the marker on the change counts, and whoever reads the keys next finishes it; without one what was written is
discarded. A reader disturbs no change that is under way: the one who makes it holds a lock.

Not here: what the files hold (``keys``).
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from insitu_access import payload
from insitu_access.files import read_file, unreadable, write_file
from insitu_access.payload import Malformed

_MARKER, _ENDING = "relock.json", ".relock"
_PUBLIC = ("signing.pub", "authority.pub")
_PLACES = (".", "former", "next")


def replace_together(root: Path, files: Mapping[Path, bytes]) -> None:
    """Put all files, which are below ``root``, in the place of those that are there. Raises ConfigInvalid."""
    with _holding(root) as held:
        if not held:
            raise unreadable(root, "another command is changing its passphrase")
        _settle(root)
        token = secrets.token_hex(8)
        for path, data in files.items():
            write_file(_part(path, token), data, 0o600)
        names = [path.relative_to(root).as_posix() for path in files]
        write_file(root / _MARKER, payload.write({"token": token, "names": names}), 0o600)
        _settle(root)


def finish(root: Path) -> None:
    """Finish or discard what a command that was cut off has left. Raises ConfigInvalid."""
    if (root / _MARKER).exists():
        _settle(root)
    elif any(_leftovers(root)):
        with _holding(root) as held:
            if held:
                _settle(root)


def _settle(root: Path) -> None:
    marker = root / _MARKER
    try:
        if marker.exists():
            token, names = _listed(marker)
            for name in names:
                with suppress(FileNotFoundError):  # it is in place already
                    _part(root / name, token).replace(root / name)
            marker.unlink(missing_ok=True)
        for left in _leftovers(root):
            left.unlink(missing_ok=True)
    except OSError as error:
        raise unreadable(root, error.strerror or "it cannot be written") from error


def _listed(marker: Path) -> tuple[str, tuple[str, ...]]:
    try:
        with payload.read(read_file(marker)) as fields:
            token, names = fields.text("token"), fields.items("names", _name)
    except Malformed as error:
        raise unreadable(marker, error.reason) from error
    return token, names


def _name(value: object, path: str) -> str:
    if not isinstance(value, str) or str(Path(value).parent) not in _PLACES:
        raise Malformed(f"{path} must be a key file of this directory")
    return value


def _part(path: Path, token: str) -> Path:
    return path.with_name(f".{path.name}.{token}{_ENDING}")


def _leftovers(root: Path) -> Iterator[Path]:
    return (each for place in _PLACES for each in (root / place).glob(f".*{_ENDING}"))


@contextmanager
def _holding(root: Path) -> Iterator[bool]:
    """Whether nobody else changes the files of this directory meanwhile.

    By a public key in it: the authority's commands hold the directory itself already.
    """
    place = next((each for name in _PUBLIC if (each := root / name).exists()), root)
    try:
        descriptor = os.open(place, os.O_RDONLY)
    except OSError as error:
        raise unreadable(root, error.strerror or "it cannot be opened") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        yield False
        return
    try:
        yield True
    finally:
        os.close(descriptor)
