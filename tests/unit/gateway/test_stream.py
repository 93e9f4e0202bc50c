"""A node's stream: its bounded queue, its heartbeats, and its end."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc.aio
import pytest
from insitu_gateway.stream import NodeStream
from insitu_privacy.errors import AccessRefused
from insitu_proto import messages as m
from insitu_proto import wire
from insitu_proto.v1 import insitu_pb2 as pb

from tests.testkit.waiting import until
from tests.unit.gateway.world import run


class Line:
    """A connection behind the servicer context's two methods; ``blocked`` holds up every write, as a full one does."""

    def __init__(self) -> None:
        self.written: list[m.GatewayMessage] = []
        self.begun = 0
        self.arriving: asyncio.Queue[Any] = asyncio.Queue()
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, message: pb.GatewayMessage) -> None:
        self.begun += 1
        await self.open.wait()
        self.written.append(wire.from_gateway_message(message))

    async def read(self) -> Any:
        return await self.arriving.get()


def stream(line: Line, *, beat_s: float = 60, limit: int = 8) -> NodeStream:
    return NodeStream(line, beat_s=beat_s, limit=limit)  # type: ignore[arg-type]


async def listen(one: NodeStream) -> None:
    while await one.read() is not None:
        pass


def test_what_is_queued_before_and_while_it_runs_is_written_in_order() -> None:
    async def work() -> None:
        line = Line()
        one = stream(line)
        one.send(m.Taken(request_id="1"))
        running = asyncio.ensure_future(one.run(listen(one)))
        await until(lambda: len(line.written) == 1)
        one.send(m.Taken(request_id="2"))
        one.send(m.Taken(request_id="3"))
        await until(lambda: len(line.written) == 3)
        assert line.written == [m.Taken(request_id=name) for name in "123"]
        line.arriving.put_nowait(grpc.aio.EOF)
        await running

    run(work)


def test_a_reader_that_is_too_slow_loses_its_stream_even_in_the_middle_of_a_write() -> None:
    async def work() -> None:
        line = Line()
        line.open.clear()
        one = stream(line, limit=3)
        running = asyncio.ensure_future(one.run(listen(one)))
        one.send(m.Heartbeat())
        await until(lambda: line.begun == 1)  # one is being written, three may wait
        for _ in range(2):
            one.send(m.Heartbeat())
        await asyncio.sleep(0.01)
        assert not running.done()
        one.send(m.Heartbeat())
        one.send(m.Heartbeat())
        await running
        assert line.written == []
        settling = asyncio.ensure_future(one.settle())
        await asyncio.sleep(0.01)
        assert not settling.done()  # gRPC cannot end the call before the write has ended
        line.open.set()
        await settling
        assert line.written == [m.Heartbeat()]  # and nothing more is written

    run(work)


def test_a_write_that_fails_after_the_end_is_of_no_interest() -> None:
    class Torn(Line):
        async def write(self, message: pb.GatewayMessage) -> None:
            await super().write(message)
            raise ConnectionError

    async def work() -> None:
        line, complaints = Torn(), list[dict[str, Any]]()
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        line.open.clear()
        one = stream(line)
        running = asyncio.ensure_future(one.run(listen(one)))
        one.send(m.Heartbeat())
        await until(lambda: line.begun == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        line.open.set()
        await until(lambda: len(line.written) == 1)
        del one, running
        await asyncio.sleep(0)
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []

    run(work)


def test_an_idle_stream_beats() -> None:
    class Lively(Line):
        async def read(self) -> Any:
            await asyncio.sleep(0.005)
            return wire.to_node_message(m.Heartbeat())

    async def work() -> None:
        line = Lively()
        one = stream(line, beat_s=0.02)
        running = asyncio.ensure_future(one.run(listen(one)))
        await until(lambda: len(line.written) >= 3)
        one.close()
        await running
        assert set(map(type, line.written)) == {m.Heartbeat}

    run(work)


def test_silence_and_the_end_are_the_end() -> None:
    async def work() -> None:
        line = Line()
        assert await stream(line, beat_s=0.01).read() is None
        line.arriving.put_nowait(grpc.aio.EOF)
        assert await stream(line).read() is None

    run(work)


def test_what_is_no_message_ends_the_stream_with_the_reason() -> None:
    async def work() -> None:
        line = Line()
        one = stream(line)
        line.arriving.put_nowait(pb.NodeMessage())
        with pytest.raises(AccessRefused, match="MALFORMED"):
            await one.run(listen(one))

    run(work)


def test_a_connection_that_breaks_while_writing_ends_the_stream() -> None:
    class Broken(Line):
        async def write(self, message: pb.GatewayMessage) -> None:
            raise grpc.aio.UsageError("broken")

    async def work() -> None:
        one = stream(Broken())
        one.send(m.Heartbeat())
        with pytest.raises(grpc.aio.UsageError):
            await one.run(listen(one))

    run(work)
