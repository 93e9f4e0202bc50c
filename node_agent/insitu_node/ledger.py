"""The privacy ledger: what each project has spent at this node. Vocabulary, rules and the store's interface; no I/O.

A *charge* is one run of one plan. It is written before data is read, it is never taken back, and it has one life:

    (nothing) --reserve--> reserved --commit--> released
                                    --fail----> failed

The rules, which every store keeps in one transaction each:

L1  A request id names one request for ever: the same id with other bytes is refused.
L2  A request that was seen before gets its own charge again, whatever became of it.
L3  The same canonical query (grant, dataset, plan digest) joins the charge that is reserved or released, free.
    A failed charge is spent and joined by nobody: to ask again is to be charged again.
L4  A new charge is admitted by the filter on the totals it would lead to, or nothing is written.
L5  Values are committed once. Whoever commits second is handed what the first one stored, so that two noisy answers
    never leave for one charge, however many processes ran it.

A charge that stays reserved belongs to a run that is under way or that a crash cut off: nothing has left the node, so
``resumed`` may run it again. Keeping two runs in one process from doing so at the same time is ``cycle``'s business.
What is not here: the durable store (``ledger_sqlite``), and the filter itself (``insitu_privacy.accounting``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from types import MappingProxyType
from typing import Literal, Protocol

from insitu_privacy.accounting import Grantable, Spent, admits, charge, delta_of, epsilon_of
from insitu_privacy.errors import AccessRefused, BudgetRefused
from insitu_privacy.plan import Loss, ReleasedValues

State = Literal["reserved", "released", "failed"]
Act = Literal["reserve", "commit", "fail"]
Kind = Literal["new", "resumed", "replayed", "failed"]

PROFILES = "(profile)"
"""The account of profiles, in place of a grant's id: no grant can be called so (``insitu_access.invariants``)."""

TRANSITIONS: Mapping[tuple[State | None, Act], State] = MappingProxyType(
    {
        (None, "reserve"): "reserved",
        ("reserved", "commit"): "released",
        ("reserved", "fail"): "failed",
        ("released", "commit"): "released",  # L5: the first values stay
        ("failed", "fail"): "failed",
    }
)
"""The life of a charge. A pair that is missing here is an error."""

_KIND: Mapping[State, Kind] = MappingProxyType({"reserved": "resumed", "released": "replayed", "failed": "failed"})


class LedgerFault(Exception):
    """The ledger was asked for what its rules do not allow, or does not hold what it must. Nothing is answered."""


def after(state: State | None, act: Act) -> State:
    """The state after an act. Raises LedgerFault where the table has none."""
    try:
        return TRANSITIONS[state, act]
    except KeyError:
        raise LedgerFault(f"a charge that is {state} cannot {act}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a verified request wants charged."""

    request_id: str
    request_sha256: str
    grant_id: str
    budget: Grantable
    dataset: str
    plan_digest: str
    loss: Loss

    @property
    def key(self) -> tuple[str, str, str]:
        """The canonical query: equal keys share one charge."""
        return self.grant_id, self.dataset, self.plan_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A charge as the ledger holds it. ``request_id`` is the request that caused it."""

    id: int
    request_id: str
    state: State
    values: tuple[ReleasedValues, ...] | None

    def __post_init__(self) -> None:
        if (self.values is not None) != (self.state == "released"):
            raise LedgerFault("a charge holds values exactly when it is released")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """The charge that a request got. ``new`` and ``resumed`` are to be run, the others only answered.

    ``replayed`` holds the stored values; ``first`` says whether this very request caused the charge.
    """

    charge_id: int
    kind: Kind
    first: bool
    values: tuple[ReleasedValues, ...] | None = None

    @property
    def to_run(self) -> bool:
        """Whether data is to be read for it."""
        return self.kind in ("new", "resumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What one grant has spent on one dataset. Epsilon and delta are as computed when the last charge was made."""

    grant_id: str
    dataset: str
    spent: Spent
    epsilon: Fraction
    delta: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One charge, for the custodian's eyes: who, when, at what cost, and what became of it."""

    charge_id: int
    grant_id: str
    dataset: str
    plan_digest: str
    request_ids: tuple[str, ...]
    state: State
    loss: Loss
    account_epsilon: Fraction
    """What the account amounted to after this charge."""
    account_delta: Fraction
    reserved_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """A request id that the ledger knows, with the hash of its bytes and its charge."""

    request_sha256: str
    charge: Charge


class Ledger(Protocol):
    """A store of charges. Every method is one transaction, safe from several threads and several processes."""

    def find(self, ask: Ask) -> Reservation | None:
        """What ``reserve`` would give without a new charge (rules L1 to L3), or None. Writes nothing."""

    def reserve(self, ask: Ask, now: datetime) -> Reservation:
        """Rules L1 to L4. Raises AccessRefused or BudgetRefused, and has then written nothing."""

    def commit(
        self, reservation: Reservation, values: tuple[ReleasedValues, ...], now: datetime
    ) -> tuple[ReleasedValues, ...]:
        """Rule L5: stores the values durably and returns those that are to leave the node."""

    def fail(self, reservation: Reservation, now: datetime) -> None:
        """Closes a charge whose run failed after data may have been read. It stays spent."""

    def statement(self, grant_id: str) -> tuple[Account, ...]:
        """The accounts of a grant that have been charged, sorted by dataset."""

    def charged_since(self, grant_id: str, since: datetime) -> tuple[datetime, ...]:
        """When the grant's charges after ``since`` were made."""

    def entries(self) -> tuple[LedgerEntry, ...]:
        """Every charge in the order made."""

    def close(self) -> None:
        """Gives back what the store holds open."""


def recall(ask: Ask, seen: SeenRequest | None, twin: Charge | None) -> Reservation | None:
    """Rules L1 to L3: the charge this request already has or joins, or None where it needs a new one."""
    if seen is not None:
        if seen.request_sha256 != ask.request_sha256:
            raise AccessRefused("INSITU-ACCESS-REPLAY")
        return _reservation(seen.charge, ask)
    return None if twin is None else _reservation(twin, ask)


def _reservation(known: Charge, ask: Ask) -> Reservation:
    return Reservation(
        charge_id=known.id, kind=_KIND[known.state], first=known.request_id == ask.request_id, values=known.values
    )


def charged(ask: Ask, spent: Spent) -> Account:
    """Rule L4: the account after this charge. Raises BudgetRefused where the filter does not admit it."""
    total = charge(spent, ask.loss)
    if not admits(ask.budget, total):
        raise BudgetRefused("INSITU-BUDGET-EXCEEDED")
    return Account(
        grant_id=ask.grant_id,
        dataset=ask.dataset,
        spent=total,
        epsilon=epsilon_of(ask.budget, total),
        delta=delta_of(ask.budget, total),
    )
