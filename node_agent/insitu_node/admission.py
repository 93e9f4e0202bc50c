"""Whether a request may be run here: numbered checks, in the order of ``docs/threat-model.md``. Pure; nothing is spent.

Everything arrives through a gateway that nobody trusts. The node believes its own pinned key, its own copy of the
dataset and its own planner, and what those let it verify:

A1  request and grant are within their size limits
A2  the node holds a manifest that is valid now, and that lists this node with this node's key
A3  the grant is signed by a key of that manifest, valid now, and not revoked        (``insitu_access.grant`` G1 to G8)
A4  the grant names this node
A5  the request is signed by a researcher of the grant                             (``insitu_access.request`` R1 to R4)
A6  the request binds this very grant token, and is addressed to this node
A7  the request is neither from the future nor past its deadline
A8  the dataset is granted, its digest is the same in request, manifest and the node's own copy, and it may be used for
    the grant's purpose (``insitu_privacy.purposes`` D3)
A9  the query asks, and must be answered by, at least as many nodes as the grant says
A10 the plan this node makes of the SQL, under the grant's scope and the dataset's legal rules (``passes.legal`` D1 and
    D2), has the digest that was signed

What is not here: replay and budget, which need the ledger's transaction (``ledger`` L1 to L4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NoReturn

from insitu_access.grant import Grant, check_nodes, grant_sha256, open_grant
from insitu_access.jose import SIZE_LIMITS
from insitu_access.keys import VerifyingKey
from insitu_access.manifest import Manifest
from insitu_access.request import BudgetRequest, QueryRequest, open_request, request_sha256
from insitu_privacy.dataset import Dataset
from insitu_privacy.errors import AccessRefused
from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.planner import plan_query
from insitu_privacy.purposes import check_purpose

CLOCK_LEEWAY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What the node knows by itself."""

    node_id: str
    key: VerifyingKey
    """The public half of the key that signs this node's releases."""
    datasets: Mapping[str, Dataset]


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedBudget:
    """A request for a statement of the grant's budget, fully checked."""

    request: BudgetRequest
    request_sha256: str
    grant: Grant


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmittedQuery:
    """A query, fully checked, with the plan that this node made of it."""

    request: QueryRequest
    request_sha256: str
    grant: Grant
    plan: PrivacyPlan


def admit(
    request_jws: str, grant_jwt: str, *, site: Site, manifest: Manifest, now: datetime
) -> AdmittedQuery | AdmittedBudget:
    """The verified request. ``manifest`` is valid now (``ManifestStore.current``).

    Raises AccessRefused, SqlRefused, LegalRefused or ParameterRefused with the code of the first check that fails.
    """
    _within_limits(request_jws, grant_jwt)  # A1
    _lists(manifest, site, now)  # A2
    grant = open_grant(grant_jwt, manifest, now=now)  # A3
    if site.node_id not in grant.nodes:  # A4
        raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"node {site.node_id}")
    request = open_request(request_jws, grant)  # A5
    _bound(request, grant_jwt, site)  # A6
    if not request.issued_at <= now + CLOCK_LEEWAY or not now < request.deadline:  # A7
        raise AccessRefused("INSITU-ACCESS-STALE")
    sha = request_sha256(request_jws)
    if isinstance(request, BudgetRequest):
        return AdmittedBudget(request=request, request_sha256=sha, grant=grant)
    scope = grant.scope(request.dataset)  # A8
    dataset = _same_dataset(request, manifest, site)
    check_purpose(dataset, grant.purpose_code)
    check_nodes(grant, request)  # A9
    plan = plan_query(  # A10
        request.sql,
        dialect=request.dialect,
        dataset=dataset,
        parameters=request.parameters,
        scope=scope,
        today=request.day,
    )
    if plan.digest != request.plan_digest:
        raise AccessRefused("INSITU-ACCESS-PLAN")
    return AdmittedQuery(request=request, request_sha256=sha, grant=grant, plan=plan)


def _within_limits(request_jws: str, grant_jwt: str) -> None:
    for what, typ, token in (
        ("request", "insitu-request+jws", request_jws),
        ("grant", "insitu-grant+jwt", grant_jwt),
    ):
        if len(token) > SIZE_LIMITS[typ]:
            raise AccessRefused("INSITU-ACCESS-MALFORMED", what=what, reason="it is too long")


def _lists(manifest: Manifest, site: Site, now: datetime) -> None:
    """A node that the manifest does not list, or lists with another key, could sign nothing anybody believes."""
    entry = manifest.node(site.node_id)
    if entry is None or site.key not in entry.keys_at(now):
        raise AccessRefused("INSITU-ACCESS-MANIFEST", reason=f"it does not list node {site.node_id} with its key")


def _bound(request: QueryRequest | BudgetRequest, grant_jwt: str, site: Site) -> None:
    if request.grant_sha256 != grant_sha256(grant_jwt):
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what="request", reason="it was made under another grant token")
    if site.node_id not in request.nodes:
        raise AccessRefused("INSITU-ACCESS-WRONG-NODE")


def _same_dataset(request: QueryRequest, manifest: Manifest, site: Site) -> Dataset:
    own, listed = site.datasets.get(request.dataset), manifest.dataset(request.dataset)
    if own is None or listed is None:
        _other_dataset(request)
    if not own.digest == listed.digest == request.dataset_digest:
        _other_dataset(request)
    return own


def _other_dataset(request: QueryRequest) -> NoReturn:
    raise AccessRefused("INSITU-ACCESS-DATASET", name=request.dataset)
