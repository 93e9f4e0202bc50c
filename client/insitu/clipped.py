"""What is said of clipping to people: what it is expected to take, or why that is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_SHOWN = 0.005
"""Smaller shares are not told one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """Which of the nodes that are asked have released a profile of the dataset. Only if all have are bounds fitted."""

    nodes: tuple[str, ...]
    without: tuple[str, ...]

    @property
    def lack(self) -> str:
        """Which nodes have no profile; empty where all have one."""
        if not self.without:
            return ""
        if len(self.without) == len(self.nodes):
            return "no node has made a profile"
        return f"{', '.join(self.without)} {'has' if len(self.without) == 1 else 'have'} no profile"

    @property
    def why_not(self) -> str:
        """Why bounds could not be fitted."""
        return self.lack or "the profiles do not tell it for this query"


def clipping_said(columns: Sequence[tuple[str, float | None]], profiled: Profiled | None) -> str:
    """One line about the noisy ``columns`` and the share that clipping takes of each; empty where there are none."""
    if not columns:
        return ""
    known = [(name, cut) for name, cut in columns if cut is not None]
    if not known:
        return "clipping is not known" + (f": {profiled.why_not}" if profiled is not None else "")
    shares = [f"{name} {_percent(cut)}" for name, cut in known if cut >= _SHOWN]
    unknown = [name for name, cut in columns if cut is None]
    rest = f"; not known of {', '.join(unknown)}" if unknown else ""
    return f"expected clipping: {', '.join(shares) or 'under 0.5%'}{rest}"


def _percent(share: float) -> str:
    """Two digits of what is small."""
    return f"{100 * share:.2g}%" if share < 0.1 else f"{share:.0%}"
