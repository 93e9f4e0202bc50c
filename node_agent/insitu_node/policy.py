"""The custodian's own rules, on top of the authority's grant. Values and decisions; pure.

A grant says what the access authority allows. The custodian of a node decides again, project by project, and may allow
less. Numbered rules of ``decide``:

  C1  the node is not halted
  C2  the project is approved here: by a decision of the custodian, or by a written rule of the policy that fits its
      grant. A denial or a withdrawal stands above any rule. An approval is of one revision of the grant; a later one
      waits again, unless a rule fits it
  C3  it is not a quiet hour
  C4  the project has not asked more new queries in the last hour than the policy takes

and of ``budget``:

  C5  the budget is the grant's, or a cap of the custodian's where that is smaller

Not here: where decisions are kept (``projects``), what a grant says (``insitu_access.grant``), the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta, tzinfo
from fractions import Fraction
from typing import Literal

from insitu_access.grant import Grant
from insitu_privacy.accounting import Grantable
from insitu_privacy.errors import AccessRefused

Verdict = Literal["approved", "denied", "withdrawn"]
RATE_WINDOW = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cap:
    """A budget per dataset that a project may not exceed here, whatever its grant says. None: no cap."""

    epsilon: Fraction | None = None
    delta: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A written rule that approves a grant when all that it names fits; what it leaves unsaid is not looked at."""

    purposes: frozenset[str] | None = None
    """Codes."""
    datasets: frozenset[str] | None = None
    results: frozenset[str] | None = None
    max_epsilon: Fraction | None = None
    max_delta: Fraction | None = None
    every_grant: bool = False
    """Whether it fits every grant of the authority. Spelled out, for a rule that names nothing fits nothing."""

    def fits(self, grant: Grant) -> bool:
        """Whether the rule approves a grant."""
        names = [self.purposes, self.datasets, self.results, self.max_epsilon, self.max_delta]
        if all(one is None for one in names):
            return self.every_grant
        return (
            (self.purposes is None or grant.purpose_code in self.purposes)
            and (self.datasets is None or {dataset.name for dataset in grant.datasets} <= self.datasets)
            and (self.results is None or (grant.results is not None and grant.results <= self.results))
            and (self.max_epsilon is None or grant.epsilon <= self.max_epsilon)
            and (self.max_delta is None or grant.delta <= self.max_delta)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """Times of day at which nothing is answered; an end before the start is on the next day."""

    start: time
    end: time
    zone: tzinfo

    def holds(self, now: datetime) -> bool:
        """Whether it is quiet at ``now``."""
        at = now.astimezone(self.zone).time()
        if self.start <= self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the custodian wrote down. The empty one approves nothing by itself."""

    rules: tuple[Rule, ...] = ()
    cap: Cap = Cap()
    quiet: tuple[QuietHours, ...] = ()
    queries_per_hour: int | None = None
    manifest_max_age: timedelta | None = None
    """A manifest issued longer ago is not believed, although it may not have expired."""
    jurisdictions: frozenset[str] = frozenset()
    """Countries, or EU, that a gateway may be in, besides what the manifest says; none named: as the manifest says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the custodian decided about a project."""

    grant_id: str
    revision: int
    verdict: Verdict
    cap: Cap
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a project stands: what it may use, and by which approval."""

    approved_by: Literal["custodian", "rule"]
    cap: Cap


def standing(grant: Grant, decision: Decision | None, policy: Policy) -> Standing:
    """C2. Raises AccessRefused (INSITU-NODE-APPROVAL, -DENIED, -WITHDRAWN)."""
    if decision is not None and decision.verdict == "denied":
        raise AccessRefused("INSITU-NODE-DENIED")
    if decision is not None and decision.verdict == "withdrawn":
        raise AccessRefused("INSITU-NODE-WITHDRAWN")
    if decision is not None and decision.revision >= grant.revision:
        return Standing(approved_by="custodian", cap=_least(decision.cap, policy.cap))
    if any(rule.fits(grant) for rule in policy.rules):
        return Standing(approved_by="rule", cap=policy.cap)
    raise AccessRefused("INSITU-NODE-APPROVAL")


def check_now(policy: Policy, now: datetime, recent: Sequence[datetime]) -> None:
    """C3 and C4, for a query that is to be charged; ``recent`` are the times of the project's charges.

    Raises AccessRefused (INSITU-NODE-QUIET, -RATE).
    """
    for quiet in policy.quiet:
        if quiet.holds(now):
            start, end = (f"{moment:%H:%M}" for moment in (quiet.start, quiet.end))
            raise AccessRefused("INSITU-NODE-QUIET", start=f"{start} {quiet.zone}", end=f"{end} {quiet.zone}")
    most = policy.queries_per_hour
    if most is not None and sum(now - moment < RATE_WINDOW for moment in recent) >= most:
        raise AccessRefused("INSITU-NODE-RATE", limit=most)


def budget(grant: Grant, cap: Cap) -> Grantable:
    """C5: the budget that the ledger holds a project to."""
    return Grantable(
        epsilon=_smaller(grant.epsilon, cap.epsilon),
        delta=_smaller(grant.delta, cap.delta),
        accounting=grant.accounting,
    )


def _smaller(granted: Fraction, cap: Fraction | None) -> Fraction:
    return granted if cap is None else min(granted, cap)


def _least(one: Cap, other: Cap) -> Cap:
    def least(a: Fraction | None, b: Fraction | None) -> Fraction | None:
        known = [value for value in (a, b) if value is not None]
        return min(known) if known else None

    return Cap(epsilon=least(one.epsilon, other.epsilon), delta=least(one.delta, other.delta))
