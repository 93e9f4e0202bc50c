"""Signs requests with the researcher's key, bound to the very grant and, for a query, to the plan made here (S3)."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from insitu.trust import Trusted, check_researcher
from insitu.verification import Sent

if TYPE_CHECKING:
    from insitu_access.identity import Identity
    from insitu_access.request import BudgetRequest, QueryRequest
    from insitu_privacy.plan import PrivacyPlan

    from insitu.planning import Asked


def sign_query(asked: Asked, plan: PrivacyPlan, trusted: Trusted, identity: Identity, *, now: datetime) -> Sent:
    """The request for the releases of a plan."""
    from insitu_access.jose import refusing_malformed
    from insitu_access.request import QueryRequest

    with refusing_malformed("request"):
        request = QueryRequest(
            request_id=uuid.uuid4().hex,
            grant_id=trusted.grant.id,
            grant_sha256=trusted.grant_sha256,
            dataset=asked.dataset.name,
            dataset_digest=asked.dataset.digest,
            sql=asked.sql,
            dialect=asked.dialect,
            parameters=asked.parameters,
            plan_digest=plan.digest,
            nodes=asked.nodes,
            min_nodes=asked.min_nodes,
            issued_at=asked.at,
            deadline=now + asked.timeout,
        )
    return _sign(request, plan, trusted, identity)


def sign_budget(
    nodes: tuple[str, ...], timeout: timedelta, trusted: Trusted, identity: Identity, *, now: datetime
) -> Sent:
    """The request for what is spent and left."""
    from insitu_access.request import BudgetRequest

    request = BudgetRequest(
        request_id=uuid.uuid4().hex,
        grant_id=trusted.grant.id,
        grant_sha256=trusted.grant_sha256,
        nodes=nodes,
        issued_at=now,
        deadline=now + timeout,
    )
    return _sign(request, None, trusted, identity)


def _sign(
    request: QueryRequest | BudgetRequest, plan: PrivacyPlan | None, trusted: Trusted, identity: Identity
) -> Sent:
    from insitu_access.request import request_sha256, seal_request

    token = seal_request(request, check_researcher(trusted.grant, identity))
    return Sent(request=request, token=token, sha256=request_sha256(token), plan=plan)
