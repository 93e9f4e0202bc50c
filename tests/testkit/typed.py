"""A command line, run in this process by the command's own entry point.

Starting a process for each of a thousand commands takes minutes, nearly all of it to load the same modules. Where the
process itself matters (what starts it, what kills it, what it writes when it goes wrong), tests start one.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import structlog


@dataclass
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


_configure = structlog.configure


def _without_cache(**settings: Any) -> None:
    _configure(**{**settings, "cache_logger_on_first_use": False})


def typed(words: Sequence[str], cwd: Path | None = None) -> Done:
    """What the command does, without its process; ``cwd`` is where it is typed."""
    module = {"insitu": "insitu", "insitu-authority": "insitu_access"}.get(words[0], words[0].replace("-", "_"))
    out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    logging = structlog.get_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", _without_cache)  # what is cached would outlive the command
        if cwd is not None:
            patch.chdir(cwd)
        patch.setattr(sys, "argv", list(words))
        patch.setattr(sys, "stdin", io.StringIO())
        try:
            with redirect_stdout(out), redirect_stderr(err):
                import_module(f"{module}.commands.main").main()
            code: object = 0
        except SystemExit as ended:
            code = ended.code
        finally:
            structlog.contextvars.clear_contextvars()
    structlog.configure(**logging)
    said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return Done(int(code or 0) if not isinstance(code, str) else 1, *said)
