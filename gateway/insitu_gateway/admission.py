"""What the gateway checks before it stores a request and troubles the nodes with it.

None of this protects data: every node checks everything by itself. It keeps strangers, stale and misdirected requests
from filling the store and the nodes' queues. Numbered:

  (1)  the manifest is current
  (2)  the grant is signed, valid now and not revoked
  (3)  the request is signed by a researcher of the grant, and binds the grant's exact text
  (4)  it asks no node that the grant does not name, and, for a query, a dataset that the grant names
  (5)  its deadline lies ahead, and not further than ``MAX_AHEAD``
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from insitu_access.grant import Grant, grant_sha256, open_grant
from insitu_access.manifest import CLOCK_LEEWAY, Manifest
from insitu_access.request import BudgetRequest, QueryRequest, open_request, request_sha256
from insitu_privacy.errors import AccessRefused, ParameterRefused
from insitu_proto.messages import Ask

MAX_AHEAD = timedelta(days=1)
_GRANTS_KEPT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A request that passed (1) to (4)."""

    request: QueryRequest | BudgetRequest
    sha256: str
    grant: Grant


class Grants:
    """Grants that were verified under the manifest of now, so that a project's every request does not cost that again.

    What changes by itself, the time, is looked at each time; a new manifest, with its revocations, empties it.
    """

    def __init__(self) -> None:
        self._manifest: Manifest | None = None
        self._kept: dict[str, Grant] = {}

    def open(self, token: str, manifest: Manifest, now: datetime) -> Grant:
        """As ``open_grant``. Raises AccessRefused."""
        if manifest is not self._manifest or len(self._kept) >= _GRANTS_KEPT:
            self._manifest, self._kept = manifest, {}
        kept = self._kept.get(token)
        if kept is not None and kept.not_before <= now < kept.expires_at:
            return kept
        self._kept[token] = grant = open_grant(token, manifest, now=now)
        return grant


def admit(ask: Ask, manifest: Manifest, grants: Grants, now: datetime) -> Admitted:
    """(1) to (4). Raises AccessRefused."""
    if now >= manifest.expires_at:  # (1)
        raise AccessRefused("INSITU-ACCESS-MANIFEST", reason="it has expired")
    grant = grants.open(ask.grant_jwt, manifest, now)  # (2)
    request = open_request(ask.request_jws, grant)  # (3)
    if request.grant_sha256 != grant_sha256(ask.grant_jwt):
        raise AccessRefused("INSITU-ACCESS-MALFORMED", what="request", reason="it binds another text of the grant")
    if not set(request.nodes) <= set(grant.nodes):  # (4)
        raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what="every node that is asked")
    if isinstance(request, QueryRequest) and grant.dataset(request.dataset) is None:
        raise AccessRefused("INSITU-ACCESS-NOT-GRANTED", what=f"dataset {request.dataset}")
    return Admitted(request=request, sha256=request_sha256(ask.request_jws), grant=grant)


def check_time(admitted: Admitted, now: datetime) -> None:
    """(5); not asked of a request that is known already. Raises AccessRefused or ParameterRefused."""
    request = admitted.request
    if request.deadline <= now or request.issued_at > now + CLOCK_LEEWAY:
        raise AccessRefused("INSITU-ACCESS-STALE")
    if request.deadline > now + MAX_AHEAD:
        limit = int(MAX_AHEAD.total_seconds())
        seconds = int((request.deadline - now).total_seconds())
        raise ParameterRefused("INSITU-PARAM-TIMEOUT", limit=limit, value=seconds)
