"""Waiting in a test for what has no event of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

PATIENCE_S = 20.0
_LOOK_S = 0.005


async def until(condition: Callable[[], bool]) -> None:
    """Until ``condition`` holds; fails the test when that takes too long."""
    for _ in range(round(PATIENCE_S / _LOOK_S)):
        if condition():
            return
        await asyncio.sleep(_LOOK_S)
    raise AssertionError("it did not come to pass in time")
