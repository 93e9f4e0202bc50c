"""Finds and runs the other distributions' commands.

A command is taken from beside this Python first, then from PATH: an evaluation in a virtual environment must never
start another version that happens to be installed on the machine.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from insitu_privacy.errors import ConfigInvalid

_TIMEOUT_S = 120


class ProgramFailed(Exception):
    """A command ended with an exit code other than 0; ``output`` is what it wrote to standard error."""

    def __init__(self, name: str, code: int, output: str) -> None:
        super().__init__(name, code)
        self.name, self.code, self.output = name, code, output


def find(name: str) -> str:
    """The path of the command ``name``. Raises ConfigInvalid where it is not installed."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise ConfigInvalid(
            "INSITU-CONFIG-STATE",
            reason=f"the command {name} is not installed here",
            hint="Install insitu-privacy, insitu-access, insitu-proto, insitu-gateway, insitu-node and insitu.",
        )
    return found


def run(name: str, *arguments: str | Path, cwd: Path | None = None, timeout: float = _TIMEOUT_S) -> str:
    """Runs a command to its end and returns its standard output. Raises ProgramFailed."""
    command: Sequence[str] = [find(name), *(str(argument) for argument in arguments)]
    try:
        done = subprocess.run(
            command, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise ProgramFailed(name, -1, f"no answer within {timeout:.0f} s") from None
    if done.returncode != 0:
        raise ProgramFailed(name, done.returncode, done.stderr.strip() or done.stdout.strip())
    return done.stdout
