"""What nodes signed becomes outcomes and, merged and post-processed, the gateway's own result.

The result is a convenience: researchers verify every release and compute the result again from the outcomes. Its JSON
is that of the ``query`` command without ``verified``, and without intervals: those cost more than all else that the
gateway does, every researcher is waiting for it meanwhile, and anyone can compute them from the stored outcomes.
Pure apart from the post-processor's in-memory database.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from insitu_access.manifest import Manifest
from insitu_access.release import BudgetStatement, NodeRelease, Outcome, Refusal, open_outcome
from insitu_access.request import QueryRequest
from insitu_privacy.errors import CATALOGUE, InsituError, IntegrityFailed, Unavailable
from insitu_privacy.plan import PrivacyPlan
from insitu_proto.messages import NodeOutcome, Status

from insitu_gateway.admission import Admitted

if TYPE_CHECKING:
    from insitu_privacy.postprocess import Postprocessor, ResultTable

LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One node's outcome, and what it signed where that verified."""

    outcome: NodeOutcome
    signed: Outcome | None


def read_answer(token: str, node: str, admitted: Admitted, manifest: Manifest) -> Answer:
    """The answer in an outcome token; one that does not verify is a failure of that node and of no other."""
    try:
        signed = _verified(token, node, admitted, manifest)
    except InsituError as error:
        return Answer(outcome=_without(node, "failed", error), signed=None)
    if isinstance(signed, Refusal):
        entry = CATALOGUE.get(signed.code)
        status: Status = "failed" if entry is not None and entry.category == "execution" else "refused"
        outcome = NodeOutcome(
            node_id=node,
            status=status,
            code=signed.code,
            text=signed.text[:_TEXT],
            remedy=signed.remedy[:_TEXT],
            outcome_jws=token,
        )
        return Answer(outcome=outcome, signed=signed)
    return Answer(outcome=NodeOutcome(node_id=node, status="released", outcome_jws=token), signed=signed)


_TEXT = 4096  # what a message of the protocol holds; the signed text has all of it


def absent(node: str) -> NodeOutcome:
    """The outcome of a node that gave none."""
    return _without(node, "absent", Unavailable("INSITU-NODE-ABSENT"))


def _without(node: str, status: Status, error: InsituError) -> NodeOutcome:
    return NodeOutcome(node_id=node, status=status, code=error.code, text=error.text, remedy=error.remedy)


def _verified(token: str, node: str, admitted: Admitted, manifest: Manifest) -> Outcome:
    entry = manifest.node(node)
    if entry is None:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="the manifest does not list the node")
    request = admitted.request
    signed = open_outcome(token, entry.keys_at(request.issued_at), node=node)
    if signed.request_id != request.request_id or signed.request_sha256 != admitted.sha256:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it answers another request")
    if isinstance(signed, (NodeRelease, BudgetStatement)) and signed.grant_id != request.grant_id:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it is of another grant")
    if isinstance(signed, NodeRelease) != isinstance(request, QueryRequest) and not isinstance(signed, Refusal):
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it is not what was asked for")
    if isinstance(signed, NodeRelease) and isinstance(request, QueryRequest):
        _check_plan(signed, request)
    return signed


def _check_plan(release: NodeRelease, request: QueryRequest) -> None:
    made = (release.dataset, release.dataset_digest, release.plan_digest)
    if made != (request.dataset, request.dataset_digest, request.plan_digest):
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=release.node, reason="it is of another plan")


def build_result(
    request: QueryRequest, plan: PrivacyPlan, answers: Sequence[Answer], postprocessor: Postprocessor
) -> bytes:
    """The result JSON. Raises IntegrityFailed or SqlRefused where the releases do not make one."""
    from insitu_privacy.merge import merge

    releases = [answer.signed for answer in answers if isinstance(answer.signed, NodeRelease)]
    merged = merge(plan, [release.values for release in releases], [release.node for release in releases])
    table = postprocessor.run(_without_intervals(plan), merged, level=LEVEL)
    document = _table_as_json(table) | {
        "query_id": request.request_id,
        "dataset": request.dataset,
        "level": LEVEL,
        "nodes": [_node_as_json(answer.outcome) for answer in answers],
        "clipping": [None for _ in table.columns],
        "spent": {
            "epsilon": float(max((one.spent_epsilon for one in releases), default=Fraction(0))),
            "delta": float(max((one.spent_delta for one in releases), default=Fraction(0))),
        },
        "replayed": bool(releases) and all(release.replayed for release in releases),
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _without_intervals(plan: PrivacyPlan) -> PrivacyPlan:
    return replace(plan, output=tuple(replace(column, noisy=False) for column in plan.output))


def _node_as_json(outcome: NodeOutcome) -> dict[str, object]:
    return {"id": outcome.node_id, "status": outcome.status, "code": outcome.code}


def _table_as_json(table: ResultTable) -> dict[str, object]:
    return {
        "columns": [{"name": column.name, "type": column.type} for column in table.columns],
        "rows": [list(row) for row in table.rows],
        "intervals": [[None if cell is None else list(cell) for cell in row] for row in table.intervals],
        "warnings": list(table.warnings),
    }
