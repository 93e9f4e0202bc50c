"""The store, seen from the event loop: calls run in a thread of their own, and waiting writes share one commit.

While one batch is being written the next one collects, so that a hundred requests at once cost few fsyncs and one
request alone waits for none but its own. ``write`` returns when its writes are durable. If the store fails, every
write of its batch fails with it and nothing of the batch is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog
from insitu_privacy.errors import Unavailable

from insitu_gateway.store import KeepProfile, Store, Stored, Write

T = TypeVar("T")
log = structlog.get_logger("insitu.gateway")


class Journal:
    """One store, one thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._waiting: list[tuple[tuple[Write, ...], asyncio.Future[frozenset[str]]]] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(self, *writes: Write) -> frozenset[str]:
        """Store all of ``writes`` or none; returns the ids among them that were there before. Raises Unavailable."""
        done: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
        self._waiting.append((writes, done))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._drain())
        return await done

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            writes = [write for each, _ in batch for write in each]
            try:
                known = await self._call(partial(self._store.write, writes))
            except Exception:  # whatever it is, those who wait must learn of it
                log.exception("store failed")
                for _, done in batch:
                    if not done.done():
                        done.set_exception(Unavailable("INSITU-GATEWAY-FAILED", reason="its store failed"))
                continue
            for _, done in batch:
                if not done.done():
                    done.set_result(known)

    async def find(self, request_id: str) -> Stored | None:
        """One stored request."""
        return await self._call(lambda: self._store.find(request_id))

    async def open_requests(self) -> tuple[Stored, ...]:
        """The requests that have not finished."""
        return await self._call(self._store.open_requests)

    async def profiles(self, dataset_digest: str) -> tuple[KeepProfile, ...]:
        """The profiles of a dataset."""
        return await self._call(lambda: self._store.profiles(dataset_digest))

    async def profiled(self) -> tuple[str, ...]:
        """Digests of the datasets there are profiles of."""
        return await self._call(self._store.profiled)

    async def counts(self) -> Mapping[str, int]:
        """Number of requests by state."""
        return await self._call(self._store.counts)

    async def close(self) -> None:
        """Finish what waits, then close the store."""
        if self._writing is not None:
            await self._writing
        await self._call(self._store.close)
        self._thread.shutdown()

    async def _call(self, act: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, act)
