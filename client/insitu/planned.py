"""A settled query and its plan, at the contribution bounds that fit it best. Nothing is sent or spent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from insitu_privacy.dataset import Dataset
from insitu_privacy.plan import Loss, PrivacyPlan, QueryParameters, composed
from insitu_privacy.purposes import check_purpose

from insitu.bounds import with_best_bounds
from insitu.clipped import Profiled
from insitu.looking import Look, look_for
from insitu.planning import Asked
from insitu.trust import Trusted

if TYPE_CHECKING:
    from fractions import Fraction

    from insitu_privacy.data_profile import DataProfile
    from insitu_privacy.fitting import Outlook, OwnRows


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
    look: Look | None = None
    """What is to be asked first; its part of the budget is not the plan's."""
    warnings: tuple[str, ...] = ()
    """What the answer is to say of how it was planned."""

    @property
    def loss(self) -> Loss:
        """What it costs in all."""
        return self.plan.loss if self.look is None else composed([self.look.plan.loss, self.plan.loss])


Profiles = Callable[[], tuple["DataProfile | None", Profiled]]
"""The sum of the profiles of the nodes asked, None unless each of them has one, and which of them have."""


def plan_asked(asked: Asked, trusted: Trusted, dataset: Dataset, profiles: Profiles) -> Planned:
    """Plan ``asked``, and again at the bounds that fit it, with a first look where there is to be one.

    ``profiles`` is called where there is something to release. Raises SqlRefused, LegalRefused, ParameterRefused or
    AccessRefused, before anything is spent.
    """
    check_purpose(dataset, trusted.grant.purpose_code)
    plan = _plan(asked, trusted, dataset, asked.parameters)
    if not plan.releases:
        return Planned(asked=asked, plan=plan, trusted=trusted, dataset=dataset, outlooks=())
    total, profiled = profiles()
    look = look_for(asked, plan, trusted, dataset, total)
    parameters = asked.parameters
    if look is not None:
        parameters = look.rest
        plan = _plan(asked, trusted, dataset, parameters)
    found = _at_best_bounds(asked, plan, parameters, trusted=trusted, dataset=dataset, profile=total)
    return replace(found, profiled=profiled, look=look)


def plan_looked(
    look: Look, own: OwnRows, *, trusted: Trusted, dataset: Dataset, profiles: Profiles, epsilon: Fraction
) -> Planned:
    """Plan what ``look`` was for at the bounds that fit what it said, at some of the epsilon that is left."""
    total, profiled = profiles()
    parameters = replace(look.rest, epsilon=epsilon)
    plan = _plan(look.whole, trusted, dataset, parameters)
    found = _at_best_bounds(look.whole, plan, parameters, trusted=trusted, dataset=dataset, profile=total, own=own)
    return replace(found, profiled=profiled)


def _at_best_bounds(
    asked: Asked,
    plan: PrivacyPlan,
    parameters: QueryParameters,
    *,
    trusted: Trusted,
    dataset: Dataset,
    profile: DataProfile | None,
    own: OwnRows | None = None,
) -> Planned:
    found = with_best_bounds(
        plan,
        parameters,
        partial(_plan, asked, trusted, dataset),
        dataset=dataset,
        profile=profile,
        accounting=trusted.grant.accounting,
        nodes=len(asked.nodes),
        own=own,
    )
    return Planned(
        asked=replace(asked, parameters=found.parameters),
        plan=found.plan,
        trusted=trusted,
        dataset=dataset,
        outlooks=found.outlooks,
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
