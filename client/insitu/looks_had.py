"""Which first looks were answered before, by whom: kept in the profile folder, for a node repeats those for nothing.

So a question asked again costs nothing though its grant is nearly spent, and a new one is not begun with a look whose
query the grant could no longer pay for. What stands here is believed no further than that.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from pathlib import Path

from insitu_privacy.errors import InsituError

_MOST_CHARS, _MOST_LINES = 2**20, 5_000
_LINE = re.compile(r"\S{1,64} [0-9a-f]{64} \S{1,64}")


class LooksHad:
    """Grant, plan digest and node of each answer, a line for each. It may be shared between threads."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "first-looks"
        self._lock = threading.Lock()

    def answered(self, grant: str, digest: str) -> frozenset[str]:
        """The nodes that have answered it under a grant."""
        with self._lock:
            lines = [line.split() for line in self._lines()]
        return frozenset(node for a_grant, a_digest, node in lines if (a_grant, a_digest) == (grant, digest))

    def add(self, grant: str, digest: str, nodes: Iterable[str]) -> None:
        """They have. The oldest are forgotten; a profile folder that cannot be written does without."""
        from insitu_access.files import write_file

        with self._lock:
            before = self._lines()
            lines = [*before, *(line for node in nodes if (line := f"{grant} {digest} {node}") not in before)]
            try:
                write_file(self._file, "".join(f"{line}\n" for line in lines[-_MOST_LINES:]).encode(), 0o600)
            except InsituError:
                return

    def _lines(self) -> list[str]:
        from insitu_access.files import read_file

        try:
            text = read_file(self._file, _MOST_CHARS).decode("ascii", "replace")
        except InsituError:
            return []
        return [line for line in text.splitlines() if _LINE.fullmatch(line)]
