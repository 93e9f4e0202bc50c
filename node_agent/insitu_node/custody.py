"""The custodian's say in a running node: policy and decisions, asked for each request. Rules C1 to C5 are ``policy``'s,
W1 and W2 ``insitu_access.jurisdiction``'s. C6 is looked at here: what is older than the policy believes is not.

Decisions are read from the store each time: an approval, a withdrawal or the emergency stop counts from the next
request on, whoever made it, without a restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog
from insitu_access.grant import Grant
from insitu_access.jurisdiction import check_gateway
from insitu_access.manifest import Manifest
from insitu_privacy.errors import AccessRefused

from insitu_node.policy import Policy, Standing, check_now, standing
from insitu_node.projects import Projects

_log = structlog.get_logger("insitu.node.custody")


class Custody:
    """Policy and decisions of one node. Safe from several threads."""

    def __init__(self, policy: Policy, projects: Projects) -> None:
        self._policy = policy
        self._projects = projects

    def announce(self) -> None:
        """Logs what is unsafe in the policy."""
        if any(rule.every_grant for rule in self._policy.rules):
            _log.warning("every grant of the authority is approved here", rule="policy.approve.every_grant")
        if not self._policy.rules:
            _log.info("projects wait for approval here", command="insitu-node projects list")

    def check_running(self) -> None:
        """C1. Raises AccessRefused (INSITU-NODE-HALTED)."""
        if self._projects.halted():
            raise AccessRefused("INSITU-NODE-HALTED")

    def check_manifest(self, issued_at: datetime, now: datetime) -> None:
        """Raises AccessRefused (INSITU-ACCESS-MANIFEST) where the manifest is older than the custodian believes."""
        most = self._policy.manifest_max_age
        if most is not None and now - issued_at > most:
            hours = most.total_seconds() / 3600
            reason = f"it was issued more than {hours:g} hours ago, and this node believes none that is older"
            raise AccessRefused("INSITU-ACCESS-MANIFEST", reason=reason)

    def check_gateway(self, certificate: bytes, manifest: Manifest | None) -> None:
        """W1 and W2, by the manifest and by the custodian's own policy. Raises AccessRefused."""
        check_gateway(certificate, manifest, self._policy.jurisdictions)

    def standing(self, grant: Grant, token: str, now: datetime) -> Standing:
        """C2. The grant, verified, is kept for the custodian to see. Raises AccessRefused."""
        self._projects.see(grant, token, now)
        return standing(grant, self._projects.decision(grant.id), self._policy)

    def check_hours(self, now: datetime) -> None:
        """C3. Raises AccessRefused (INSITU-NODE-QUIET)."""
        check_now(self._policy, now, ())

    def check_rate(self, now: datetime, recent: Sequence[datetime]) -> None:
        """C4, for a query that is to be charged. Raises AccessRefused (INSITU-NODE-RATE)."""
        check_now(self._policy, now, recent)
