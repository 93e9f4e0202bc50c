"""The store in SQLite: one file, write-ahead log, every commit on the disk before ``write`` returns.

One transaction and so one fsync for each batch, however many requests are in it. Opening the same file twice for
writing is prevented by the lock on the state directory (``server``). Deleting old requests is not done here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from insitu_privacy.errors import ConfigInvalid
from insitu_proto.messages import NodeOutcome

from insitu_gateway.store import AddOutcome, AddRequest, DropProfile, Finish, KeepProfile, Stored, Write

SCHEMA_VERSION = 2
_SCHEMA_1 = """
CREATE TABLE requests (
  request_id     TEXT PRIMARY KEY,
  request_sha256 TEXT NOT NULL,
  owner          TEXT NOT NULL,
  request_jws    TEXT NOT NULL,
  grant_jwt      TEXT NOT NULL,
  nodes          TEXT NOT NULL,     -- JSON list, in the request's order
  deadline       INTEGER NOT NULL,  -- Unix microseconds, as all times here
  accepted_at    INTEGER NOT NULL,
  finished_at    INTEGER,
  result_json    BLOB
) STRICT;
CREATE INDEX open_requests ON requests (accepted_at) WHERE finished_at IS NULL;
CREATE TABLE outcomes (
  request_id  TEXT NOT NULL REFERENCES requests,
  node_id     TEXT NOT NULL,
  status      TEXT NOT NULL CHECK (status IN ('released', 'refused', 'absent', 'failed')),
  code        TEXT,
  text        TEXT,
  remedy      TEXT,
  outcome_jws TEXT,
  PRIMARY KEY (request_id, node_id)
) STRICT;
"""
_SCHEMA_2 = """
CREATE TABLE profiles (
  node_id        TEXT NOT NULL,
  dataset_digest TEXT NOT NULL,
  serial         INTEGER NOT NULL,
  profile_jws    TEXT NOT NULL,
  PRIMARY KEY (dataset_digest, node_id)
) STRICT;
"""
_SCHEMAS = (_SCHEMA_1, _SCHEMA_2)
"""What each version adds to the one before."""
_KEEP_PROFILE = """
INSERT INTO profiles (node_id, dataset_digest, serial, profile_jws) VALUES (?, ?, ?, ?)
ON CONFLICT (dataset_digest, node_id) DO UPDATE SET serial = excluded.serial, profile_jws = excluded.profile_jws
WHERE excluded.serial >= serial
"""
_DROP_PROFILE = "DELETE FROM profiles WHERE node_id = ? AND dataset_digest = ? AND profile_jws = ?"
_PROFILES = """
SELECT node_id, dataset_digest, serial, profile_jws FROM profiles WHERE dataset_digest = ? ORDER BY node_id
"""
_INSERT_REQUEST = """
INSERT INTO requests (request_id, request_sha256, owner, request_jws, grant_jwt, nodes, deadline, accepted_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (request_id) DO NOTHING
"""
_INSERT_OUTCOME = """
INSERT INTO outcomes (request_id, node_id, status, code, text, remedy, outcome_jws)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (request_id, node_id) DO NOTHING
"""
_FINISH = "UPDATE requests SET finished_at = ?, result_json = ? WHERE request_id = ? AND finished_at IS NULL"
_OUTCOMES = "SELECT node_id, status, code, text, remedy, outcome_jws FROM outcomes WHERE request_id = ?"


class SqliteStore:
    """A store in one SQLite file. Any thread may use it, one at a time."""

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate(path)
        except sqlite3.Error as error:
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=f"SQLite says {error}") from error

    def _migrate(self, path: Path) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if 0 <= version < SCHEMA_VERSION:
            added = "".join(_SCHEMAS[version:])
            self._connection.executescript(f"BEGIN; {added} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
        elif version != SCHEMA_VERSION:
            raise ConfigInvalid(
                "INSITU-CONFIG-STATE",
                reason=f"{path} has schema version {version}, this insitu-gateway knows {SCHEMA_VERSION}",
                hint="Run the insitu-gateway that wrote it, or a newer one.",
            )

    def write(self, batch: Sequence[Write]) -> frozenset[str]:
        """One transaction; see ``Store``."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            known = frozenset(name for write in batch if (name := self._write(write)) is not None)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
        return known

    def _write(self, write: Write) -> str | None:
        match write:
            case AddRequest():
                return None if self._add_request(write) else write.request_id
            case AddOutcome():
                self._add_outcomes(write.request_id, [write.outcome])
            case Finish():
                self._finish(write)
            case KeepProfile():
                row = (write.node_id, write.dataset_digest, write.serial, write.profile_jws)
                self._connection.execute(_KEEP_PROFILE, row)
            case DropProfile():
                kept = write.profile
                self._connection.execute(_DROP_PROFILE, (kept.node_id, kept.dataset_digest, kept.profile_jws))
        return None

    def _add_request(self, write: AddRequest) -> bool:
        row = (
            write.request_id,
            write.request_sha256,
            write.owner,
            write.request_jws,
            write.grant_jwt,
            json.dumps(write.nodes),
            _micros(write.deadline),
            _micros(write.accepted_at),
        )
        return self._connection.execute(_INSERT_REQUEST, row).rowcount == 1

    def _finish(self, write: Finish) -> None:
        row = (_micros(write.finished_at), write.result_json, write.request_id)
        if self._connection.execute(_FINISH, row).rowcount:
            self._add_outcomes(write.request_id, write.outcomes)

    def _add_outcomes(self, request_id: str, outcomes: Iterable[NodeOutcome]) -> None:
        rows = [(request_id, o.node_id, o.status, o.code, o.text, o.remedy, o.outcome_jws) for o in outcomes]
        self._connection.executemany(_INSERT_OUTCOME, rows)

    def find(self, request_id: str) -> Stored | None:
        """One request by its id."""
        found = self._select("WHERE request_id = ?", request_id)
        return found[0] if found else None

    def open_requests(self) -> tuple[Stored, ...]:
        """All that have not finished."""
        return self._select("WHERE finished_at IS NULL ORDER BY accepted_at, request_id")

    def _select(self, condition: str, *values: str) -> tuple[Stored, ...]:
        # the condition is one of the two constants above
        columns = "request_id, request_sha256, owner, request_jws, grant_jwt, nodes, deadline, accepted_at"
        text = f"SELECT {columns}, finished_at, result_json FROM requests {condition}"
        return tuple(map(self._stored, self._connection.execute(text, values).fetchall()))

    def _stored(self, row: tuple[Any, ...]) -> Stored:
        request_id, sha256, owner, jws, grant, nodes, deadline, accepted_at, finished_at, result = row
        request = AddRequest(
            request_id=request_id,
            request_sha256=sha256,
            owner=owner,
            request_jws=jws,
            grant_jwt=grant,
            nodes=tuple(json.loads(nodes)),  # noqa: TID251  our own store
            deadline=_moment(deadline),
            accepted_at=_moment(accepted_at),
        )
        return Stored(
            request=request,
            outcomes=self._outcomes(request),
            result_json=result,
            finished_at=None if finished_at is None else _moment(finished_at),
        )

    def _outcomes(self, request: AddRequest) -> tuple[NodeOutcome, ...]:
        rows = self._connection.execute(_OUTCOMES, (request.request_id,)).fetchall()
        names = ("node_id", "status", "code", "text", "remedy", "outcome_jws")
        found = {row[0]: NodeOutcome(**dict(zip(names, row, strict=True))) for row in rows}
        return tuple(found[node] for node in request.nodes if node in found)

    def profiles(self, dataset_digest: str) -> tuple[KeepProfile, ...]:
        """By node."""
        names = ("node_id", "dataset_digest", "serial", "profile_jws")
        rows = self._connection.execute(_PROFILES, (dataset_digest,)).fetchall()
        return tuple(KeepProfile(**dict(zip(names, row, strict=True))) for row in rows)

    def profiled(self) -> tuple[str, ...]:
        """Their digests."""
        rows = self._connection.execute("SELECT DISTINCT dataset_digest FROM profiles ORDER BY 1").fetchall()
        return tuple(digest for (digest,) in rows)

    def counts(self) -> Mapping[str, int]:
        """Open requests by the partial index; finished ones by the rest."""
        (total,) = self._connection.execute("SELECT count(*) FROM requests").fetchone()
        (pending,) = self._connection.execute("SELECT count(*) FROM requests WHERE finished_at IS NULL").fetchone()
        return {"open": pending, "finished": total - pending}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _micros(moment: datetime) -> int:
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1_000_000 + moment.microsecond


def _moment(micros: int) -> datetime:
    whole, rest = divmod(micros, 1_000_000)
    return datetime.fromtimestamp(whole, UTC).replace(microsecond=rest)
