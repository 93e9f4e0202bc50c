"""Holds logs and receipts against each other. Each party could keep silent in its own log; here that shows.

Every check is one function and yields what does not fit, with a stable name:

    receipt-not-at-gateway   a researcher holds an answer that no gateway's log has the request of
    receipt-not-at-node      a researcher holds an answer, signed by a node, that this node's log does not have
    outcome-not-at-node      a gateway got an outcome, from a node, that this node's log does not have
    outcome-not-at-gateway   a researcher holds an outcome that no gateway's log has
    request-not-at-gateway   a node was sent a request that no gateway's log has
    answer-withheld          a node answered, and the gateway told the researcher that it was absent
    other-bytes              one request id, and two requests
    charge-missing           a node released something new without a charge in its log
    charge-differs           the loss that a release tells is not the one in the node's log
    grant-unknown            a request was admitted under a grant that the authority's log has not issued
    grant-differs            ... under another text of it
    grant-revoked            ... after the node had accepted a manifest that revokes or suspends it
    manifest-differs         two texts of one version of the manifest

Only what a log must have, by its ``Span``, is asked of it. Pure. What no comparison shows: what all parties to a
request leave out alike, its researcher's receipt among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from insitu_access.audit.trail import Answered, Event, Receipt, Trail


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """One thing that does not fit."""

    code: str
    about: str
    """A request, a grant or a manifest."""
    party: str
    """Whose log lacks it, or says otherwise."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that is compared. Parties without a log here are not asked."""

    nodes: Mapping[str, Trail]
    gateways: Sequence[Trail]
    authority: Trail | None = None
    receipts: Sequence[Receipt] = ()


@dataclass(slots=True, kw_only=True)
class Reconciled:
    """What was found, and how much could be compared."""

    discrepancies: list[Discrepancy] = field(default_factory=list)
    compared: int = 0
    not_compared: int = 0


def reconcile(books: Books) -> Reconciled:
    """Every check over all of it, each discrepancy once."""
    done = Reconciled()
    checks = (
        _receipts_at_gateways, _receipts_at_nodes, _outcomes_at_nodes, _requests_at_gateways, _withheld, _bytes,
        _charges, _grants, _manifests,
    )  # fmt: skip
    for check in checks:
        for found in check(books, done):
            if found not in done.discrepancies:
                done.discrepancies.append(found)
    return done


def _expects(trails: Sequence[Trail], event: Event, done: Reconciled) -> bool:
    """Whether, all logs together, the event must be in one of them."""
    covered = bool(trails) and all(trail.span.covers(event) for trail in trails)
    if covered:
        done.compared += 1
    else:
        done.not_compared += bool(trails)
    return covered


def _receipts_at_gateways(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    accepted = {event.text("request_id") for trail in books.gateways for event in trail.of("request-accepted")}
    outcomes = {event.text("outcome_sha256") for trail in books.gateways for event in trail.of("outcome-received")}
    gateways = _names(books.gateways)
    for receipt in books.receipts:
        if not _expects(books.gateways, receipt.event, done):
            continue
        if receipt.request_id not in accepted:
            text = f"{receipt.name} is the answer to a request that is not in the gateway's log"
            yield _of("receipt-not-at-gateway", receipt.request_id, gateways, text)
            continue
        for node, answer in receipt.outcomes.items():
            if answer.sha256 not in outcomes:
                text = f"{receipt.name} holds an outcome of {node} that is not in the gateway's log"
                yield _of("outcome-not-at-gateway", receipt.request_id, gateways, text)


def _receipts_at_nodes(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    for receipt in books.receipts:
        for node, answer in receipt.outcomes.items():
            trail = books.nodes.get(node)
            if trail is None or not _expects([trail], receipt.event, done):
                continue
            if answer.sha256 not in _answers(trail):
                text = f"{receipt.name} holds an outcome that {node} signed and that is not in its log"
                yield _of("receipt-not-at-node", receipt.request_id, node, text)
            else:
                yield from _told_loss(receipt, node, answer, trail)


def _told_loss(receipt: Receipt, node: str, answer: Answered, trail: Trail) -> Iterator[Discrepancy]:
    if not answer.released or answer.replayed or answer.spent_epsilon is None:
        return
    for charge in trail.by("charge-reserved", "request_id").get(receipt.request_id, ()):
        if Fraction(charge.text("epsilon")) != answer.spent_epsilon:
            text = f"{receipt.name} tells another loss than the charge in the log of {node}"
            yield _of("charge-differs", receipt.request_id, node, text)


def _outcomes_at_nodes(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    for gateway in books.gateways:
        for event in gateway.of("outcome-received"):
            node = event.text("node")
            trail = books.nodes.get(node)
            if trail is None or not _expects([trail], event, done):
                continue
            if event.text("outcome_sha256") not in _answers(trail):
                text = f"gateway {gateway.party} got an outcome from {node} that is not in its log"
                yield _of("outcome-not-at-node", event.text("request_id"), node, text)


def _requests_at_gateways(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    accepted = {event.text("request_id") for trail in books.gateways for event in trail.of("request-accepted")}
    for node, trail in books.nodes.items():
        for event in trail.of("request-received"):
            if _expects(books.gateways, event, done) and event.text("request_id") not in accepted:
                text = f"{node} was sent a request that is not in the gateway's log"
                yield _of("request-not-at-gateway", event.text("request_id"), _names(books.gateways), text)


def _withheld(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    for gateway in books.gateways:
        came = {(event.text("request_id"), event.text("node")) for event in gateway.of("outcome-received")}
        for event in gateway.of("request-finished"):
            request, outcomes = event.text("request_id"), event.fields["outcomes"]
            assert isinstance(outcomes, Mapping)
            for node in (node for node, status in outcomes.items() if status == "absent" and node in books.nodes):
                answers = books.nodes[node].by("answered", "request_id").get(request, ())
                told = [answer for answer in answers if _expects([gateway], answer, done)]
                if told and (request, node) not in came:
                    text = f"{node} answered, and gateway {gateway.party} told that it was absent"
                    yield _of("answer-withheld", request, gateway.party, text)


def _bytes(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for receipt in books.receipts:
        said[receipt.request_id].setdefault(receipt.request_sha256, receipt.name)
    for gateway in books.gateways:
        for event in gateway.of("request-accepted"):
            said[event.text("request_id")].setdefault(event.text("request_sha256"), f"gateway {gateway.party}")
    for node, trail in books.nodes.items():
        for event in trail.of("request-admitted"):
            said[event.text("request_id")].setdefault(event.text("request_sha256"), node)
    for request, texts in said.items():
        if len(texts) > 1:
            yield _of("other-bytes", request, ", ".join(texts.values()), "they hold other bytes under one request id")


def _charges(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    for node, trail in books.nodes.items():
        charges = trail.by("charge-reserved", "request_id")
        for event in trail.of("answered"):
            if event.fields["outcome"] != "released" or event.fields["replayed"]:
                continue
            done.compared += 1
            request = event.text("request_id")
            own = charges.get(request, [])
            if not own and trail.span.whole:
                yield _of("charge-missing", request, node, f"{node} released it, and its log has no charge for it")
            elif own and Fraction(own[0].text("epsilon")) != Fraction(event.text("spent_epsilon")):
                yield _of("charge-differs", request, node, f"{node} told another loss than it charged")


def _grants(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    if books.authority is None:
        return
    issued = {(event.text("grant_id"), event.text("sha256")) for event in books.authority.of("grant-issued")}
    known = {grant for grant, _ in issued}
    for where, event in _uses(books):
        if not _expects([books.authority], event, done):
            continue
        grant = event.text("grant_id")
        if grant not in known:
            yield _of("grant-unknown", grant, where, f"{where} let a request pass under a grant that was never issued")
        elif (grant, event.text("grant_sha256")) not in issued:
            yield _of("grant-differs", grant, where, f"{where} let a request pass under another text of the grant")
    yield from _revocations(books)


def _uses(books: Books) -> Iterator[tuple[str, Event]]:
    for node, trail in books.nodes.items():
        yield from ((node, event) for event in trail.of("request-admitted"))
    for gateway in books.gateways:
        yield from ((gateway.party, event) for event in gateway.of("request-accepted"))


def _revocations(books: Books) -> Iterator[Discrepancy]:
    assert books.authority is not None
    published = books.authority.of("manifest-published")
    stopped = {event.fields["version"]: _listed(event, "revoked") | _listed(event, "suspended") for event in published}
    for node, trail in books.nodes.items():
        current: frozenset[object] = frozenset()
        for event in trail.of("node-started", "manifest-accepted", "request-admitted"):
            version = event.fields.get("manifest_version", event.fields.get("version"))
            if version in stopped:
                current = stopped[version]
            elif event.fields.get("grant_id") in current:
                grant = event.text("grant_id")
                text = f"{node} admitted a request after it had accepted the manifest that stops its grant"
                yield _of("grant-revoked", grant, node, text)


def _manifests(books: Books, done: Reconciled) -> Iterator[Discrepancy]:
    said: dict[int, dict[str, str]] = defaultdict(dict)
    for who, version, sha256 in _manifest_texts(books):
        if sha256 is not None and version:
            done.compared += 1
            said[version].setdefault(sha256, who)
    for version, texts in said.items():
        if len(texts) > 1:
            text = "they hold different manifests of one version"
            yield _of("manifest-differs", f"version {version}", ", ".join(texts.values()), text)


def _manifest_texts(books: Books) -> Iterator[tuple[str, int, str | None]]:
    trails = [*books.nodes.values(), *books.gateways, *([books.authority] if books.authority else [])]
    for trail in trails:
        for event in trail.of("manifest-accepted", "manifest-changed", "manifest-published"):
            yield trail.party, _number(event.fields["version"]), _optional(event.fields["sha256"])
        for event in trail.of("node-started", "gateway-started"):
            sha256 = _optional(event.fields["manifest_sha256"])
            yield trail.party, _number(event.fields["manifest_version"]), sha256
    for receipt in books.receipts:
        yield receipt.name, receipt.manifest_version, receipt.manifest_sha256


def _listed(event: Event, name: str) -> frozenset[object]:
    listed = event.fields[name]
    assert isinstance(listed, list)
    return frozenset(listed)


def _answers(trail: Trail) -> set[str]:
    return {event.text("outcome_sha256") for event in trail.of("answered")}


def _names(trails: Sequence[Trail]) -> str:
    return ", ".join(trail.party for trail in trails)


def _number(value: object) -> int:
    return int(str(value))


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


def _of(code: str, about: str, party: str, text: str) -> Discrepancy:
    return Discrepancy(code=code, about=about, party=party, text=text)
