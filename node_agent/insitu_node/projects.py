"""Projects at this node: every grant that asked here, what the custodian decided about it, and the emergency stop.

One SQLite file in the state directory, beside the ledger, so that the commands of the custodian and the running node
see the same at once. Decisions are added, never changed: the newest counts, and the older ones stay to be read.
What is not here: what a decision means (``policy``), and what was spent (``ledger``).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

from insitu_access.grant import Grant, read_grant
from insitu_access.jose import unverified
from insitu_privacy.errors import ConfigInvalid

from insitu_node.policy import Cap, Decision

FILE_NAME = "projects.sqlite"
_BUSY_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    grant_id TEXT NOT NULL, revision INTEGER NOT NULL, token TEXT NOT NULL, first_seen INTEGER NOT NULL,
    PRIMARY KEY (grant_id, revision)
) STRICT;
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY, grant_id TEXT NOT NULL, revision INTEGER NOT NULL, verdict TEXT NOT NULL,
    epsilon TEXT, delta TEXT, reason TEXT NOT NULL, decided_by TEXT NOT NULL, decided_at INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS halts (
    id INTEGER PRIMARY KEY, halted INTEGER NOT NULL, reason TEXT NOT NULL, decided_by TEXT NOT NULL,
    decided_at INTEGER NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A grant that asked here: its newest revision, as its signed token says, and the decisions about it."""

    grant: Grant
    token: str
    first_seen: datetime
    decisions: tuple[Decision, ...]
    """Oldest first."""

    @property
    def decision(self) -> Decision | None:
        """The one that counts."""
        return self.decisions[-1] if self.decisions else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """The emergency stop, or its end."""

    halted: bool
    reason: str
    by: str
    at: datetime


class Projects:
    """The store. Safe from several threads and several processes. Raises ConfigInvalid where it cannot be used."""

    def __init__(self, directory: Path) -> None:
        path = directory / FILE_NAME
        self._lock = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=type(error).__name__) from None

    @contextmanager
    def _held(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            yield self._connection

    def see(self, grant: Grant, token: str, now: datetime) -> None:
        """Keeps a verified grant that asked, for the custodian to look at."""
        with self._held() as connection:
            connection.execute(
                "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (grant.id, grant.revision, token, int(now.timestamp())),
            )

    def decide(self, decision: Decision) -> None:
        """Adds a decision: from now on it counts."""
        cap = decision.cap
        with self._held() as connection:
            connection.execute(
                "INSERT INTO decisions (grant_id, revision, verdict, epsilon, delta, reason, decided_by, decided_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (decision.grant_id, decision.revision, decision.verdict, _text(cap.epsilon), _text(cap.delta),
                 decision.reason, decision.by, int(decision.at.timestamp())),
            )  # fmt: skip

    def decision(self, grant_id: str) -> Decision | None:
        """The decision that counts."""
        found = self._decisions(grant_id)
        return found[-1] if found else None

    def all(self) -> tuple[Project, ...]:
        """Every project that asked here or was decided on, in the order first seen."""
        with self._held() as connection:
            rows = connection.execute(
                "SELECT grant_id, token, MIN(first_seen) OVER (PARTITION BY grant_id), revision = MAX(revision) OVER"
                " (PARTITION BY grant_id) FROM seen ORDER BY 3, 1"
            ).fetchall()
        return tuple(
            Project(
                grant=read_grant(unverified(token, "insitu-grant+jwt", "grant")),
                token=token,
                first_seen=_moment(first),
                decisions=self._decisions(grant_id),
            )
            for grant_id, token, first, newest in rows
            if newest
        )

    def _decisions(self, grant_id: str) -> tuple[Decision, ...]:
        with self._held() as connection:
            rows = connection.execute(
                "SELECT grant_id, revision, verdict, epsilon, delta, reason, decided_by, decided_at FROM decisions"
                " WHERE grant_id = ? ORDER BY id",
                (grant_id,),
            ).fetchall()
        return tuple(
            Decision(
                grant_id=row[0],
                revision=row[1],
                verdict=row[2],
                cap=Cap(epsilon=_number(row[3]), delta=_number(row[4])),
                reason=row[5],
                by=row[6],
                at=_moment(row[7]),
            )
            for row in rows
        )

    # -- the emergency stop ----------------------------------------------------------------------------------------

    def set_halt(self, halt: Halt) -> None:
        """Halts the node, or lets it go on."""
        with self._held() as connection:
            connection.execute(
                "INSERT INTO halts (halted, reason, decided_by, decided_at) VALUES (?, ?, ?, ?)",
                (int(halt.halted), halt.reason, halt.by, int(halt.at.timestamp())),
            )

    def halt(self) -> Halt | None:
        """The halt that counts; None where there never was one."""
        with self._held() as connection:
            row = connection.execute(
                "SELECT halted, reason, decided_by, decided_at FROM halts ORDER BY id DESC LIMIT 1"
            ).fetchone()
        return None if row is None else Halt(halted=bool(row[0]), reason=row[1], by=row[2], at=_moment(row[3]))

    def halted(self) -> bool:
        """C1: whether nothing is answered."""
        halt = self.halt()
        return halt is not None and halt.halted

    def close(self) -> None:
        """Gives back the file."""
        with self._held() as connection:
            connection.close()


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _text(value: Fraction | None) -> str | None:
    return None if value is None else str(value)


def _number(text: str | None) -> Fraction | None:
    return None if text is None else Fraction(text)
