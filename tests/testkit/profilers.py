"""A profiler in memory: real plans, a real engine, real mechanisms, real files; a ledger and an audit log of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Entry, read_line
from insitu_access.audit.files import lines
from insitu_access.audit.log import AuditLog
from insitu_access.keys import SigningKey, generate_signing_key
from insitu_node.audit import NodeAudit
from insitu_node.custody import Custody
from insitu_node.engines.base import Engine
from insitu_node.hooks import Hook, no_hook
from insitu_node.ledger import Ledger
from insitu_node.noise import Mechanisms
from insitu_node.policy import Policy
from insitu_node.profile_store import ProfileStore
from insitu_node.profiling import Made, Profiler, Wanted
from insitu_node.projects import Projects
from insitu_node.running import Noise, Runner
from insitu_privacy.dataset import Dataset

from tests.testkit.ledger_memory import MemoryLedger
from tests.testkit.node_world import CAP_KEY, NODE, PARTY

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Crash(BaseException):
    """What a hook raises in place of a kill: nothing catches it, as nothing catches that."""


def crash_at(wanted: str) -> Hook:
    def hook(place: str) -> None:
        if place == wanted:
            raise Crash(place)

    return hook


@dataclass
class Site:
    """A node's own, as far as profiles need it."""

    folder: Path
    dataset: Dataset
    engine: Engine
    budget: Fraction = Fraction(2)
    ledger: Ledger = field(default_factory=MemoryLedger)
    noise: Noise = field(default_factory=Mechanisms)
    hook: Hook = no_hook
    key: SigningKey = field(default_factory=generate_signing_key)

    def __post_init__(self) -> None:
        self.projects = Projects(self.folder)
        self.store = ProfileStore(self.folder, NODE, {self.dataset.name: self.dataset.digest})

    def profile(self, epsilon: Any = None, *, refresh: bool = False, tables: set[str] | None = None) -> Made:
        """As the command does it, in this process."""
        wanted = Wanted(
            epsilon=None if epsilon is None else Fraction(epsilon),
            refresh=refresh,
            tables=None if tables is None else frozenset(tables),
        )
        return self._profiler().profile(wanted)

    def logged(self) -> list[Entry]:
        """What stands in the audit log, checked: it must verify."""
        report, _ = check_lines(lines(self.folder / "audit"), PARTY, [self.key.public()])
        assert report.findings == ()
        return [read_line(line) for line in lines(self.folder / "audit")]

    def _profiler(self) -> Profiler:
        clock: Callable[[], datetime] = lambda: NOW  # noqa: E731
        log = AuditLog(self.folder / "audit", PARTY, self.key, clock=clock)
        audit = NodeAudit(log, clock=clock, cap_key=CAP_KEY)
        custody = Custody(Policy(), self.projects)
        audit.agree(self.ledger)
        runner = Runner(
            ledger=self.ledger,
            custody=custody,
            noise=self.noise,
            cap_key=CAP_KEY,
            clock=clock,
            audit=audit,
            hook=self.hook,
            stopping=lambda: False,
        )
        return Profiler(
            node=NODE,
            dataset=self.dataset,
            engine=self.engine,
            budget=self.budget,
            ledger=self.ledger,
            custody=custody,
            runner=runner,
            audit=audit,
            store=self.store,
            clock=clock,
            hook=self.hook,
        )
