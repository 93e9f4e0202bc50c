"""What a node writes into its audit log, and when: every request, decision, statement, charge and answer.

The order of one query: ``request-received``, ``request-admitted``, ``charge-reserved`` (after the ledger has it),
``sql-run`` (on the disk before the first row is read), ``charge-settled`` (after the ledger has the values),
``answered`` (on the disk before the answer leaves). Charges stand in the order of the ledger.

What is never written: a value, a count, a duration or a message of a database. So that times do not tell how long a
statement ran, entries of requests bear the minute alone. The node's secret for choosing groups is taken out of the
statements. The SQL stands in details, which a copy for others withholds (``insitu_access.audit.entry``).

The ledger is the authority on the budget. A crash between the ledger and this log leaves the log behind: ``agreement``
says what is missing, and it is written on start as ``derived``. A ledger that lacks a charge the log has was rolled
back: the node does not start (E9).

What is not here: files and seals (``insitu_access.audit.log``).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction

from insitu_access.audit.acts import administered
from insitu_access.audit.entry import Entry, read_line
from insitu_access.audit.files import days, whole_lines
from insitu_access.audit.log import AuditLog, Note
from insitu_access.certificates import country_of
from insitu_access.data_profile import NodeProfile, write_data_profile
from insitu_access.jose import token_sha256, unverified_kid
from insitu_access.payload import seconds_up
from insitu_access.release import BudgetStatement, NodeRelease, Outcome
from insitu_access.request import QueryRequest, peek_request
from insitu_privacy.errors import ConfigInvalid, InsituError
from insitu_privacy.plan import Loss

from insitu_node.admission import AdmittedBudget, AdmittedQuery
from insitu_node.ledger import Ask, Ledger, LedgerEntry, Reservation
from insitu_node.order import Order

_LONGEST_GRANT = timedelta(days=3650)
"""How long a charge counts whose grant's end is not known."""
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_BITS, _FINE = 3300, 10**300
_AGREED = ("node-started", "ledger-agreed")
_CAP_KEY = "<the node's secret>"


class NodeAudit:
    """A node's entries. Each is on the disk on return, unless a method says otherwise; an error holds its act back."""

    def __init__(self, log: AuditLog, *, clock: Callable[[], datetime], cap_key: str) -> None:
        self._log = log
        self._clock = clock
        self._cap_key = cap_key
        self.in_order = Order(log.directory / "order")
        """Held while the ledger and then this log are written: both have the same order."""

    # ------------------------------------------------------------------------------------------------ the node itself

    def started(self, fields: Mapping[str, object]) -> None:
        """The node begins to serve: software, configuration, datasets and manifest by their digests."""
        self._log.record(Note(kind="node-started", fields=fields))
        self._log.seal()

    def stopped(self) -> None:
        """A clean stop; a kill leaves none."""
        self._log.record(Note(kind="node-stopped"))
        self._log.seal()

    def agree(self, ledger: Ledger) -> None:
        """Writes what the log lacks of the ledger, and that they agree now. Raises ConfigInvalid (E9)."""
        with self.in_order:
            held = ledger.entries()
            missing = agreement(since_agreed(_newest_first(self._log)), held)
            self._log.record(*missing, Note(kind="ledger-agreed", fields=agreed_now(held)))

    def manifest_accepted(self, version: int, token: str) -> None:
        self._log.record(Note(kind="manifest-accepted", fields={"version": version, "sha256": token_sha256(token)}))

    def manifest_refused(self, token: str, code: str) -> None:
        self._log.record(Note(kind="manifest-refused", fields={"code": code, "sha256": token_sha256(token)}))

    def gateway_refused(self, address: str, code: str, certificate: bytes) -> None:
        """Who answered at a gateway's address is not talked to."""
        fields = {
            "gateway": address,
            "code": code,
            "certificate_sha256": hashlib.sha256(certificate).hexdigest(),
            "country": country_of(certificate),
        }
        self._log.record(Note(kind="gateway-refused", fields=fields))

    # ------------------------------------------------------------------------------------------------------ one request

    def received(self, request_id: str, request_jws: str, grant_jwt: str) -> None:
        """A task came: not on the disk at once, for nothing follows from it yet. Nothing of it is verified."""
        fields = {
            **_request(request_id, token_sha256(request_jws)),
            "grant_sha256": token_sha256(grant_jwt),
            "claimed_grant": _claimed_grant(request_jws),
            "claimed_researcher": _claimed_researcher(request_jws),
        }
        self._write("request-received", fields, durable=False)

    def admitted(self, admitted: AdmittedQuery | AdmittedBudget, request_jws: str) -> None:
        """Who asks what and why; not on the disk at once."""
        request, grant = admitted.request, admitted.grant
        query = request if isinstance(request, QueryRequest) else None
        fields = {
            **_request(request.request_id, admitted.request_sha256),
            "grant_id": grant.id,
            "grant_sha256": request.grant_sha256,
            "project": grant.project,
            "purpose": grant.purpose,
            "reference": grant.reference,
            "researcher": unverified_kid(request_jws),  # admission has verified it
            "dataset": query.dataset if query else None,
            "plan_digest": query.plan_digest if query else None,
        }
        detail = {"sql": query.sql if query else None, "dialect": query.dialect if query else None}
        self._write("request-admitted", fields, detail if query else None, durable=False)

    def reserved(self, ask: Ask, reservation: Reservation, grant_expires: datetime | None) -> None:
        """The ledger gave a charge; ``running`` puts it on the disk. A profile's budget does not expire."""
        own = {"charge": reservation.charge_id, "request_id": ask.request_id}
        if reservation.kind == "new":
            key = {"grant_id": ask.grant_id, "dataset": ask.dataset, "plan_digest": ask.plan_digest}
            ends = {"grant_expires": grant_expires and seconds_up(grant_expires), "derived": False}
            self._write("charge-reserved", {**own, **key, **_loss(ask.loss), **ends}, durable=False)
        else:
            kind = "charge-resumed" if reservation.to_run else "charge-joined"
            self._write(kind, own, durable=False)

    def running(self, ask: Ask, reservation: Reservation, statements: Sequence[str]) -> None:
        """These statements are about to read data."""
        fields = {"charge": reservation.charge_id, "request_id": ask.request_id, "statements": len(statements)}
        said = [statement.replace(self._cap_key, _CAP_KEY) for statement in statements]
        self._write("sql-run", fields, {"statements": said})

    def settled(self, reservation: Reservation, state: str) -> None:
        """The ledger closed a charge; ``answered`` puts it on the disk."""
        fields = {"charge": reservation.charge_id, "state": state, "derived": False}
        self._write("charge-settled", fields, durable=False)

    def profiling(self, dataset: str, epsilon: Fraction) -> None:
        """The custodian is about to make a profile."""
        administered(self._log, "profile", dataset=dataset, epsilon=str(epsilon))

    def profiled(self, reservation: Reservation, made: NodeProfile) -> None:
        """A profile was made of what the ledger holds, and is about to be kept."""
        fields = {
            "charge": reservation.charge_id,
            "dataset": made.profile.dataset,
            "dataset_digest": made.profile.dataset_digest,
            "serial": made.serial,
            "sha256": hashlib.sha256(write_data_profile(made)).hexdigest(),
        }
        self._write("profile-made", fields)

    def answered(self, outcome: Outcome, token: str) -> None:
        """A sealed outcome is about to leave."""
        released = outcome if isinstance(outcome, NodeRelease) else None
        fields = {
            **_request(outcome.request_id, outcome.request_sha256),
            "outcome": _name(outcome),
            "code": getattr(outcome, "code", None),
            "outcome_sha256": token_sha256(token),
            "replayed": released is not None and released.replayed,
            "spent_epsilon": str(released.spent_epsilon) if released else None,
            "spent_delta": str(released.spent_delta) if released else None,
        }
        self._write("answered", fields)

    def _write(
        self,
        kind: str,
        fields: Mapping[str, object],
        detail: Mapping[str, object] | None = None,
        *,
        durable: bool = True,
    ) -> None:
        minute = self._clock().replace(second=0, microsecond=0)
        self._log.record(Note(kind=kind, fields=fields, detail=detail, at=minute), durable=durable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """What log and ledger had in common when they last agreed: charges up to a number, and those still open."""

    charges: int = 0
    open_charges: frozenset[int] = frozenset()


def agreement(entries: Iterable[Entry], ledger: Sequence[LedgerEntry]) -> list[Note]:
    """The entries that the log lacks of what the ledger holds. ``entries`` reach back to where they agreed.

    Raises ConfigInvalid where the ledger lacks a charge that the log has (E9).
    """
    agreed, reserved, settled = _held(entries)
    known = {entry.charge_id for entry in ledger}
    lost = sorted((reserved | settled | agreed.open_charges | {agreed.charges} - {0}) - known)
    if lost:
        raise ConfigInvalid(
            "INSITU-CONFIG-STATE",
            reason=f"the ledger lacks charge {lost[0]}, which the audit log has: it was rolled back",
            hint="Put the newest ledger back. Without it, ask the authority to revoke the grants and issue new ones.",
        )
    notes = []
    for entry in ledger:
        fresh = entry.charge_id > agreed.charges
        if fresh and entry.charge_id not in reserved:
            notes.append(_derived_charge(entry))
        open_before = fresh or entry.charge_id in agreed.open_charges
        if open_before and entry.state != "reserved" and entry.charge_id not in settled:
            notes.append(_derived_end(entry))
    return notes


def charges_that_differ(
    entries: Iterable[Entry], before: Sequence[LedgerEntry], after: Sequence[LedgerEntry]
) -> Iterator[tuple[int | None, str]]:
    """Where the whole log and the ledger say different things, with the number of the entry that does.

    The ledger was read ``before`` and ``after`` the log, for the node may be at work: what it had before must be in
    the log, but for a charge that was just being written, and what the log has must be in the ledger after.
    """
    known = {entry.charge_id: entry for entry in after}
    logged, begins = set[int](), 0
    for entry in entries:
        begins = begins or entry.seq
        if entry.kind != "charge-reserved":
            continue
        charge = int(str(entry.fields["charge"]))
        logged.add(charge)
        held = known.get(charge)
        if held is None:
            yield entry.seq, f"charge {charge} is not in the ledger: it was rolled back"
        elif any(entry.fields[name] != text for name, text in _loss(held.loss).items()):
            yield entry.seq, f"charge {charge} has another loss in the ledger"
    first = min(logged, default=1) if begins > 1 else 1
    newest = max((entry.charge_id for entry in before), default=0)
    for held in before:
        just_made = held.charge_id == newest and held.state == "reserved"
        if first <= held.charge_id and held.charge_id not in logged and not just_made:
            yield None, f"charge {held.charge_id} of the ledger is not in the log"


def agreed_now(ledger: Sequence[LedgerEntry]) -> Mapping[str, object]:
    """What ``node-started`` and ``ledger-agreed`` say of the ledger."""
    return {
        "charges": max((entry.charge_id for entry in ledger), default=0),
        "open_charges": [entry.charge_id for entry in ledger if entry.state == "reserved"],
    }


def since_agreed(newest_first: Iterable[Entry]) -> list[Entry]:
    """The entries back to where log and ledger last agreed, oldest first."""
    found = []
    for entry in newest_first:
        found.append(entry)
        if entry.kind in _AGREED:
            break
    return found[::-1]


def counts_still(entry: Entry, now: datetime) -> bool:
    """Whether an entry must stay whatever its age: a charge of a grant that can still be used."""
    if entry.kind != "charge-reserved":
        return False
    expires = entry.fields["grant_expires"]
    return now < entry.at + _LONGEST_GRANT if expires is None else now.timestamp() < int(str(expires))


def _newest_first(log: AuditLog) -> Iterator[Entry]:
    for path in reversed(days(log.directory)):
        for line in reversed(whole_lines(path)[0]):
            yield read_line(line)


def _held(entries: Iterable[Entry]) -> tuple[Agreed, set[int], set[int]]:
    agreed, reserved, settled = Agreed(), set[int](), set[int]()
    for entry in entries:
        said: Mapping[str, object] = entry.fields
        if entry.kind in _AGREED:
            still = said["open_charges"]
            assert isinstance(still, list)
            agreed = Agreed(charges=int(str(said["charges"])), open_charges=frozenset(still))
            reserved, settled = set(), set()
        elif entry.kind == "charge-reserved":
            reserved.add(int(str(said["charge"])))
        elif entry.kind == "charge-settled":
            settled.add(int(str(said["charge"])))
    return agreed, reserved, settled


def _derived_charge(entry: LedgerEntry) -> Note:
    fields = {
        "charge": entry.charge_id,
        "request_id": entry.request_ids[0] if entry.request_ids else "-",
        "grant_id": entry.grant_id,
        "dataset": entry.dataset,
        "plan_digest": entry.plan_digest,
        **_loss(entry.loss),
        "grant_expires": None,
        "derived": True,
    }
    return Note(kind="charge-reserved", fields=fields)


def _derived_end(entry: LedgerEntry) -> Note:
    return Note(kind="charge-settled", fields={"charge": entry.charge_id, "state": entry.state, "derived": True})


def _request(request_id: str, request_sha256: str) -> dict[str, object]:
    return {"request_id": request_id, "request_sha256": request_sha256}


def _claimed_grant(request_jws: str) -> str | None:
    try:
        return peek_request(request_jws).grant_id
    except InsituError:
        return None


def _claimed_researcher(request_jws: str) -> str | None:
    kid = unverified_kid(request_jws)
    return kid if kid is not None and _THUMBPRINT.fullmatch(kid) else None


def _loss(loss: Loss) -> dict[str, object]:
    return {
        "epsilon": _text(loss.epsilon),
        "delta": _text(loss.delta),
        "rho": _text(loss.rho),
        "threshold_delta": _text(loss.threshold_delta),
        "pure": None if loss.pure is None else _text(loss.pure),
    }


def _text(value: Fraction) -> str:
    """Exactly; a number too long to be read back is rounded up."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _BITS:
        value = Fraction(-(-value.numerator * _FINE // value.denominator), _FINE)
    return str(value)


def _name(outcome: Outcome) -> str:
    if isinstance(outcome, NodeRelease):
        return "released"
    return "stated" if isinstance(outcome, BudgetStatement) else "refused"
