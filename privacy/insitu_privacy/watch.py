"""A limit of time for work that is done in DuckDB and in Python by turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AGAIN_S = 0.05


class TooSlow(Exception):
    """The time is up."""


class Watch:
    """Interrupts a database when the time is up, again and again, for it may not be running at that moment; and is
    asked by the work in between (``check``)."""

    def __init__(self, seconds: float, interrupt: Callable[[], None]) -> None:
        self._end = time.monotonic() + seconds
        self._interrupt = interrupt
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ring, daemon=True, name="watch")

    def check(self) -> None:
        """Raises TooSlow where the time is up."""
        if time.monotonic() > self._end:
            raise TooSlow

    @contextmanager
    def running(self) -> Iterator[None]:
        """While the work is done; afterwards nothing is interrupted any more."""
        self._thread.start()
        try:
            yield
        finally:
            self._done.set()
            self._thread.join()

    def _ring(self) -> None:
        wait = max(0.0, self._end - time.monotonic())
        while not self._done.wait(wait):
            self._interrupt()
            wait = _AGAIN_S
