"""The durable ledger: one SQLite file beside the node, written before data is read.

Every write is one ``BEGIN IMMEDIATE`` transaction, so that reading the totals, deciding and writing them back exclude
all other writers, threads and processes alike; ``synchronous = FULL`` makes it survive a power cut before the caller
goes on. A crash inside a transaction leaves nothing of it. On opening, the totals are added up again from the charges,
and a ledger that does not agree with itself is not served.

What is not here: protection against a custodian who restores yesterday's file. Whoever runs the database of the
patients is trusted with it (docs/threat-model.md); a node's state directory must not be rolled back.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

from insitu_privacy.accounting import ZERO_SPENT, Spent, charge
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.plan import Loss, ReleasedValues

from insitu_node.ledger import (
    Account,
    Ask,
    Charge,
    LedgerEntry,
    LedgerFault,
    Reservation,
    SeenRequest,
    after,
    charged,
    recall,
)
from insitu_node.ledger_codec import fraction, fraction_text, pack_values, unpack_values

_VERSION = 1
_BUSY_SECONDS = 60.0
_BUSY_PAUSE_SECONDS = 0.005

_SCHEMA = f"""
CREATE TABLE accounts (
    grant_id TEXT NOT NULL, dataset TEXT NOT NULL,
    pure TEXT, rho TEXT NOT NULL, delta TEXT NOT NULL,
    epsilon_total TEXT NOT NULL, delta_total TEXT NOT NULL,
    PRIMARY KEY (grant_id, dataset)
) STRICT;
CREATE TABLE charges (
    id INTEGER PRIMARY KEY,
    grant_id TEXT NOT NULL, dataset TEXT NOT NULL, plan_digest TEXT NOT NULL,
    request_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('reserved', 'released', 'failed')),
    epsilon TEXT NOT NULL, delta TEXT NOT NULL, rho TEXT NOT NULL, threshold_delta TEXT NOT NULL, pure TEXT,
    epsilon_total TEXT NOT NULL, delta_total TEXT NOT NULL,
    reserved_at INTEGER NOT NULL, settled_at INTEGER,
    released BLOB CHECK ((released IS NOT NULL) = (state = 'released')),
    FOREIGN KEY (grant_id, dataset) REFERENCES accounts
) STRICT;
CREATE UNIQUE INDEX one_open_charge_per_query ON charges (grant_id, dataset, plan_digest) WHERE state <> 'failed';
CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    request_sha256 TEXT NOT NULL,
    charge_id INTEGER NOT NULL REFERENCES charges
) STRICT;
CREATE INDEX requests_of_a_charge ON requests (charge_id);
PRAGMA user_version = {_VERSION};
"""


class SqliteLedger:
    """A ``Ledger`` in one SQLite file, which is made where there is none, readable by its owner alone.

    Raises ConfigInvalid where the file is not a ledger, is of another version, or does not add up.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigInvalid("INSITU-CONFIG-FILE", path=path, reason=type(error).__name__) from None
        try:
            self._prepare()
        except (sqlite3.Error, LedgerFault, ValueError) as error:
            self._connection.close()
            raise ConfigInvalid(
                "INSITU-CONFIG-STATE",
                reason=f"the ledger {path} cannot be used ({type(error).__name__})",
                hint="Do not delete it: it holds what was spent. Restore the newest intact copy, or ask for help.",
            ) from None

    def _prepare(self) -> None:
        self._write_ahead()
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        with self._transaction() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _SCHEMA.split(";\n"):
                    connection.execute(statement)
            elif version != _VERSION:
                raise LedgerFault(f"the ledger is of version {version}")
            _check_totals(connection)

    def _write_ahead(self) -> None:
        """Switches the file to a write-ahead log. SQLite does not wait for a process that is doing the same."""
        patience = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                    raise
            time.sleep(_BUSY_PAUSE_SECONDS)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One writer at a time, in this process and outside it; all or nothing."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def find(self, ask: Ask) -> Reservation | None:
        with self._lock:
            return recall(ask, _seen(self._connection, ask.request_id), _twin(self._connection, ask))

    def reserve(self, ask: Ask, now: datetime) -> Reservation:
        with self._transaction() as connection:
            known = recall(ask, _seen(connection, ask.request_id), _twin(connection, ask))
            if known is None:
                account = charged(ask, _spent(connection, ask.grant_id, ask.dataset))
                charge_id = _write_charge(connection, ask, account, now)
                known = Reservation(charge_id=charge_id, kind="new", first=True)
            connection.execute(
                "INSERT INTO requests VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (ask.request_id, ask.request_sha256, known.charge_id),
            )
            return known

    def commit(
        self, reservation: Reservation, values: tuple[ReleasedValues, ...], now: datetime
    ) -> tuple[ReleasedValues, ...]:
        with self._transaction() as connection:
            found = _charge(connection, reservation.charge_id)
            after(found.state, "commit")
            if found.values is not None:
                return found.values
            connection.execute(
                "UPDATE charges SET state = 'released', released = ?, settled_at = ? WHERE id = ?",
                (pack_values(values), int(now.timestamp()), found.id),
            )
            return values

    def fail(self, reservation: Reservation, now: datetime) -> None:
        with self._transaction() as connection:
            found = _charge(connection, reservation.charge_id)
            if after(found.state, "fail") != found.state:
                connection.execute(
                    "UPDATE charges SET state = 'failed', settled_at = ? WHERE id = ?",
                    (int(now.timestamp()), found.id),
                )

    def statement(self, grant_id: str) -> tuple[Account, ...]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT grant_id, dataset, pure, rho, delta, epsilon_total, delta_total FROM accounts"
                " WHERE grant_id = ? ORDER BY dataset",
                (grant_id,),
            ).fetchall()
        return tuple(_account(row) for row in rows)

    def charged_since(self, grant_id: str, since: datetime) -> tuple[datetime, ...]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT reserved_at FROM charges WHERE grant_id = ? AND reserved_at > ? ORDER BY id",
                (grant_id, int(since.timestamp())),
            ).fetchall()
        return tuple(datetime.fromtimestamp(row[0], UTC) for row in rows)

    def entries(self) -> tuple[LedgerEntry, ...]:
        with self._lock:
            rows = self._connection.execute(
                "SELECT id, grant_id, dataset, plan_digest, state, epsilon, delta, rho, threshold_delta, pure,"
                " epsilon_total, delta_total, reserved_at, settled_at,"
                " (SELECT group_concat(request_id, ' ') FROM requests WHERE charge_id = charges.id)"
                " FROM charges ORDER BY id"
            ).fetchall()
        return tuple(_entry(row) for row in rows)

    def close(self) -> None:
        with self._lock:
            self._connection.close()


def _seen(connection: sqlite3.Connection, request_id: str) -> SeenRequest | None:
    row = connection.execute(
        "SELECT request_sha256, charge_id FROM requests WHERE request_id = ?", (request_id,)
    ).fetchone()
    return None if row is None else SeenRequest(request_sha256=row[0], charge=_charge(connection, row[1]))


def _twin(connection: sqlite3.Connection, ask: Ask) -> Charge | None:
    row = connection.execute(
        "SELECT id FROM charges WHERE grant_id = ? AND dataset = ? AND plan_digest = ? AND state <> 'failed'", ask.key
    ).fetchone()
    return None if row is None else _charge(connection, row[0])


def _charge(connection: sqlite3.Connection, charge_id: int) -> Charge:
    row = connection.execute(
        "SELECT id, request_id, state, released FROM charges WHERE id = ?", (charge_id,)
    ).fetchone()
    if row is None:
        raise LedgerFault("no such charge")
    return Charge(id=row[0], request_id=row[1], state=row[2], values=None if row[3] is None else unpack_values(row[3]))


def _spent(connection: sqlite3.Connection, grant_id: str, dataset: str) -> Spent:
    row = connection.execute(
        "SELECT pure, rho, delta FROM accounts WHERE grant_id = ? AND dataset = ?", (grant_id, dataset)
    ).fetchone()
    return ZERO_SPENT if row is None else _totals(*row)


def _totals(pure: str | None, rho: str, delta: str) -> Spent:
    return Spent(pure=None if pure is None else fraction(pure), rho=fraction(rho), delta=fraction(delta))


def _write_charge(connection: sqlite3.Connection, ask: Ask, account: Account, now: datetime) -> int:
    spent, amounts = account.spent, (fraction_text(account.epsilon), fraction_text(account.delta))
    connection.execute(
        "INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET pure = excluded.pure,"
        " rho = excluded.rho, delta = excluded.delta, epsilon_total = excluded.epsilon_total,"
        " delta_total = excluded.delta_total",
        (ask.grant_id, ask.dataset, _optional(spent.pure), fraction_text(spent.rho), fraction_text(spent.delta),
         *amounts),
    )  # fmt: skip
    loss = ask.loss
    row = connection.execute(
        "INSERT INTO charges (grant_id, dataset, plan_digest, request_id, state, epsilon, delta, rho,"
        " threshold_delta, pure, epsilon_total, delta_total, reserved_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (*ask.key, ask.request_id, after(None, "reserve"), fraction_text(loss.epsilon), fraction_text(loss.delta),
         fraction_text(loss.rho), fraction_text(loss.threshold_delta), _optional(loss.pure), *amounts,
         int(now.timestamp())),
    ).fetchone()  # fmt: skip
    return int(row[0])


def _optional(value: Fraction | None) -> str | None:
    return None if value is None else fraction_text(value)


def _account(row: tuple[Any, ...]) -> Account:
    grant_id, dataset, pure, rho, delta, epsilon_total, delta_total = row
    return Account(
        grant_id=grant_id,
        dataset=dataset,
        spent=_totals(pure, rho, delta),
        epsilon=fraction(epsilon_total),
        delta=fraction(delta_total),
    )


def _entry(row: tuple[Any, ...]) -> LedgerEntry:
    return LedgerEntry(
        charge_id=row[0],
        grant_id=row[1],
        dataset=row[2],
        plan_digest=row[3],
        state=row[4],
        loss=_loss(*row[5:10]),
        account_epsilon=fraction(row[10]),
        account_delta=fraction(row[11]),
        reserved_at=datetime.fromtimestamp(row[12], UTC),
        settled_at=None if row[13] is None else datetime.fromtimestamp(row[13], UTC),
        request_ids=tuple(row[14].split()),
    )


def _loss(epsilon: str, delta: str, rho: str, threshold_delta: str, pure: str | None) -> Loss:
    return Loss(
        epsilon=fraction(epsilon),
        delta=fraction(delta),
        rho=fraction(rho),
        threshold_delta=fraction(threshold_delta),
        pure=None if pure is None else fraction(pure),
    )


def _check_totals(connection: sqlite3.Connection) -> None:
    """Adds every charge up again: an account that says anything else is not believed."""
    totals: dict[tuple[str, str], Spent] = {}
    query = "SELECT grant_id, dataset, epsilon, delta, rho, threshold_delta, pure FROM charges"
    with closing(connection.execute(query)) as rows:
        for grant_id, dataset, *loss in rows:
            key = grant_id, dataset
            totals[key] = charge(totals.get(key, ZERO_SPENT), _loss(*loss))
    held = connection.execute("SELECT grant_id, dataset, pure, rho, delta FROM accounts").fetchall()
    if totals != {(grant_id, dataset): _totals(*spent) for grant_id, dataset, *spent in held}:
        raise LedgerFault("the accounts do not add up to the charges")
