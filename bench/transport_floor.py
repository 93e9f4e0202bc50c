"""The transport floor: the same messages through bare gRPC, with nothing done to them.

The same shape as a federation: a gateway process, one process per node with an outbound stream to it, and this process
as the researcher; over loopback, without TLS. The gateway hands each request to every node, every node answers with a
fixed outcome of its own size, the gateway answers when it has them all. Nothing is verified, stored, merged or logged.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from insitu_proto import wire
from insitu_proto.messages import Outcome
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1 import insitu_pb2_grpc as stubs

from bench.timing import seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Characters of what a real query sent: the request, the grant, one node's outcome, the gateway's own result."""

    request: int
    grant: int
    outcome: int
    result: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Sequential round trips in seconds, and queries a second with several researchers at once."""

    round_trips: tuple[float, ...]
    fan_outs: tuple[float, ...]
    """The part of each between the gateway and its nodes, without the researcher's hop: BASELINES.md's floor."""
    queries_per_second: float


def measure(sizes: Sizes, *, nodes: int, rounds: int, researchers: int) -> Floor:
    """The floor for ``nodes`` nodes."""
    with _running(sizes, nodes) as address, grpc.insecure_channel(address) as channel:
        stub = stubs.ResearchStub(channel)
        ask = pb.AskRequest(request_jws="r" * sizes.request, grant_jwt="g" * sizes.grant)

        fan_outs: list[float] = []

        def once() -> None:
            *_, answered, last = stub.Ask(ask)
            assert len(answered.answered.outcomes) == nodes
            fan_outs.append(float(last.finished.result_json))

        for _ in range(20):
            once()
        fan_outs.clear()
        alone = tuple(seconds(once) for _ in range(rounds))
        inner = tuple(fan_outs)
        return Floor(
            round_trips=alone,
            fan_outs=inner,
            queries_per_second=rate(once, total=rounds, researchers=researchers),
        )


def rate(once: Any, *, total: int, researchers: int) -> float:
    """Calls a second with ``researchers`` threads that each ask again when answered."""
    with ThreadPoolExecutor(researchers) as pool:
        start = time.perf_counter()
        done = [pool.submit(once) for _ in range(total)]
        for future in done:
            future.result()
        return total / (time.perf_counter() - start)


@contextmanager
def _running(sizes: Sizes, nodes: int) -> Iterator[str]:
    children = [_start("gateway", str(nodes), str(sizes.result))]
    try:
        address = _line(children[0])
        children += [_start("node", address, f"node-{index}", str(sizes.outcome)) for index in range(nodes)]
        assert _line(children[0]) == "ready"
        yield address
    finally:
        for child in reversed(children):
            child.terminate()
        for child in children:
            child.communicate()


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "bench.transport_floor", *arguments]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


# -- the processes ---------------------------------------------------------------------------------------------------


class _Gateway:
    def __init__(self, nodes: int, result: int) -> None:
        self._nodes, self._result = nodes, result
        self._queues: list[asyncio.Queue[pb.GatewayMessage]] = []
        self._open: dict[str, tuple[list[pb.NodeOutcome], asyncio.Event]] = {}
        self._numbers = itertools.count()

    async def attach(self, messages: AsyncIterator[pb.NodeMessage], _: object) -> AsyncIterator[pb.GatewayMessage]:
        queue: asyncio.Queue[pb.GatewayMessage] = asyncio.Queue()
        reading = asyncio.create_task(self._read(messages, queue))
        try:
            while True:
                yield await queue.get()
        finally:
            reading.cancel()

    async def _read(self, messages: AsyncIterator[pb.NodeMessage], queue: asyncio.Queue[pb.GatewayMessage]) -> None:
        name = ""
        async for message in messages:
            if message.WhichOneof("message") == "hello":
                name = message.hello.node_id
                self._queues.append(queue)
                if len(self._queues) == self._nodes:
                    print("ready", flush=True)
                continue
            outcomes, complete = self._open[message.outcome.request_id]
            jws = message.outcome.outcome_jws
            outcomes.append(pb.NodeOutcome(node_id=name, status=pb.STAGE_RELEASED, outcome_jws=jws))
            if len(outcomes) == self._nodes:
                complete.set()

    async def ask(self, request: pb.AskRequest, _: object) -> AsyncIterator[pb.Event]:
        number = f"{next(self._numbers):032x}"
        outcomes, complete = self._open[number] = ([], asyncio.Event())
        task = pb.Task(request_id=number, request_jws=request.request_jws, grant_jwt=request.grant_jwt)
        yield pb.Event(accepted=pb.Accepted(request_id=number))
        start = time.perf_counter()
        for queue in self._queues:
            queue.put_nowait(pb.GatewayMessage(task=task))
        await complete.wait()
        taken = f"{time.perf_counter() - start:.9f}".ljust(self._result)
        del self._open[number]
        yield pb.Event(answered=pb.Answered(outcomes=outcomes))
        yield pb.Event(finished=pb.Finished(result_json=taken.encode()))

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The two methods of the two services that the floor has."""
        attach = grpc.stream_stream_rpc_method_handler(
            self.attach, pb.NodeMessage.FromString, pb.GatewayMessage.SerializeToString
        )
        ask = grpc.unary_stream_rpc_method_handler(self.ask, pb.AskRequest.FromString, pb.Event.SerializeToString)
        return (
            grpc.method_handlers_generic_handler("insitu.v1.Federation", {"Attach": attach}),
            grpc.method_handlers_generic_handler("insitu.v1.Research", {"Ask": ask}),
        )


async def _gateway(nodes: str, result: str) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(_Gateway(int(nodes), int(result)).handlers())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


async def _node(address: str, name: str, outcome: str) -> None:
    queue: asyncio.Queue[pb.NodeMessage] = asyncio.Queue()
    queue.put_nowait(pb.NodeMessage(hello=pb.Hello(node_id=name, software="floor")))
    jws = "o" * int(outcome)

    async def sending() -> AsyncIterator[pb.NodeMessage]:
        while True:
            yield await queue.get()

    async with grpc.aio.insecure_channel(address) as channel:
        async for message in stubs.FederationStub(channel).Attach(sending()):
            answer = Outcome(request_id=message.task.request_id, outcome_jws=jws)
            queue.put_nowait(wire.to_node_message(answer))


def main(arguments: Sequence[str]) -> None:
    """Runs one of the processes."""
    role, *rest = arguments
    asyncio.run(_gateway(*rest) if role == "gateway" else _node(*rest))


if __name__ == "__main__":
    main(sys.argv[1:])
