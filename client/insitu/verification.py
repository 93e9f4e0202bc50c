"""Checks what nodes signed, and that the answer follows from it. The gateway is believed in nothing that matters.

V1 every outcome names a node that was asked, once;
V2 it is signed by a key that the manifest gives for that node at the time of the request, and names that node itself;
V3 it answers this very request: its id and the SHA-256 of its exact bytes;
V4 a release is of this grant, this dataset and this plan;
V5 a release has the shape of the plan: as many releases, statistics and cells, with keys where keys are selected;
V6 the rows that the gateway computed equal those computed here;
V7 what a node refuses, it signs: without its signature it is absent, or its outcome did not verify, and no more is
   said of it than that.

What cannot be checked: a gateway can withhold an answer, or say that a node is absent. The answer then says that the
node is missing. It can also bring a node to refuse, by handing it something else in place of the grant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from insitu_privacy.errors import CATALOGUE, InsituError, IntegrityFailed, RemoteError, Unavailable
from insitu_privacy.plan import PrivacyPlan, Release, ReleasedValues
from insitu_privacy.untrusted import read_json
from insitu_proto.messages import MAX_MESSAGE_BYTES

from insitu.result import Cell, NodeStatus, Status

if TYPE_CHECKING:
    from insitu_access.manifest import Manifest
    from insitu_access.release import BudgetStatement, NodeRelease, Refusal
    from insitu_access.request import BudgetRequest, QueryRequest
    from insitu_privacy.improve import Improvement
    from insitu_proto.messages import NodeOutcome

    Opened = NodeRelease | Refusal | BudgetStatement

_CLOSE = 1e-9
"""Relative difference under which two floating-point cells are the same: platforms round sums differently."""
ABSENT = "INSITU-NODE-ABSENT"
UNVERIFIED = "INSITU-VERIFY-RELEASE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A request as it was signed; ``plan`` is None for a budget request."""

    request: QueryRequest | BudgetRequest
    token: str
    sha256: str
    plan: PrivacyPlan | None
    improve: tuple[Improvement, ...] = ()
    """What the answer is improved by on this side: nobody else is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of the request at one node, after V1 to V5."""

    status: NodeStatus
    opened: Opened | None
    """The signed outcome; None where the node sent none."""
    error: RemoteError | None


class NodesTooFew(Unavailable):
    """Fewer nodes released than the query needs; ``nodes`` says what became of each."""

    def __init__(self, nodes: Sequence[NodeStatus], needed: int) -> None:
        self.nodes = tuple(nodes)
        released = sum(node.status == "released" for node in nodes)
        super().__init__("INSITU-NODES-TOO-FEW", released=released, asked=len(nodes), needed=needed)
        missing = [f"{node.id} {node.status} {node.code}" for node in nodes if node.status != "released"]
        self.text = f"{self.text} ({'; '.join(missing)})"
        if not released:
            self.remedy = "See the nodes' own codes, then ask again."
        self.args = (self.line(),)


def open_answers(sent: Sent, outcomes: Iterable[NodeOutcome], manifest: Manifest) -> tuple[Answer, ...]:
    """V1 to V5 over all outcomes; one answer for each node asked, in the order of the request."""
    found: dict[str, Answer] = {}
    for outcome in outcomes:
        if outcome.node_id not in sent.request.nodes or outcome.node_id in found:  # V1
            raise _forged(outcome.node_id, "it was not asked, or answers twice")
        found[outcome.node_id] = _open(sent, outcome, manifest)
    return tuple(found.get(node) or _unsigned(node, "absent", ABSENT) for node in sent.request.nodes)


def _open(sent: Sent, outcome: NodeOutcome, manifest: Manifest) -> Answer:
    from insitu_access.release import Refusal

    node = outcome.node_id
    if outcome.outcome_jws is None:
        return _unsigned(node, outcome.status, outcome.code)  # V7
    opened = open_signed(sent, node, outcome.outcome_jws, manifest)
    if isinstance(opened, Refusal):
        error = RemoteError(opened.code, opened.text, opened.remedy, opened.span)
        return Answer(status=_status(node, error), opened=opened, error=error)
    return Answer(status=NodeStatus(id=node, status="released", code=None), opened=opened, error=None)


def open_signed(sent: Sent, node: str, token: str, manifest: Manifest) -> Opened:
    """V2 to V5 of one signed outcome."""
    from insitu_access.release import BudgetStatement, NodeRelease, open_outcome

    entry = manifest.node(node)
    if entry is None:
        raise _forged(node, "the manifest does not list the node")
    opened = open_outcome(token, entry.keys_at(sent.request.issued_at), node=node)  # V2
    if opened.request_id != sent.request.request_id or opened.request_sha256 != sent.sha256:  # V3
        raise _forged(node, "it answers another request")
    if isinstance(opened, NodeRelease):
        _check_release(opened, sent)
    if isinstance(opened, BudgetStatement):
        if sent.plan is not None:
            raise _forged(node, "it is a budget statement, and a release was asked for")
        if opened.grant_id != sent.request.grant_id:  # V4
            raise _forged(node, "it is of another grant")
    return opened


def _check_release(release: NodeRelease, sent: Sent) -> None:
    plan = sent.plan
    if plan is None:
        raise _forged(release.node, "no release was asked for")
    if release.grant_id != sent.request.grant_id:  # V4
        raise _forged(release.node, "it is of another grant")
    if (release.dataset, release.dataset_digest) != (plan.dataset, plan.dataset_digest):
        raise _forged(release.node, "it is of another dataset")
    if release.plan_digest != plan.digest:
        raise _forged(release.node, "it is of another plan")
    if len(release.values) != len(plan.releases):  # V5
        raise _forged(release.node, "it has another number of releases")
    for values, planned in zip(release.values, plan.releases, strict=True):
        if not _fits(values, planned):
            raise _forged(release.node, "its values do not have the shape of the plan")


def _fits(values: ReleasedValues, planned: Release) -> bool:
    cells = planned.cells
    if (values.keys is None) != (cells is not None) or len(values.statistics) != planned.width:
        return False
    if values.keys is not None:
        if any(len(key) != len(planned.keys) for key in values.keys) or len(set(values.keys)) != len(values.keys):
            return False
        cells = len(values.keys)
    return all(len(column) == cells for column in values.statistics)


def require(answers: Sequence[Answer], needed: int) -> None:
    """Raise where fewer than ``needed`` nodes released: the nodes' common error if they agree, else NodesTooFew."""
    nodes = [answer.status for answer in answers]
    if sum(node.status == "released" for node in nodes) >= needed:
        return
    errors = [answer.error for answer in answers if answer.error and answer.status.status != "absent"]
    if len(errors) == len(answers) and len({error.code for error in errors}) == 1:
        raise errors[0]
    raise NodesTooFew(nodes, needed)


def check_gateway_result(result_json: bytes, names: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """V6. Raises IntegrityFailed where the gateway's columns or rows differ from those computed here."""
    try:
        theirs: Mapping[str, Any] = read_json(result_json, limit=MAX_MESSAGE_BYTES)
        their_names = [column["name"] for column in theirs["columns"]]
        their_rows = [tuple(row) for row in theirs["rows"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="the gateway's result is malformed") from error
    compare_rows(their_names, their_rows, names, rows)


def compare_rows(
    their_names: Sequence[str], theirs: Sequence[Sequence[Any]], names: Sequence[str], rows: Sequence[Sequence[Cell]]
) -> None:
    """Raise IntegrityFailed unless both are the same table; rows that ORDER BY leaves tied may stand in any order."""
    if list(their_names) != list(names):
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its columns are others")
    if len(theirs) != len(rows):
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="it has another number of rows")
    if not _same(theirs, rows) and not _same(sorted(theirs, key=_order), sorted(rows, key=_order)):
        raise IntegrityFailed("INSITU-VERIFY-RESULT", reason="its values are others")


def _same(one: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]]) -> bool:
    return all(
        len(a) == len(b) and all(_same_cell(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True)
    )


def _same_cell(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, float) or isinstance(other, float):
        both = isinstance(one, (int, float)) and isinstance(other, (int, float))
        return both and _is_close(one, other)
    return bool(one == other) and type(one) is type(other)


def _is_close(one: float, other: float) -> bool:
    try:
        return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=1e-12)
    except OverflowError:  # JSON has integers that no float can hold
        return False


def _order(row: Sequence[Any]) -> tuple[tuple[str, str], ...]:
    return tuple((type(cell).__name__, f"{cell:.6e}" if isinstance(cell, float) else str(cell)) for cell in row)


def _unsigned(node: str, status: Status, code: str | None) -> Answer:
    """A node that is missing, in words of this side: the gateway's own text is not repeated."""
    error: InsituError
    if status == "absent":
        error = Unavailable(ABSENT)
    elif (status, code) == ("failed", UNVERIFIED):
        error = _forged(node, "the gateway could not verify what it sent")
    else:
        raise _forged(node, f"it is said to have {status}, and has not signed that")
    said = RemoteError(error.code, error.text, error.remedy)
    return Answer(status=NodeStatus(id=node, status=status, code=error.code), opened=None, error=said)


def _status(node: str, error: InsituError) -> NodeStatus:
    """A node's own word: refused, or failed where it failed after data was read or could not run it."""
    entry = CATALOGUE.get(error.code)
    failed = entry is not None and entry.category == "execution"
    return NodeStatus(id=node, status="failed" if failed else "refused", code=error.code)


def _forged(node: str, reason: str) -> IntegrityFailed:
    return IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason=reason)
