"""Stays in the foreground with a running federation until it is told to stop, or until nothing is left of it.

A node that ends is reported and the rest goes on, as in a federation in earnest. Interrupts (Ctrl-C), SIGTERM and a
closed terminal all mean the same: stop everything, then leave.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from insitu_compose import lifecycle
from insitu_compose.layout import Layout
from insitu_compose.lifecycle import Say
from insitu_compose.processes import ending, last_lines
from insitu_compose.readiness import Children
from insitu_compose.record import state_error

_TICK_S = 0.3


@contextmanager
def interruptible() -> Iterator[None]:
    """Turns signals that end a program into KeyboardInterrupt, so that what was started is stopped on the way out.

    A shell script's background jobs ignore SIGINT by default; here it counts. SIGHUP stays ignored under ``nohup``.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    heeded = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        heeded.append(signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def serve(layout: Layout, children: Children, say: Say) -> None:
    """Returns when the federation was stopped by an interrupt or by ``down``. Raises ConfigInvalid where it died."""
    running, told = dict(children), False
    try:
        while running:
            time.sleep(_TICK_S)
            for name in [name for name, child in running.items() if child.poll() is not None]:
                told = told or layout.stopping.exists() or not (layout.run / f"{name}.json").exists()
                code = running.pop(name).returncode
                if not told:
                    _report(layout, name, code, say)
    except KeyboardInterrupt:
        say("stopping")
        lifecycle.down(layout.root)
        return
    if not told:
        raise state_error("every process has ended", f"Their logs are in {layout.logs}.")


def _report(layout: Layout, name: str, code: int, say: Say) -> None:
    say(f"{name} {ending(code)}; the others go on")
    for line in last_lines(layout.log(name)):
        say(f"  {name}| {line}")
