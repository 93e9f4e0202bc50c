"""One at a time, over threads and processes: the ledger and then the audit log are written in one order by all.

The running node and a command beside it (``insitu-node profile``) both charge the ledger and tell the log. Between the
two writes of one, the other must not compare ledger and log (E9): it would tell a charge that is about to be told.
"""

from __future__ import annotations

import fcntl
import os
import threading
from pathlib import Path
from types import TracebackType


class Order:
    """A lock on a file, made on first use. Not to be taken twice by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.Lock()
        self._descriptor = -1

    def __enter__(self) -> None:
        self._thread.acquire()
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except BaseException:
            self._release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)  # which lets go of the lock
        self._thread.release()
