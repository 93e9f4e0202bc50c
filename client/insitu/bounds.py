"""Contribution bounds that fit: from profiles to the bounds that a request names, and what they are expected to cut.

Bounds are chosen by ``insitu_privacy.fitting`` from public profiles, put into the request and signed with it, so that
every node plans the same. What is expected of the answer comes from running the query's own post-processing over
releases made up from the profiles: with their bounds, for the intervals; and without, for what clipping takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from insitu_privacy.dataset import ColumnType, Dataset
from insitu_privacy.errors import InsituError, ParameterRefused
from insitu_privacy.plan import (
    KeyColumn,
    PrivacyPlan,
    QueryParameters,
    Release,
    ReleasedValues,
    Statistic,
    Tree,
)
from insitu_privacy.relations import Derived

from insitu.bounds_said import groups_bind, rows_bind

if TYPE_CHECKING:
    from insitu_privacy.data_profile import DataProfile
    from insitu_privacy.fitting import Outlook, OwnRows
    from insitu_privacy.plan import Accounting
    from insitu_privacy.postprocess import Postprocessor

REPRESENTATIVE_ROWS = 1000
"""Rows of a group at each node where no profile says how many there are."""
_EXAMPLE: Mapping[ColumnType, int | float | str | bool] = {
    "integer": 1,
    "decimal": 1.0,
    "text": "group",
    "date": "2020-01-01",
    "timestamp": "2020-01-01T00:00:00",
    "boolean": True,
}
"""Stands for a group whose key nobody can know before it is released."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """A plan at the bounds to ask for, and what is expected of each of its releases; None where no profile says."""

    plan: PrivacyPlan
    parameters: QueryParameters
    outlooks: tuple[Outlook | None, ...]


def with_best_bounds(
    plan: PrivacyPlan,
    parameters: QueryParameters,
    plan_at: Callable[[QueryParameters], PrivacyPlan],
    *,
    dataset: Dataset,
    profile: DataProfile | None,
    accounting: Accounting,
    nodes: int,
    own: OwnRows | None = None,
) -> Bounded:
    """The plan at the bounds that are best for it. ``plan`` is the one at ``parameters``, which name no fits yet."""
    from insitu_privacy.fitting import fitted

    plain = Bounded(plan=plan, parameters=parameters, outlooks=(None,) * len(plan.releases))
    if not plan.releases:
        return plain
    found = fitted(plan, dataset, profile, parameters=parameters, accounting=accounting, nodes=nodes, own=own)
    if not found.fits:
        return plain
    chosen = replace(parameters, fits=found.fits)
    try:
        return Bounded(plan=plan_at(chosen), parameters=chosen, outlooks=found.outlooks)
    except ParameterRefused:  # a sensitivity or a share of the budget that is out of range: the declared bounds serve
        return plain


def clipping(
    plan: PrivacyPlan, outlooks: Sequence[Outlook | None], nodes: Sequence[str], postprocessor: Postprocessor
) -> tuple[float | None, ...]:
    """Of each output column, the share by which bounds are expected to change a typical value; None where unknown.

    It is 0 without any profile where each person has one row.
    """
    unknown = (None,) * len(plan.output)
    if any(outlook is None and not _uncut(one) for one, outlook in zip(plan.releases, outlooks, strict=True)):
        return unknown
    if not any(outlooks):
        return tuple(0.0 if column.noisy else None for column in plan.output)
    whole, kept = (_first_row(plan, outlooks, nodes, postprocessor, bounded=bounded) for bounded in (False, True))
    if whole is None or kept is None:
        return unknown
    return tuple(
        _share(before, after) if column.noisy else None
        for column, before, after in zip(plan.output, whole, kept, strict=True)
    )


def _share(before: object, after: object) -> float | None:
    if not isinstance(before, (int, float)) or not isinstance(after, (int, float)) or not before:
        return None
    return round(abs(after / before - 1), 6)


def _first_row(
    plan: PrivacyPlan,
    outlooks: Sequence[Outlook | None],
    nodes: Sequence[str],
    postprocessor: Postprocessor,
    *,
    bounded: bool,
) -> tuple[object, ...] | None:
    from insitu_privacy.merge import merge

    bare = replace(plan, copies_sql="", output=tuple(replace(one, noisy=False) for one in plan.output))
    made_up = made_up_releases(plan, outlooks, nodes, bounded=bounded)
    try:
        rows = postprocessor.run(bare, merge(bare, made_up, nodes)).rows
    except InsituError:
        return None
    return rows[0] if rows else None


def _uncut(release: Release) -> bool:
    """Whether bounds cut nothing, by construction, such as where each unit has one row.

    In derived tables counts and sums of a unit are cut to limits of their own.
    """
    derived = any(isinstance(source, Derived) for source in release.relation.sources)
    return not derived and not rows_bind(release) and not groups_bind(release)


# -- made-up releases --------------------------------------------------------------------------------------------------


def made_up_releases(
    plan: PrivacyPlan, outlooks: Sequence[Outlook | None], nodes: Sequence[str], *, bounded: bool = True
) -> list[list[ReleasedValues]]:
    """What each node would release if every group were typical, by node and release."""
    each = outlooks or (None,) * len(plan.releases)
    pairs = list(zip(plan.releases, each, strict=True))
    one = [_made_up(release, outlook, len(nodes), bounded=bounded) for release, outlook in pairs]
    return [one for _ in nodes]


def _made_up(release: Release, outlook: Outlook | None, nodes: int, *, bounded: bool) -> ReleasedValues:
    """One node's share of a release in which every group has the expected size, or a representative one."""
    if release.tree is not None:
        return _made_up_tree(release, release.tree, outlook, nodes)
    values = [
        _typical(one) if outlook is None else _expected(one, place, outlook, nodes, bounded=bounded)
        for place, one in enumerate(release.statistics)
    ]
    cells = release.cells
    if cells is not None:
        return ReleasedValues(keys=None, statistics=tuple((value,) * cells for value in values))
    key = tuple(_example(column) for column in release.keys)
    if release.threshold is not None:
        values[release.threshold.statistic] = max(values[release.threshold.statistic], release.threshold.tau + 1)
    return ReleasedValues(keys=(key,), statistics=tuple((value,) for value in values))


def _expected(statistic: Statistic, place: int, outlook: Outlook, nodes: int, *, bounded: bool) -> int:
    total, rows = (outlook.kept, outlook.rows_kept) if bounded else (outlook.totals, outlook.rows)
    centered = float(statistic.center / statistic.granularity) * rows if statistic.kind == "sum" else 0.0
    return round((total[place] - centered) / nodes)


def _made_up_tree(release: Release, tree: Tree, outlook: Outlook | None, nodes: int) -> ReleasedValues:
    """Rows spread over the leaves as profiles let expect; else evenly."""
    from insitu_privacy.tree import grown

    rows = REPRESENTATIVE_ROWS if outlook is None else max(1.0, outlook.rows / nodes)
    shares = None if outlook is None else outlook.leaf_shares(release)
    each = max(1, round(rows * tree.weight / tree.leaves))
    bottom = [each] * tree.leaves if shares is None else _parts(rows * tree.weight, shares)
    counts = grown(tree.leaves, enumerate(bottom))
    if tree.keys_of is None:
        return ReleasedValues(keys=None, statistics=tuple((count,) * (release.cells or 0) for count in counts))
    key = tuple(_example(column) for column in release.keys)
    return ReleasedValues(keys=(key,), statistics=tuple((count,) for count in counts))


def _parts(total: float, shares: Sequence[float]) -> list[int]:
    """Whole parts of a total that add up to it: each is the step from one rounded sum to the next."""
    ends = [round(total * end) for end in accumulate(shares)]
    return [end - start for start, end in pairwise([0, *ends])]


def _typical(statistic: Statistic) -> int:
    """Counts are the representative size; sums are of values at the centre, so that nothing is added to it."""
    return 0 if statistic.kind == "sum" else REPRESENTATIVE_ROWS


def _example(column: KeyColumn) -> int | float | str | bool | None:
    if column.domain:
        value = column.domain[-1]
        return value if value is None or isinstance(value, (int, float, str, bool)) else value.isoformat()
    return _EXAMPLE[column.type]
