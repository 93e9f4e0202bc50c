"""Which nodes are connected now, and when they were last heard of. In memory, no clock of its own, no network.

A node has one current connection: a newer one takes the place of the older, which may be half dead without knowing.
What is not here: who may connect (``service``) and what is sent (``fanout``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from insitu_proto.messages import GatewayMessage, Hello, NodeStatus


class Connection(Protocol):
    """The way to one node."""

    def send(self, message: GatewayMessage) -> None:
        """Queue a message; a connection whose queue is full closes."""

    def close(self) -> None:
        """End the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    connection: Connection | None
    hello: Hello
    at: datetime


class Registry:
    """The nodes seen since the gateway started."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Seen] = {}

    def attach(self, connection: Connection, hello: Hello, now: datetime) -> Connection | None:
        """Make ``connection`` the node's current one; returns the one whose place it takes."""
        before = self.connection(hello.node_id)
        self._nodes[hello.node_id] = _Seen(connection=connection, hello=hello, at=now)
        return before

    def detach(self, node: str, connection: Connection) -> bool:
        """Forget ``connection``; False where it was not the node's current one."""
        if self.connection(node) is not connection:
            return False
        self._nodes[node] = replace(self._nodes[node], connection=None)
        return True

    def heard(self, node: str, now: datetime) -> None:
        """The node sent something."""
        self._nodes[node] = replace(self._nodes[node], at=now)

    def connection(self, node: str) -> Connection | None:
        """The current connection of a node, None where it is away."""
        seen = self._nodes.get(node)
        return seen.connection if seen else None

    def connected(self) -> Iterator[tuple[str, Connection]]:
        """All current connections."""
        return ((node, seen.connection) for node, seen in list(self._nodes.items()) if seen.connection is not None)

    def statuses(self, nodes: Iterable[str]) -> tuple[NodeStatus, ...]:
        """What is known of each of ``nodes``."""
        return tuple(map(self._status, nodes))

    def _status(self, node: str) -> NodeStatus:
        seen = self._nodes.get(node)
        return NodeStatus(
            id=node,
            connected=seen is not None and seen.connection is not None,
            last_seen=seen.at if seen else None,
            manifest_version=seen.hello.manifest_version if seen else 0,
            software=seen.hello.software if seen else "",
        )
