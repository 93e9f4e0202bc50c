"""A ``Ledger`` in memory, behind the same rules as the durable one. For tests of what stands on a ledger."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from datetime import datetime

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
from insitu_privacy.accounting import ZERO_SPENT
from insitu_privacy.plan import ReleasedValues


@dataclass
class _Row:
    charge: Charge
    ask: Ask
    account: Account
    request_ids: list[str]
    reserved_at: datetime
    settled_at: datetime | None = None


class MemoryLedger:
    """Dictionaries under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: list[_Row] = []
        self._requests: dict[str, tuple[str, int]] = {}
        self._accounts: dict[tuple[str, str], Account] = {}

    def find(self, ask: Ask) -> Reservation | None:
        with self._lock:
            return recall(ask, self._seen(ask.request_id), self._twin(ask))

    def reserve(self, ask: Ask, now: datetime) -> Reservation:
        with self._lock:
            known = recall(ask, self._seen(ask.request_id), self._twin(ask))
            if known is None:
                known = self._charge_anew(ask, now)
            if ask.request_id not in self._requests:
                self._requests[ask.request_id] = (ask.request_sha256, known.charge_id)
                self._rows[known.charge_id].request_ids.append(ask.request_id)
            return known

    def _charge_anew(self, ask: Ask, now: datetime) -> Reservation:
        key = ask.grant_id, ask.dataset
        held = self._accounts.get(key)
        account = charged(ask, ZERO_SPENT if held is None else held.spent)
        charge = Charge(id=len(self._rows), request_id=ask.request_id, state=after(None, "reserve"), values=None)
        self._rows.append(_Row(charge, ask, account, [], now))
        self._accounts[key] = account
        return Reservation(charge_id=charge.id, kind="new", first=True)

    def _seen(self, request_id: str) -> SeenRequest | None:
        if request_id not in self._requests:
            return None
        sha, charge_id = self._requests[request_id]
        return SeenRequest(request_sha256=sha, charge=self._rows[charge_id].charge)

    def _twin(self, ask: Ask) -> Charge | None:
        for row in self._rows:
            if row.ask.key == ask.key and row.charge.state != "failed":
                return row.charge
        return None

    def commit(
        self, reservation: Reservation, values: tuple[ReleasedValues, ...], now: datetime
    ) -> tuple[ReleasedValues, ...]:
        with self._lock:
            row = self._row(reservation)
            state = after(row.charge.state, "commit")
            if row.charge.values is not None:
                return row.charge.values
            row.charge, row.settled_at = replace(row.charge, state=state, values=values), now
            return values

    def fail(self, reservation: Reservation, now: datetime) -> None:
        with self._lock:
            row = self._row(reservation)
            state = after(row.charge.state, "fail")
            if state != row.charge.state:
                row.charge, row.settled_at = replace(row.charge, state=state), now

    def _row(self, reservation: Reservation) -> _Row:
        if not 0 <= reservation.charge_id < len(self._rows):
            raise LedgerFault("no such charge")
        return self._rows[reservation.charge_id]

    def statement(self, grant_id: str) -> tuple[Account, ...]:
        with self._lock:
            return tuple(self._accounts[key] for key in sorted(self._accounts) if key[0] == grant_id)

    def charged_since(self, grant_id: str, since: datetime) -> tuple[datetime, ...]:
        with self._lock:
            mine = [row.reserved_at for row in self._rows if row.ask.grant_id == grant_id]
        return tuple(moment for moment in mine if moment > since)

    def entries(self) -> tuple[LedgerEntry, ...]:
        with self._lock:
            return tuple(_entry(row) for row in self._rows)

    def close(self) -> None:
        """Nothing is held open."""


def _entry(row: _Row) -> LedgerEntry:
    return LedgerEntry(
        charge_id=row.charge.id,
        grant_id=row.ask.grant_id,
        dataset=row.ask.dataset,
        plan_digest=row.ask.plan_digest,
        request_ids=tuple(row.request_ids),
        state=row.charge.state,
        loss=row.ask.loss,
        account_epsilon=row.account.epsilon,
        account_delta=row.account.delta,
        reserved_at=row.reserved_at,
        settled_at=row.settled_at,
    )
