"""Kinds of results, as an access committee grants them: what a plan would release, in four words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from insitu_privacy.plan import PrivacyPlan, StatisticKind

ResultKind = Literal["counts", "sums", "quantiles", "selected-groups"]
RESULT_KINDS: tuple[ResultKind, ...] = get_args(ResultKind)

_OF: Mapping[StatisticKind, ResultKind] = {
    "rows": "counts",
    "units": "counts",
    "entities": "counts",
    "sum": "sums",
    "leaves": "quantiles",
}


def result_kinds(plan: PrivacyPlan) -> frozenset[ResultKind]:
    """What the releases of a plan hold. Groups chosen by their size are a kind of their own: they cost delta."""
    found = {_OF[statistic.kind] for release in plan.releases for statistic in release.statistics}
    chosen: set[ResultKind] = {"selected-groups" for release in plan.releases if release.threshold is not None}
    return frozenset(found | chosen)
