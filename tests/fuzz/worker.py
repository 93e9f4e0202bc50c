"""Runs inputs in a process of its own, under bounds: what hangs, eats memory or crashes the interpreter is told apart.

    child: ``python -m tests.fuzz.worker``; in, a target's name and bytes, or the number of a mutant or seed, which the
    child makes itself, for its keys are its own; out, one line of JSON for each

Time is the child's processor time, so that a busy machine makes nothing fail. Memory is the peak of what the child
held, above what it held before; the address space is limited as well, so that a bomb cannot take the machine down.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz.mutate import mutant
from tests.fuzz.targets import Target, targets

_ADDRESS_SPACE = 3 * 2**30
"""Above what the child has mapped when it is warm."""
_PATIENCE = 8
"""Times a target's bound, by the clock, before the child is taken for hung."""
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Ran:
    """What became of one input. ``outcome`` is a code, "read", or of a defect what it was."""

    outcome: str
    defect: bool
    seconds: float
    megabytes: float
    data: str = ""
    """The start of the input."""


class Worker:
    """The child, started anew where it died or was killed."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, target: str, data: bytes | int, seconds: float) -> Ran:
        """What becomes of ``data``, or of the mutant of a number, or the seed of a negative one.

        At most so many seconds by the clock, times the patience.
        """
        kind, sent = ("bytes", data) if isinstance(data, bytes) else ("number", str(data).encode())
        child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(f"{target} {kind} {len(sent)}\n".encode() + sent)
            child.stdin.flush()
            ready, _, _ = select.select([child.stdout], [], [], _PATIENCE * seconds)
            line = child.stdout.readline() if ready else b""
        except BrokenPipeError:
            ready, line = [child.stdout], b""
        if line:
            return Ran(**json.loads(line))
        self.close()
        how = f"it died with {child.returncode}" if ready else f"it took more than {_PATIENCE * seconds} seconds"
        return Ran(outcome=how, defect=True, seconds=0, megabytes=0)

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[bytes]:
        path = os.pathsep.join([str(_ROOT), *sys.path])
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == b"ready\n"
        return self._child


def _held(name: str) -> int:
    """A figure of this process in bytes: VmHWM, VmRSS or VmSize."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


_FAULTS: Mapping[str, Callable[[], str]] = {
    "_raises": lambda: str(1 // 0),
    "_hangs": lambda: str(time.sleep(60)),
    "_dies": lambda: str(os.kill(os.getpid(), signal.SIGSEGV)),
    "_eats": lambda: str(len(bytes(2**36))),
}
"""What a bad target does, for the tests of this module."""


def _measured(target: str, data: bytes) -> Ran:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = _held("VmRSS"), time.process_time()
    defect = False
    try:
        outcome = _FAULTS[target]() if target in _FAULTS else targets()[target].outcome(data)
    except BaseException:  # whatever it is: it is no InsituError
        outcome, defect = traceback.format_exc(limit=-6), True
    seconds = time.process_time() - start
    return Ran(
        outcome=outcome,
        defect=defect,
        seconds=round(seconds, 3),
        megabytes=round((_held("VmHWM") - before) / 2**20, 1),
        data=repr(data[:300]),
    )


def _numbered(target: Target, number: int) -> bytes:
    return target.seeds[-number - 1] if number < 0 else mutant(target.seeds, number, target.longest)


def _serve() -> None:
    for target in targets().values():
        for seed in target.seeds[:2]:
            target.outcome(seed)
    most = _held("VmSize") + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    gc.collect()
    out, asked = sys.stdout, sys.stdin.buffer
    print("ready", file=out, flush=True)
    sys.stdout = sys.stderr
    while head := asked.readline().split():
        name, kind, data = head[0].decode(), head[1], asked.read(int(head[2]))
        ran = _measured(name, data if kind == b"bytes" else _numbered(targets()[name], int(data)))
        print(json.dumps(asdict(ran)), file=out, flush=True)


if __name__ == "__main__":
    _serve()
