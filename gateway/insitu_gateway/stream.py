"""One node's bidirectional stream: a bounded queue out, heartbeats both ways, and an end that nothing can hold up.

A node that reads too slowly has its stream closed when its queue is full, and one that says nothing for too long as
well; on its next connection it is sent everything that it has not answered. Bytes that are no message end the stream.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any

import grpc.aio
from google.protobuf.message import DecodeError
from insitu_proto import wire
from insitu_proto.fields import malformed
from insitu_proto.messages import GatewayMessage, Heartbeat, NodeMessage

_SILENT_BEATS = 3
"""A node is taken for gone when this many heartbeats of its have not come."""


class NodeStream:
    """A ``registry.Connection``. ``send`` and ``close`` may be called at any time and never wait."""

    def __init__(self, context: grpc.aio.ServicerContext[Any, Any], *, beat_s: float, limit: int) -> None:
        self._context = context
        self._beat_s = beat_s
        self._limit = limit
        self._queue: deque[GatewayMessage] = deque()
        self._filled = asyncio.Event()
        self._closed = asyncio.Event()
        self._writer: asyncio.Future[Any] | None = None
        self._in_write = False

    def send(self, message: GatewayMessage) -> None:
        """Queue a message."""
        if len(self._queue) >= self._limit:
            self.close()
            return
        self._queue.append(message)
        self._filled.set()

    def close(self) -> None:
        """End the stream."""
        self._closed.set()

    async def read(self) -> NodeMessage | None:
        """The node's next message; None where it ended the stream, or said nothing for too long."""
        try:
            async with asyncio.timeout(_SILENT_BEATS * self._beat_s):
                message = await self._context.read()
        except TimeoutError:
            return None
        except DecodeError:
            raise malformed("it does not parse") from None
        return None if message is grpc.aio.EOF else wire.from_node_message(message)

    async def run(self, listening: Coroutine[Any, Any, None]) -> None:
        """Write what is queued until ``listening`` ends or the stream is closed. Raises what ended it."""
        tasks = [asyncio.ensure_future(each) for each in (listening, self._write(), self._closed.wait())]
        self._writer = tasks[1]
        self._writer.add_done_callback(_let_go)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._closed.set()
            for task in tasks:
                if task is not self._writer or not self._in_write:
                    task.cancel()
        for task in done:
            task.result()

    async def settle(self) -> None:
        """Wait for a write that is under way: gRPC cannot end a call in the middle of one."""
        if self._writer is not None:
            await asyncio.wait((self._writer,), timeout=_SILENT_BEATS * self._beat_s)

    async def _write(self) -> None:
        while not self._closed.is_set():
            message = wire.to_gateway_message(await self._next())
            self._in_write = True
            try:
                await self._context.write(message)
            finally:
                self._in_write = False

    async def _next(self) -> GatewayMessage:
        if not self._queue:
            self._filled.clear()
            try:
                async with asyncio.timeout(self._beat_s):
                    await self._filled.wait()
            except TimeoutError:
                return Heartbeat()
        return self._queue.popleft()


def _let_go(writer: asyncio.Future[Any]) -> None:
    """A write that fails when the stream has ended is of no interest, whoever still waits for it or does not."""
    if not writer.cancelled():
        writer.exception()
