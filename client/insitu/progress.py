"""Tells on standard error, node by node, where a request is: a live table on a terminal, else one line a change.

Standard output is never touched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

Progress = Callable[[str, str], None]
"""Called with a node's id and its stage."""


def silent(node: str, stage: str) -> None:
    """Reports nothing."""


class Reporter:
    """A ``Progress`` on standard error; a context manager that leaves the terminal as it was."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._stages: dict[str, str] = {}
        self._quiet = quiet
        self._live: Live | None = None

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, node: str, stage: str) -> None:
        if self._quiet or self._stages.get(node) == stage:
            return
        from insitu_access.cli import printable

        node = printable(node)  # a gateway's word
        self._stages[node] = stage
        if sys.stderr.isatty():
            self._draw()
        else:
            print(f"{node}: {stage}", file=sys.stderr, flush=True)

    def _draw(self) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            self._live = Live(console=Console(file=sys.stderr), transient=True, refresh_per_second=8)
            self._live.start()
        self._live.update(self._table())

    def _table(self) -> Table:
        from insitu.output import new_table

        table = new_table()
        table.add_column("node")
        table.add_column("stage")
        for node, stage in sorted(self._stages.items()):
            table.add_row(node, stage)
        return table
