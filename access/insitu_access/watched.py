"""An identity that is read again when its files change, so that a process takes up new keys without a restart.

Files are put in place one after the other (``site``): parts that do not belong together yet are no news, the identity
read before stays, and the next look tries again. Not here: how often to look, and what to do then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from insitu_access.identity import FORMER, Identity

_FILES = ("signing.key", "signing.pub", "tls.key", "tls.pem", "ca.pem", "authority.pub", "answer.jws")
_Stamp = tuple[tuple[int, int, int] | None, ...]


class WatchedIdentity:
    """``current`` is the identity as it was last found whole."""

    def __init__(self, directory: Path, load: Callable[[], Identity]) -> None:
        self._paths = [*(directory / name for name in _FILES), directory / FORMER / "signing.key"]
        self._load = load
        self._stamp = self._stamp_now()
        self.current = load()

    def refresh(self) -> bool:
        """Read it again if a file changed; True where it did. Raises ConfigInvalid, once for each change."""
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return False
        self._stamp = stamp  # before reading: what is written meanwhile is the next change
        self.current = self._load()
        return True

    def _stamp_now(self) -> _Stamp:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
