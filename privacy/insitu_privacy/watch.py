"""A limit of time for work that is done in DuckDB and in Python by turns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_AGAIN_S = 0.05


class TooSlow(Exception):
    """The time is up."""


class Watch:
    """Interrupts a database when the time is up, again and again, for it may not be running at that moment; and is
    asked by the work in between (``check``)."""

    def __init__(self, seconds: float, interrupt: Callable[[], None]) -> None:
        self._seconds = seconds
        self._interrupt = interrupt
        self._done, self._up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._ring, daemon=True, name="watch")

    def check(self) -> None:
        """Raises TooSlow where the time is up."""
        if self._up.is_set():
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
        wait = self._seconds
        while not self._done.wait(wait):
            self._up.set()
            self._interrupt()
            wait = _AGAIN_S
