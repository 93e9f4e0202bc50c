"""Starts processes, remembers them in files, and ends exactly those.

A process is known by its id *and* its start time, written to ``run/NAME.json`` the moment it exists. The kernel gives
ids out again, so an id alone is never signalled: before every signal the start time is compared, through a pidfd where
the platform has them, so that nothing can come between the comparison and the signal. A process that has ended but was
not yet reaped counts as gone.

What is not here: what the processes are and when they are ready.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from insitu_access.files import write_file

_TICK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """One process that was started here, as its file remembers it."""

    name: str
    pid: int
    started: str
    """When it started, in the kernel's own words; see ``start_mark``."""

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return start_mark(self.pid) == self.started


def start_mark(pid: int) -> str | None:
    """A text that no other process of this machine shares with ``pid``; None where no such process runs."""
    if not Path("/proc/self/stat").exists():
        return _start_mark_of_ps(pid)
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before it may hold anything, spaces and brackets too
    return None if fields[0] in "ZXx" else f"{boot}:{fields[19]}"


def _start_mark_of_ps(pid: int) -> str | None:
    done = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = done.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def start(name: str, command: Sequence[str], *, log: Path, record: Path, cwd: Path) -> subprocess.Popen[bytes]:
    """Starts ``command`` in a session of its own, its output appended to ``log``, and remembers it in ``record``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    record.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        child = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    mark = start_mark(child.pid)
    if mark is not None:  # else it has ended already, and its caller will see that
        _remember(record, Running(name=name, pid=child.pid, started=mark))
    return child


def _remember(record: Path, running: Running) -> None:
    write_file(record, json.dumps(asdict(running)).encode())


def remembered(folder: Path) -> list[Running]:
    """What the files in ``folder`` remember, running or not; a file that is not whole is no process."""
    found = []
    for record in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            found.append(Running(**json.loads(record.read_text(encoding="utf-8"))))  # noqa: TID251  our own record
    return found


def end(processes: Iterable[Running], *, grace_s: float = 10.0, kill_s: float = 5.0) -> list[Running]:
    """Ends every process: SIGTERM, and SIGKILL after ``grace_s``. Returns those that remain."""
    left = [process for process in processes if process.alive()]
    for process in left:
        _signal(process, signal.SIGTERM)
    left = _wait_gone(left, grace_s)
    for process in left:
        _signal(process, signal.SIGKILL)
    return _wait_gone(left, kill_s)


def _wait_gone(processes: list[Running], seconds: float) -> list[Running]:
    deadline = time.monotonic() + seconds
    while processes and time.monotonic() < deadline:
        time.sleep(_TICK_S)
        processes = [process for process in processes if process.alive()]
    return processes


def _signal(process: Running, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        if not hasattr(os, "pidfd_open"):
            if process.alive():
                os.kill(process.pid, number)
            return
        handle = os.pidfd_open(process.pid)
        try:
            if process.alive():  # the handle is of this process, and stays so whatever becomes of its number
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)


def ending(code: int) -> str:
    """How a process ended, for people; ``code`` as ``Popen.returncode`` has it."""
    return f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"


def last_lines(log: Path, count: int = 12) -> list[str]:
    """The end of a log, for people."""
    with suppress(OSError):
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return []
