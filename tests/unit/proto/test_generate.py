"""The committed stubs are those of the committed .proto."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

GENERATE = Path(__file__).parents[3] / "proto" / "generate.py"


def test_stubs_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, GENERATE, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_unknown_options_are_refused() -> None:
    done = subprocess.run([sys.executable, GENERATE, "--chekc"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "usage" in done.stderr
