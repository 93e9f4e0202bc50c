"""Who is connected: the newest stream of a node counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from insitu_gateway.registry import Registry
from insitu_proto.messages import GatewayMessage, Hello, NodeStatus

START = datetime(2026, 3, 1, tzinfo=UTC)
HELLO = Hello(node_id="a", manifest_version=4, software="insitu-node 0.1.0")


class Line:
    def send(self, message: GatewayMessage) -> None:
        """Nothing is sent here."""

    def close(self) -> None:
        """Nothing is open here."""


def test_the_newest_connection_counts() -> None:
    registry, old, new = Registry(), Line(), Line()
    assert registry.attach(old, HELLO, START) is None
    assert registry.attach(new, HELLO, START) is old
    assert not registry.detach("a", old)
    assert registry.connection("a") is new
    assert list(registry.connected()) == [("a", new)]
    assert registry.detach("a", new)
    assert registry.connection("a") is None
    assert not registry.detach("a", new)


def test_status_says_when_a_node_was_last_heard_of() -> None:
    registry, line = Registry(), Line()
    registry.attach(line, HELLO, START)
    later = START + timedelta(seconds=5)
    registry.heard("a", later)
    registry.detach("a", line)
    never = NodeStatus(id="b", connected=False, last_seen=None, manifest_version=0, software="")
    seen = NodeStatus(id="a", connected=False, last_seen=later, manifest_version=4, software="insitu-node 0.1.0")
    assert registry.statuses(["a", "b"]) == (seen, never)
