"""Waits until the gateway answers and every node is connected to it, or says which process is to blame.

The gateway is asked with its own ``status`` command; how long to wait between two questions doubles up to a second.
A process that ends while it is waited for is a failure at once.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence

from insitu_privacy.errors import ConfigInvalid

from insitu_compose import ports, processes
from insitu_compose.layout import GATEWAY, Layout, node_process
from insitu_compose.programs import ProgramFailed, run
from insitu_compose.record import state_error

Children = Mapping[str, subprocess.Popen[bytes]]
_TICK_S = 0.05
_FIRST_WAIT_S = 0.5
_LAST_WAIT_S = 1.0


class NotStarted(Exception):
    """A process did not come up: its name, why, and the end of its log."""

    def __init__(self, process: str, why: str, layout: Layout) -> None:
        super().__init__(process, why)
        self.process, self.why = process, why
        self.log = layout.log(process)
        self.lines = processes.last_lines(self.log)

    def error(self) -> ConfigInvalid:
        """The same as one line for whoever ran the command."""
        return state_error(f"{self.process} did not start: {self.why}", f"Its whole log is {self.log}.")


def connected_nodes(layout: Layout) -> frozenset[str] | None:
    """The ids of the nodes connected now, as the gateway says; None where it does not answer."""
    try:
        answer = run("insitu-gateway", "status", "--config", layout.gateway_config, "--format", "json", timeout=20)
        return frozenset(node["id"] for node in json.loads(answer)["nodes"] if node["connected"])  # noqa: TID251  our own programs' output
    except (ProgramFailed, ValueError, KeyError, TypeError):
        return None


def wait_connected(layout: Layout, address: str, nodes: Sequence[str], children: Children, timeout_s: float) -> None:
    """Returns once the gateway at ``address`` says that all ``nodes`` are connected. Raises NotStarted."""
    deadline, wait = time.monotonic() + timeout_s, _FIRST_WAIT_S
    while True:
        _watch(layout, children, wait)
        connected = None if ports.free(address) else connected_nodes(layout)
        missing = [node for node in nodes if connected is None or node not in connected]
        if not missing:
            return
        if time.monotonic() > deadline:
            _watch(layout, children, 0)
            if connected is None:
                raise NotStarted(GATEWAY, f"it does not answer after {timeout_s:.0f} s", layout)
            raise NotStarted(node_process(missing[0]), f"it is not connected after {timeout_s:.0f} s", layout)
        wait = min(2 * wait, _LAST_WAIT_S)


def _watch(layout: Layout, children: Children, seconds: float) -> None:
    """Lets ``seconds`` pass. Raises NotStarted as soon as a process has ended."""
    until = time.monotonic() + seconds
    while True:
        for name, child in children.items():
            code = child.poll()
            if code is not None:
                raise NotStarted(name, f"it {processes.ending(code)}", layout)
        if time.monotonic() >= until:
            return
        time.sleep(_TICK_S)
