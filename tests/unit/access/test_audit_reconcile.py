"""What each party could leave out, and that it shows; and what is no omission, and is not called one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Entry, Party
from insitu_access.audit.kinds import check_entry
from insitu_access.audit.reconcile import Books, Reconciled, reconcile
from insitu_access.audit.trail import Answered, Receipt, Trail, trail_of
from insitu_access.keys import generate_signing_key

from tests.testkit.audit_logs import chained

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = generate_signing_key()
A, B, GRANT, MANIFEST = "a" * 32, "b" * 32, "9" * 64, "7" * 64
OUTCOMES = {("lille", A): "1" * 64, ("rennes", A): "2" * 64, ("lille", B): "3" * 64, ("rennes", B): "4" * 64}
BYTES = {A: "5" * 64, B: "6" * 64}
NODES = ("lille", "rennes")


def entry(kind: str, at: datetime, **fields: object) -> Entry:
    return Entry(seq=1, at=at, kind=kind, previous="0" * 64, fields=fields)


def begun(role: str, name: str) -> Entry:
    return entry("log-begun", NOON, role=role, id=name, key=KEY.thumbprint)


def node_log(node: str) -> list[Entry]:
    at = NOON + timedelta(minutes=10)
    said = [
        begun("node", node),
        entry("node-started", NOON, software="s", config_sha256="0" * 64, key="k", manifest_version=1,
              manifest_sha256=MANIFEST, datasets={}, charges=0, open_charges=[]),
    ]  # fmt: skip
    for number, request in enumerate((A, B), 1):
        own = {"request_id": request, "request_sha256": BYTES[request]}
        said += [
            entry("request-received", at, **own, grant_sha256=GRANT, claimed_grant=None, claimed_researcher=None),
            entry("request-admitted", at, **own, grant_id="g", grant_sha256=GRANT, project="p", purpose="w",
                  reference="r", researcher="ada", dataset="care", plan_digest="8" * 64),
            entry("charge-reserved", at, charge=number, request_id=request, grant_id="g", dataset="care",
                  plan_digest="8" * 64, epsilon="1/2", delta="0", rho="1/8", threshold_delta="0", pure=None,
                  grant_expires=None, derived=False),
            entry("answered", at, **own, outcome="released", code=None, outcome_sha256=OUTCOMES[node, request],
                  replayed=False, spent_epsilon="1/2", spent_delta="0"),
        ]  # fmt: skip
    return [*said, entry("seal", NOON + timedelta(hours=1))]


def gateway_log() -> list[Entry]:
    at = NOON + timedelta(minutes=10, seconds=30)
    said = [begun("gateway", "gw")]
    for request in (A, B):
        said.append(
            entry("request-accepted", at, request_id=request, request_sha256=BYTES[request], grant_id="g",
                  grant_sha256=GRANT, owner="ada", nodes=list(NODES), resumed=False)
        )  # fmt: skip
        said += [
            entry("outcome-received", at, request_id=request, node=node, status="released", code=None,
                  outcome_sha256=OUTCOMES[node, request])
            for node in NODES
        ]  # fmt: skip
        outcomes = dict.fromkeys(NODES, "released")
        said.append(entry("request-finished", at, request_id=request, outcomes=outcomes, result_sha256=None))
    return [*said, entry("seal", NOON + timedelta(hours=1))]


def authority_log() -> list[Entry]:
    issued = {"project": "p", "purpose": "w", "reference": "r", "researchers": [], "nodes": [], "datasets": []}
    return [
        begun("authority", "demo"),
        entry("manifest-published", NOON, version=1, sha256=MANIFEST, revoked=[], suspended=[], derived=False),
        entry("grant-issued", NOON, grant_id="g", revision=1, sha256=GRANT, **issued, epsilon="1", delta="0", expires=0,
              derived=False),
        entry("seal", NOON + timedelta(hours=1)),
    ]  # fmt: skip


def receipt(request: str, **changes: object) -> Receipt:
    outcomes = {
        node: Answered(sha256=OUTCOMES[node, request], released=True, replayed=False, spent_epsilon=Fraction(1, 2))
        for node in NODES
    }
    made = Receipt(
        name=f"{request[0]}.json", request_id=request, request_sha256=BYTES[request], grant_id="g", grant_sha256=GRANT,
        manifest_version=1, manifest_sha256=MANIFEST, at=NOON + timedelta(minutes=10, seconds=29), outcomes=outcomes,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


@dataclass
class Federation:
    """All logs as they are when everybody tells everything; a test leaves something out, or says it otherwise."""

    logs: dict[str, list[Entry]] = field(
        default_factory=lambda: {
            "lille": node_log("lille"), "rennes": node_log("rennes"), "gw": gateway_log(), "demo": authority_log(),
        }
    )  # fmt: skip
    receipts: list[Receipt] = field(default_factory=lambda: [receipt(A), receipt(B)])

    def omit(self, log: str, when: Callable[[Entry], bool]) -> None:
        before = len(self.logs[log])
        self.logs[log] = [one for one in self.logs[log] if not when(one)]
        assert len(self.logs[log]) < before

    def say(self, log: str, kind: str, **fields: object) -> None:
        self.logs[log] = [
            replace(one, fields={**one.fields, **fields}) if one.kind == kind else one for one in self.logs[log]
        ]

    def trail(self, log: str) -> Trail:
        role = "gateway" if log == "gw" else "authority" if log == "demo" else "node"
        party = Party(role=role, id=log)
        for one in self.logs[log]:
            if one.kind != "seal":
                check_entry(role, one.kind, one.fields, None)
        report, entries = check_lines(chained(party, KEY, self.logs[log]), party, [KEY.public()])
        assert report.holds, report.findings
        return trail_of(report, entries)

    def reconcile(self) -> Reconciled:
        nodes = {node: self.trail(node) for node in NODES if node in self.logs}
        gateways = [self.trail("gw")] if "gw" in self.logs else []
        authority = self.trail("demo") if "demo" in self.logs else None
        return reconcile(Books(nodes=nodes, gateways=gateways, authority=authority, receipts=self.receipts))

    def found(self) -> set[tuple[str, str, str]]:
        return {(one.code, one.about, one.party) for one in self.reconcile().discrepancies}


@pytest.fixture
def federation() -> Federation:
    return Federation()


def of(request: str, *kinds: str) -> Callable[[Entry], bool]:
    return lambda one: one.fields.get("request_id") == request and (not kinds or one.kind in kinds)


def test_logs_that_tell_all_agree(federation: Federation) -> None:
    done = federation.reconcile()
    assert done.discrepancies == []
    assert (done.compared > 20, done.not_compared) == (True, 0)


@pytest.mark.attacks("E11")
def test_a_node_that_hides_a_request_is_found_by_receipt_and_gateway(federation: Federation) -> None:
    federation.omit("lille", of(A))
    assert federation.found() == {("receipt-not-at-node", A, "lille"), ("outcome-not-at-node", A, "lille")}


def test_a_node_that_hides_a_request_is_found_without_receipts(federation: Federation) -> None:
    federation.omit("lille", of(A))
    federation.receipts = []
    assert federation.found() == {("outcome-not-at-node", A, "lille")}


def test_a_node_that_hides_a_charge_is_found(federation: Federation) -> None:
    federation.omit("rennes", of(B, "charge-reserved"))
    assert federation.found() == {("charge-missing", B, "rennes")}


@pytest.mark.attacks("E11")
def test_a_node_that_writes_a_smaller_charge_is_found(federation: Federation) -> None:
    federation.say("rennes", "charge-reserved", epsilon="1/4")
    assert federation.found() == {("charge-differs", request, "rennes") for request in (A, B)}


@pytest.mark.attacks("E11")
def test_a_gateway_that_hides_a_request_is_found_by_nodes_and_receipt(federation: Federation) -> None:
    federation.omit("gw", of(A))
    assert federation.found() == {("receipt-not-at-gateway", A, "gw"), ("request-not-at-gateway", A, "gw")}
    federation.receipts = []
    assert federation.found() == {("request-not-at-gateway", A, "gw")}


@pytest.mark.attacks("E11")
def test_node_and_gateway_that_hide_a_request_alike_are_found_by_the_receipt(federation: Federation) -> None:
    for log in ("gw", *NODES):
        federation.omit(log, of(A))
    assert {code for code, _, _ in federation.found()} == {"receipt-not-at-gateway", "receipt-not-at-node"}
    federation.receipts = [receipt(B)]
    assert federation.found() == set()  # nobody is left who tells


def test_an_outcome_that_a_gateway_hides_is_found_by_the_receipt(federation: Federation) -> None:
    federation.omit("gw", lambda one: of(A, "outcome-received")(one) and one.fields["node"] == "lille")
    assert federation.found() == {("outcome-not-at-gateway", A, "gw")}


@pytest.mark.attacks("E11")
def test_a_gateway_that_says_absent_of_a_node_that_answered_is_found(federation: Federation) -> None:
    federation.receipts = []
    federation.omit("gw", lambda one: of(A, "outcome-received")(one) and one.fields["node"] == "lille")
    federation.say("gw", "request-finished", outcomes={"lille": "absent", "rennes": "released"})
    assert federation.found() == {("answer-withheld", A, "gw")}


def test_an_outcome_that_a_gateway_made_up_is_found(federation: Federation) -> None:
    federation.say("gw", "outcome-received", node="lille", outcome_sha256="e" * 64)
    federation.receipts = []
    assert {("outcome-not-at-node", request, "lille") for request in (A, B)} <= federation.found()


def test_one_request_id_over_two_texts_is_found(federation: Federation) -> None:
    federation.receipts = [receipt(A, request_sha256="e" * 64), receipt(B)]
    assert [(code, about) for code, about, _ in federation.found()] == [("other-bytes", A)]


def test_a_grant_that_was_never_issued_is_found(federation: Federation) -> None:
    federation.omit("demo", lambda one: one.kind == "grant-issued")
    assert {(code, about) for code, about, _ in federation.found()} == {("grant-unknown", "g")}


def test_another_text_of_a_grant_is_found(federation: Federation) -> None:
    federation.say("demo", "grant-issued", sha256="e" * 64)
    assert {(code, about) for code, about, _ in federation.found()} == {("grant-differs", "g")}


@pytest.mark.parametrize("how", ["revoked", "suspended"])
def test_a_request_admitted_after_its_revocation_arrived_is_found(federation: Federation, how: str) -> None:
    lists = {"revoked": [], "suspended": [], how: ["g"]}
    federation.logs["demo"][2:2] = [
        entry("manifest-published", NOON, version=2, sha256="e" * 64, **lists, derived=False)
    ]
    at = NOON + timedelta(minutes=9)
    federation.logs["lille"][2:2] = [entry("manifest-accepted", at, version=2, sha256="e" * 64)]
    assert federation.found() == {("grant-revoked", "g", "lille")}


@pytest.mark.parametrize("where", ["lille", "receipt"])
def test_two_manifests_of_one_version_are_found(federation: Federation, where: str) -> None:
    if where == "lille":
        federation.say("lille", "node-started", manifest_sha256="e" * 64)
    else:
        federation.receipts = [receipt(A, manifest_sha256="e" * 64)]
    assert {(code, about) for code, about, _ in federation.found()} == {("manifest-differs", "version 1")}


def test_a_request_after_a_copy_was_made_is_no_omission(federation: Federation) -> None:
    """The node's copy is of noon; what came later is not asked of it, and is counted."""
    federation.logs["lille"] = [*federation.logs["lille"][:2], entry("seal", NOON + timedelta(minutes=1))]
    done = federation.reconcile()
    assert done.discrepancies == []
    assert done.not_compared >= 4


def test_a_minute_that_a_copy_may_lie_in_is_not_judged(federation: Federation) -> None:
    """A node's times are minutes: a request of 12:10 may lie before or after a gateway's copy of 12:10:20."""
    federation.receipts = []
    federation.logs["gw"] = [begun("gateway", "gw"), entry("seal", NOON + timedelta(minutes=10, seconds=20))]
    assert federation.found() == set()
    federation.logs["gw"] = [begun("gateway", "gw"), entry("seal", NOON + timedelta(minutes=11))]
    assert {code for code, _, _ in federation.found()} == {"request-not-at-gateway"}


def test_days_that_retention_dropped_are_not_asked_for(federation: Federation) -> None:
    trail = federation.trail("lille")
    late = replace(trail.span, begins=NOON + timedelta(minutes=30), whole=False)
    shorter = Trail(party="lille", span=late, first=9)
    done = reconcile(Books(nodes={"lille": shorter}, gateways=[federation.trail("gw")], receipts=[receipt(A)]))
    assert done.discrepancies == []
    assert done.not_compared > 0


def test_a_party_that_hands_in_no_log_is_not_accused(federation: Federation) -> None:
    for log in ("rennes", "gw", "demo"):
        del federation.logs[log]
    assert federation.found() == set()
    federation.omit("lille", of(A))
    assert federation.found() == {("receipt-not-at-node", A, "lille")}
