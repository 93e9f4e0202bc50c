"""Whether a first look at a query's own rows is expected to pay for itself (``insitu_privacy.first_look``).

Where conditions are guessed to keep rows at random or whole units (``crowd``), bounds are a compromise: under one of
the two they cost several times the least error. Where they keep whole units, as a region or a year of birth does, rows
per unit are those of the profile, but not how many units there are. A look takes a tenth of epsilon: it pays where a
wrong guess would cost more than that.
"""

from __future__ import annotations

import math

from insitu_privacy.data_profile import DataProfile
from insitu_privacy.dataset import Dataset
from insitu_privacy.fitting.choice import choose, error_at
from insitu_privacy.fitting.crowd import crowds, rarer
from insitu_privacy.fitting.fit import groups_named, rows_named, terms_of
from insitu_privacy.fitting.passing import Terms
from insitu_privacy.plan import Accounting, PrivacyPlan, QueryParameters, Release

_PAYS = 1.25
"""The least ratio of errors at which it does: measured, ``bench.narrow``."""


def is_worth_a_look(
    plan: PrivacyPlan,
    dataset: Dataset,
    profile: DataProfile,
    *,
    parameters: QueryParameters,
    accounting: Accounting,
    nodes: int,
) -> bool:
    """Whether any release of ``plan``, made at ``parameters`` without fits, is expected to gain by it."""
    terms = terms_of(plan, parameters, accounting, nodes)
    return any(
        _gains(release, dataset, profile, terms, parameters)
        for release in plan.releases
        if not release.one_row_per_unit
    )


def _gains(release: Release, dataset: Dataset, profile: DataProfile, terms: Terms, parameters: QueryParameters) -> bool:
    if all(one.kind == "units" for one in release.statistics) and all(key.constant for key in release.keys):
        return False  # each unit counts once, whatever rows it has
    found = crowds(release, dataset, profile)
    if not found:
        return True  # no profile speaks of its rows
    rows, groups = rows_named(release, parameters), groups_named(release, parameters)
    chosen = choose(release, found, terms, rows=rows, groups=groups)
    less = rarer(release, dataset, profile)
    for one in found if less is None else (*found, less):
        best = choose(release, [one], terms, rows=rows, groups=groups)
        if math.sqrt(error_at(chosen, release, one, terms) / best.error) > _PAYS:
            return True
    return False
