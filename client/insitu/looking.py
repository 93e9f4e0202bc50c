"""A first look: part of a query's budget spent on what its bounds depend on, before the rest of it is asked.

Where conditions leave it open how many rows a person has, and that makes a difference, ``SHARE`` of epsilon goes to a
query about the query's own rows (``insitu_privacy.first_look``): a request like any other, planned, charged and signed
by each node. What it says chooses the bounds of the query, which has the rest; together they cost what was asked for.

There is none without profiles of all nodes, where a researcher names both contribution bounds, where it is not worth
its part of epsilon (``fitting.worth``), or where none can be written; ``--no-first-look`` does without.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from insitu_privacy.dataset import Dataset
from insitu_privacy.errors import Refused
from insitu_privacy.plan import PrivacyPlan, QueryParameters

from insitu.computing import spent_on
from insitu.planning import Asked
from insitu.result import FirstEvidence, Result
from insitu.trust import Trusted
from insitu.verification import Answer

if TYPE_CHECKING:
    from insitu_privacy.data_profile import DataProfile
    from insitu_privacy.first_look import FirstLook
    from insitu_privacy.fitting import OwnRows
    from insitu_privacy.merge import MergedRelease

SHARE = Fraction(1, 10)
"""Measured (``bench.narrow``): from a twentieth to a fifth the error is about the same."""

NOT_LOOKED = "there was no first look, for not enough is left of the grant for both: bounds are a guess"
SHORT_OF = "{} is not reached: by what the first look saw, the epsilon that was foretold buys less"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A first look as it is to be asked, before the query ``whole``."""

    asked: Asked
    plan: PrivacyPlan
    first: FirstLook
    whole: Asked

    @property
    def rest(self) -> QueryParameters:
        """What is left for the query itself."""
        parameters = self.whole.parameters
        return replace(parameters, epsilon=parameters.epsilon - self.asked.parameters.epsilon)

    def own_rows(self, merged: Sequence[MergedRelease]) -> OwnRows:
        """What the answer says of all nodes that are asked."""
        from insitu_privacy.first_look import own_rows

        return own_rows(self.first, self.plan, merged, nodes=len(self.asked.nodes))


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """A first look that was answered."""

    first: FirstEvidence
    answers: Sequence[Answer]

    def part_of(self, result: Result) -> Result:
        """The result of the query that it was for: what it cost is part of what was spent."""
        cost = spent_on(self.answers)
        evidence = replace(result.evidence, first=self.first)
        return replace(result, spent=result.spent + cost, first_look=cost, evidence=evidence)


def look_for(
    asked: Asked, plan: PrivacyPlan, trusted: Trusted, dataset: Dataset, profile: DataProfile | None
) -> Look | None:
    """The first look at what ``plan``, that of ``asked``, reads; None where there is to be none."""
    from insitu_privacy.first_look import first_look
    from insitu_privacy.fitting import is_worth_a_look
    from insitu_privacy.planner import plan_query

    parameters = asked.parameters
    own = parameters.max_rows_per_group is not None and parameters.max_groups is not None
    if not asked.first_look or profile is None or own:
        return None
    accounting, nodes = trusted.grant.accounting, len(asked.nodes)
    if not is_worth_a_look(plan, dataset, profile, parameters=parameters, accounting=accounting, nodes=nodes):
        return None
    part = parameters_of_look(parameters.epsilon * SHARE)

    def plan_at(sql: str) -> PrivacyPlan:
        scope = trusted.grant.scope(asked.dataset.name)
        return plan_query(sql, dialect="duckdb", dataset=dataset, parameters=part, scope=scope, today=asked.at.date())

    try:
        found = first_look(asked.sql, asked.dialect, plan, dataset, plan_at)
        if found is None:
            return None
        made = replace(asked, sql=found.sql, dialect="duckdb", parameters=part)
        return Look(asked=made, plan=plan_at(found.sql), first=found, whole=asked)
    except Refused:
        return None


def parameters_of_look(epsilon: Fraction) -> QueryParameters:
    """With which a first look is asked: every unit is in one bin of each histogram."""
    return QueryParameters(
        epsilon=epsilon,
        delta=Fraction(0),
        mechanism="laplace",
        max_rows_per_group=1,
        max_groups=1,
    )
