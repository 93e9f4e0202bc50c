"""A settled query and its plan, at the contribution bounds that fit it best. Nothing is sent or spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from insitu_privacy.dataset import Dataset
from insitu_privacy.plan import PrivacyPlan, QueryParameters
from insitu_privacy.purposes import check_purpose

from insitu.bounds import with_best_bounds
from insitu.clipped import Profiled
from insitu.planning import Asked
from insitu.trust import Trusted

if TYPE_CHECKING:
    from insitu_privacy.data_profile import DataProfile
    from insitu_privacy.fitting import Outlook


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A query as it is to be asked."""

    asked: Asked
    plan: PrivacyPlan
    trusted: Trusted
    dataset: Dataset
    outlooks: tuple[Outlook | None, ...]
    """What is expected of each release; None where no profile says."""
    profiled: Profiled | None = None
    """None where nothing is released."""


def plan_asked(
    asked: Asked, trusted: Trusted, dataset: Dataset, profiles: Callable[[], tuple[DataProfile | None, Profiled]]
) -> Planned:
    """Plan ``asked``, and again at the bounds that fit it. ``profiles`` is called where there is something to release:
    it gives the sum over the nodes asked, None unless each of them has a profile, and which of them have one.

    Raises SqlRefused, LegalRefused, ParameterRefused or AccessRefused, before anything is spent.
    """
    check_purpose(dataset, trusted.grant.purpose_code)
    plan_at = partial(_plan, asked, trusted, dataset)
    plan = plan_at(asked.parameters)
    if not plan.releases:
        return Planned(asked=asked, plan=plan, trusted=trusted, dataset=dataset, outlooks=())
    total, profiled = profiles()
    found = with_best_bounds(
        plan,
        asked.parameters,
        plan_at,
        dataset=dataset,
        profile=total,
        accounting=trusted.grant.accounting,
        nodes=len(asked.nodes),
    )
    return Planned(
        asked=replace(asked, parameters=found.parameters),
        plan=found.plan,
        trusted=trusted,
        dataset=dataset,
        outlooks=found.outlooks,
        profiled=profiled,
    )


def _plan(asked: Asked, trusted: Trusted, dataset: Dataset, parameters: QueryParameters) -> PrivacyPlan:
    from insitu_privacy.planner import plan_query

    return plan_query(
        asked.sql,
        dialect=asked.dialect,
        dataset=dataset,
        parameters=parameters,
        scope=trusted.grant.scope(asked.dataset.name),
        today=asked.at.date(),
    )
