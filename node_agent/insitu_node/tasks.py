"""Small things that asyncio lacks: tasks that are kept, work that ends with the node, waits that do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")
_running: set[asyncio.Task[None]] = set()


def hold(task: asyncio.Task[None]) -> None:
    """asyncio keeps no strong reference to tasks."""
    _running.add(task)
    task.add_done_callback(_running.discard)


async def unless(stopping: asyncio.Event, work: Coroutine[None, None, _T]) -> _T | None:
    """What ``work`` returns; None where ``stopping`` is set before."""
    doing, ending = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({doing, ending}, return_when=asyncio.FIRST_COMPLETED)
        return await doing if doing.done() else None
    finally:
        doing.cancel()
        ending.cancel()
        await asyncio.gather(doing, ending, return_exceptions=True)


async def wait(stopping: asyncio.Event, seconds: float) -> None:
    """So long, or until ``stopping`` is set."""
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return
