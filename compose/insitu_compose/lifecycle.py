"""The life of a federation on this machine: up, down, and how it stands.

``up`` either leaves every process running and every node connected, or nothing running at all. ``down`` ends what
``up`` started in the same directory, by id and start time, and returns when it is gone. Nothing outside the directory
is read or written but what FEDERATION.toml names.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from insitu_compose import ports, processes
from insitu_compose.authority import make_trust
from insitu_compose.configs import write_gateway, write_node
from insitu_compose.federation import Federation, Source
from insitu_compose.layout import GATEWAY, Layout, node_process
from insitu_compose.programs import ProgramFailed, find, run
from insitu_compose.readiness import Children, NotStarted, connected_nodes, wait_connected
from insitu_compose.record import Record, claim, locked, need_record, read_record, state_error, write_record

Say = Callable[[str], None]
"""Takes one line of progress, for people."""
_TRIES = 3
_PROFILE_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessState:
    """One process of a federation: running, or ended."""

    name: str
    pid: int
    running: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a federation stands."""

    record: Record
    layout: Layout
    processes: tuple[ProcessState, ...]
    connected: frozenset[str]
    """Nodes that the gateway says are connected; none where it does not answer."""

    @property
    def state(self) -> str:
        """``up``: all run and are connected; ``down``: none runs; ``partly``: anything else."""
        if not any(process.running for process in self.processes):
            return "down"
        complete = len(self.processes) == len(self.record.nodes) + 1 and all(one.running for one in self.processes)
        return "up" if complete and self.connected >= set(self.record.nodes) else "partly"


def up(federation: Federation, root: Path, say: Say, *, timeout_s: float = 60.0) -> tuple[Layout, Children]:
    """Starts the federation in the directory ``root``. Raises ConfigInvalid, and then nothing runs."""
    layout = claim(root)
    with locked(layout, wait=False):
        try:
            return layout, _start(federation, layout, say, timeout_s)
        except NotStarted as failure:
            for line in failure.lines:
                say(f"  {failure.process}| {line}")
            raise failure.error() from None
        except ProgramFailed as failure:
            said = failure.output.splitlines()
            for line in said[:-1]:
                say(f"  {failure.name}| {line}")
            raise state_error(
                f"{failure.name} failed: {said[-1] if said else failure.code}",
                "Correct what it says, then start again.",
            ) from None


def _start(federation: Federation, layout: Layout, say: Say, timeout_s: float) -> Children:
    record = read_record(layout)
    if any(process.alive() for process in processes.remembered(layout.run)):
        raise state_error(
            f"the federation in {layout.root} is up already", f"Stop it with `insitu-compose down --dir {layout.root}`."
        )
    if record is not None and record.ready:
        return _start_again(federation, record, layout, say, timeout_s)
    for remaining in reversed(range(_TRIES)):
        record = _make(federation, layout, say)
        try:
            return _run(federation, record, layout, say, timeout_s)
        except NotStarted as failure:
            # Between closing the held port and the gateway's listening, another program may have taken it.
            if failure.process != GATEWAY or ports.free(record.address) or not remaining:
                raise
            say(f"another program took {record.address}; starting over with another port")
    raise AssertionError("unreachable")


def _start_again(federation: Federation, record: Record, layout: Layout, say: Say, timeout_s: float) -> Children:
    if record.fingerprint != federation.fingerprint:
        raise state_error(
            f"{layout.root} holds a federation made from another FEDERATION.toml or dataset",
            "Pass another --dir; to begin anew here, delete it with its ledgers.",
        )
    if not ports.free(record.address):
        raise state_error(
            f"another program listens on {record.address}, the address in this federation's manifest",
            "Stop that program, or pass another --dir.",
        )
    say(f"starting again from {layout.root}: same keys, same grant, ledgers as they were")
    return _run(federation, record, layout, say, timeout_s)


def _make(federation: Federation, layout: Layout, say: Say) -> Record:
    """Keys, signed documents and configurations for a free port."""
    for path in layout.made():
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    held, address = ports.hold()
    with held:
        file = federation.file
        record = Record(
            federation=federation.name,
            file=str(federation.path),
            fingerprint=federation.fingerprint,
            gateway=file.gateway.id,
            nodes=tuple(node.id for node in file.node),
            address=address,
            ready=False,
        )
        write_record(layout, record)
        say("making keys, certificates, manifest and grant")
        make_trust(federation, layout, address)
        write_gateway(federation, layout, address)
        for node in file.node:
            write_node(node, federation, layout, address)
    return record


def _run(federation: Federation, record: Record, layout: Layout, say: Say, timeout_s: float) -> Children:
    """Starts every process and waits until all nodes are connected; ends them all where that fails."""
    if not record.ready:
        _profile(federation, layout, say)
    say(f"starting the gateway at {record.address} and {len(record.nodes)} nodes")
    try:
        children = _spawn(federation, layout)
        wait_connected(layout, record.address, record.nodes, children, timeout_s)
        if not layout.profile.exists():
            run(
                "insitu",
                "connect",
                layout.profile,
                "--gateway",
                record.address,
                "--identity",
                layout.researcher_identity,
                "--grant",
                layout.grant,
            )
        write_record(layout, replace(record, ready=True))
        say("every node is connected")
    except BaseException:
        _end_all(layout)
        raise
    return children


def _profile(federation: Federation, layout: Layout, say: Say) -> None:
    """Each node's profiles, by its custodian's own command, before it first runs. Raises ProgramFailed."""
    wanted = [
        (layout.node_config(node.id), name, source)
        for node in federation.file.node
        for name, source in node.datasets.items()
        if source.profile is not None
    ]
    if not wanted:
        return
    say(f"making {len(wanted)} {'profile' if len(wanted) == 1 else 'profiles'}")

    def make(config: Path, name: str, source: Source) -> None:
        tables = [part for table in source.profile_tables for part in ("--table", table)]
        cost = ("--epsilon", str(source.profile), "--config", config)
        run("insitu-node", "profile", name, *cost, *tables, timeout=_PROFILE_S)

    with ThreadPoolExecutor(max_workers=2) as pool:
        for done in [pool.submit(make, *one) for one in wanted]:
            done.result()


def _spawn(federation: Federation, layout: Layout) -> dict[str, subprocess.Popen[bytes]]:
    commands = {GATEWAY: [find("insitu-gateway"), "run", "--config", str(layout.gateway_config)]}
    for node in federation.file.node:
        commands[node_process(node.id)] = [find("insitu-node"), "run", "--config", str(layout.node_config(node.id))]
    return {
        name: processes.start(
            name, command, log=layout.log(name), record=layout.run / f"{name}.json", cwd=federation.path.parent
        )
        for name, command in commands.items()
    }


def down(root: Path) -> list[str]:
    """Ends every process that ``up`` started in ``root`` and returns their names when they are gone.

    Raises ConfigInvalid where there is no federation, or where a process cannot be ended.
    """
    layout = Layout(root.absolute())
    need_record(layout)
    with locked(layout, wait=True):
        return _end_all(layout)


def _end_all(layout: Layout) -> list[str]:
    """Nodes first, so that none of them logs a lost gateway; their records go when they are gone."""
    known = processes.remembered(layout.run)
    if not known:
        return []
    alive = [process.name for process in known if process.alive()]
    layout.stopping.touch()
    try:
        nodes = [process for process in known if process.name != GATEWAY]
        left = processes.end(nodes) + processes.end(process for process in known if process.name == GATEWAY)
        if left:
            names, ids = ", ".join(one.name for one in left), ", ".join(str(one.pid) for one in left)
            raise state_error(f"{names} cannot be ended", f"End it by hand: process {ids}.")
        for process in known:
            (layout.run / f"{process.name}.json").unlink(missing_ok=True)
    finally:
        layout.stopping.unlink(missing_ok=True)
    return alive


def standing(root: Path) -> Standing:
    """How the federation in ``root`` stands. Raises ConfigInvalid where there is none."""
    layout = Layout(root.absolute())
    record = need_record(layout)
    known = tuple(
        ProcessState(name=process.name, pid=process.pid, running=process.alive())
        for process in processes.remembered(layout.run)
    )
    answers = any(process.running for process in known if process.name == GATEWAY)
    connected = connected_nodes(layout) if answers else None
    return Standing(record=record, layout=layout, processes=known, connected=connected or frozenset())
