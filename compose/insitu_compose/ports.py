"""Free loopback ports. A port is needed before anything listens on it, for the manifest names it."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def hold() -> tuple[socket.socket, str]:
    """A free port, and the bound socket that keeps it from others until it is closed."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.bind((HOST, 0))
    return held, f"{HOST}:{held.getsockname()[1]}"


def free(address: str) -> bool:
    """Whether something could listen on ``address`` now."""
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
        return True
