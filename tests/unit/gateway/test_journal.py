"""Writes share commits, failures reach whoever waits, and the end waits for all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from insitu_gateway.journal import Journal
from insitu_gateway.store import Write
from insitu_privacy.errors import Unavailable

from tests.contract.test_gateway_store import added
from tests.contract.test_gateway_store_memory import MemoryStore
from tests.unit.gateway.world import run


class SlowStore(MemoryStore):
    """Counts its batches; ``fails`` of the next ones fail, and none ends before ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.go = threading.Event()
        self.fails = 0
        self.closed = False

    def write(self, batch: Sequence[Write]) -> frozenset[str]:
        self.go.wait(10)
        self.batches.append(len(batch))
        if self.fails:
            self.fails -= 1
            raise OSError("the disk is full")
        return super().write(batch)

    def close(self) -> None:
        self.closed = True


def test_what_waits_together_is_committed_together() -> None:
    async def work() -> None:
        store = SlowStore()
        journal = Journal(store)
        writes = [asyncio.ensure_future(journal.write(added(f"r{number}"))) for number in range(50)]
        await asyncio.sleep(0.05)
        writes += [asyncio.ensure_future(journal.write(added(f"r{number}"))) for number in range(25, 75)]
        await asyncio.sleep(0.05)
        store.go.set()
        await asyncio.gather(*writes)
        assert sum(store.batches) == 100
        assert len(store.batches) <= 3
        assert await journal.counts() == {"open": 75, "finished": 0}
        await journal.close()

    run(work)


def test_a_failure_reaches_all_of_its_batch_and_no_other() -> None:
    async def work() -> None:
        store = SlowStore()
        store.fails = 1
        journal = Journal(store)
        first = asyncio.ensure_future(journal.write(added("r1")))
        await asyncio.sleep(0.05)
        second = asyncio.ensure_future(journal.write(added("r2")))
        store.go.set()
        with pytest.raises(Unavailable, match="its store failed"):
            await first
        assert await second == frozenset()
        assert await journal.find("r1") is None
        assert await journal.find("r2") is not None
        await journal.close()

    run(work)


def test_a_writer_that_goes_away_leaves_its_write_and_the_others() -> None:
    async def work() -> None:
        store = SlowStore()
        journal = Journal(store)
        gone = asyncio.ensure_future(journal.write(added("r1")))
        stays = asyncio.ensure_future(journal.write(added("r2")))
        await asyncio.sleep(0.05)
        gone.cancel()
        store.go.set()
        await stays
        assert await journal.find("r1") is not None
        await journal.close()

    run(work)


def test_closing_waits_for_what_is_being_written() -> None:
    async def work() -> None:
        store = SlowStore()
        journal = Journal(store)
        writing = asyncio.ensure_future(journal.write(added("r1")))
        await asyncio.sleep(0)
        store.go.set()
        await journal.close()
        assert writing.done()
        assert store.closed

    run(work)
