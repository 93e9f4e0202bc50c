"""Tasks of their own, that outlive whoever started them: kept, waited for at the end, their failures logged."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog
from insitu_privacy.errors import InsituError

T = TypeVar("T")
log = structlog.get_logger("insitu.gateway")


class Tasks:
    """The event loop itself keeps no hold of a task: one that nobody holds may vanish in the middle."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start ``work``."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def settle(self, timeout_s: float) -> None:
        """Wait for what is running now."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=timeout_s)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, InsituError):
            log.error("task failed", exc_info=error)
