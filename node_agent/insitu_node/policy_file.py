"""The ``[policy]`` table of ``node.toml``: the custodian's written rules.

    [policy]
    max_epsilon = 5                     # of any project, per dataset, whatever its grant says
    max_delta = 1e-6
    queries_per_hour = 60               # new ones, of each project
    quiet_hours = ["22:00-06:00"]
    time_zone = "Europe/Paris"          # of the quiet hours; UTC where it is not said
    manifest_max_age_hours = 72         # an older manifest is not believed, though it may not have expired
    jurisdictions = ["FR", "BE"]        # where a gateway may be, within the manifest's; "EU" is its 27 states

    [[policy.approve]]                  # a grant that fits all of one rule needs no approval by hand
    purposes = ["public-health"]
    datasets = ["care"]
    results = ["counts"]
    max_epsilon = 1

Without a rule every project waits for ``insitu-node projects approve``. ``every_grant = true`` makes a rule that fits
all grants of the authority; it has to be spelled out, and it is logged.
"""

from __future__ import annotations

import zoneinfo
from datetime import UTC, time, timedelta, tzinfo
from typing import Annotated, Self

from insitu_privacy.result_kinds import ResultKind
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from insitu_node.amounts import Amount, exact
from insitu_node.policy import Cap, Policy, QuietHours, Rule

_Hours = Annotated[str, Field(strict=True, pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]$")]
_Country = Annotated[str, Field(strict=True, pattern=r"^[A-Z]{2}$")]
_Names = Annotated[list[Annotated[str, Field(strict=True, min_length=1)]], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RuleFile(_Strict):
    """One ``[[policy.approve]]``."""

    purposes: _Names | None = None
    datasets: _Names | None = None
    results: Annotated[list[ResultKind], Field(min_length=1)] | None = None
    max_epsilon: Amount | None = None
    max_delta: Amount | None = None
    every_grant: StrictBool = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        named = any(
            value is not None
            for value in (self.purposes, self.datasets, self.results, self.max_epsilon, self.max_delta)
        )
        if named == self.every_grant:
            raise ValueError("name purposes, datasets, results, max_epsilon or max_delta; or every_grant = true alone")
        self.rule()
        return self

    def rule(self) -> Rule:
        """The rule. Raises ValueError where a number is none."""
        return Rule(
            purposes=None if self.purposes is None else frozenset(self.purposes),
            datasets=None if self.datasets is None else frozenset(self.datasets),
            results=None if self.results is None else frozenset(self.results),
            max_epsilon=exact(self.max_epsilon),
            max_delta=exact(self.max_delta),
            every_grant=self.every_grant,
        )


class PolicyFile(_Strict):
    """``[policy]``."""

    max_epsilon: Amount | None = None
    max_delta: Amount | None = None
    queries_per_hour: Annotated[StrictInt, Field(ge=1)] | None = None
    quiet_hours: list[_Hours] = []
    time_zone: StrictStr | None = None
    manifest_max_age_hours: Annotated[float, Field(gt=0, le=24 * 365)] | None = None
    jurisdictions: list[_Country] = []
    approve: list[RuleFile] = []

    @model_validator(mode="after")
    def _is_readable(self) -> Self:
        self.policy()
        return self

    def policy(self) -> Policy:
        """The policy. Raises ValueError where a number or the time zone is none."""
        zone = _zone(self.time_zone)
        age = self.manifest_max_age_hours
        return Policy(
            rules=tuple(rule.rule() for rule in self.approve),
            cap=Cap(epsilon=exact(self.max_epsilon), delta=exact(self.max_delta)),
            quiet=tuple(_quiet(text, zone) for text in self.quiet_hours),
            queries_per_hour=self.queries_per_hour,
            manifest_max_age=None if age is None else timedelta(hours=age),
            jurisdictions=frozenset(self.jurisdictions),
        )


def _zone(name: str | None) -> tzinfo:
    if name is None:
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"time_zone {name} is not known on this machine") from error


def _quiet(text: str, zone: tzinfo) -> QuietHours:
    start, _, end = text.partition("-")
    if start == end:
        raise ValueError("quiet_hours must not end when they start")
    return QuietHours(start=time.fromisoformat(start), end=time.fromisoformat(end), zone=zone)
