"""Bounds in words: where those of a release come from, and how a person counts by them."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from insitu_privacy.expressions import Call, Literal, Op
from insitu_privacy.plan import QueryParameters, Release, cell_count

from insitu.clipped import Profiled

if TYPE_CHECKING:
    from insitu_privacy.fitting import Outlook


def bounds_reason(
    release: Release, parameters: QueryParameters, outlook: Outlook | None, profiled: Profiled | None
) -> str:
    """Where the bounds of a release come from: of the contribution bounds those that bind, and the leaves of a tree
    where they lie over a part of the values."""
    rows = _contribution_reason(release, parameters, outlook, profiled)
    cut = release.tree is not None and release.tree.beyond != (None, None)
    return f"{rows}; {leaves_said(release)}" if cut else rows


def leaves_said(release: Release) -> str:
    """Where the leaves of a tree lie."""
    assert release.tree is not None
    (statistic,), (value,) = release.statistics, release.values
    step, first = statistic.granularity, statistic.center
    last = first + step * (release.tree.leaves - 1)
    if isinstance(value, Call) and value.op is Op.DAYS_BETWEEN and isinstance(value.args[0], Literal):
        origin = value.args[0].value
        if isinstance(origin, date):
            ends = [origin + timedelta(days=int(end)) for end in (first, last)]
            return f"values to {float(step):g} day(s) from {ends[0]} to {ends[1]}, where the profiles let expect them"
    return f"values to {float(step):g} from {float(first):g} to {float(last):g}, where the profiles let expect them"


def _contribution_reason(
    release: Release, parameters: QueryParameters, outlook: Outlook | None, profiled: Profiled | None
) -> str:
    if release.one_row_per_unit:
        return "one row for each person"
    asked, rest = _binding(release, parameters)
    head = f"{' and '.join(asked)} as asked for" if asked else ""
    if not rest and not asked:
        return "these bounds cut nothing"
    if outlook is None:
        own = "the dataset's own" + ("" if profiled is None else f": {profiled.why_not}")
        return head if not rest else f"{head}, {' and '.join(rest)} {own}" if asked else own
    choice = outlook.choice
    by = (
        f"by the profiles of {0 if profiled is None else len(profiled.nodes)} node(s): "
        f"clipping {max(choice.bias):.2%}, noise with a standard deviation of {choice.noise:.2%} of a typical group"
    )
    if not rest:
        return f"{head}; {by}"
    return (
        f"{head}, {' and '.join(rest)} with the least expected error {by}"
        if asked
        else f"the least expected error {by}"
    )


def _binding(release: Release, parameters: QueryParameters) -> tuple[list[str], list[str]]:
    """The names of the bounds that bind, those asked for and the others."""
    named = {"rows": parameters.max_rows_per_group, "groups": parameters.max_groups}
    bind = [name for name, does in (("rows", rows_bind(release)), ("groups", groups_bind(release))) if does]
    return [one for one in bind if named[one] is not None], [one for one in bind if named[one] is None]


def rows_bind(release: Release) -> bool:
    """Whether it makes a difference how many rows a person has in a group."""
    return not release.one_row_per_unit and any(one.kind != "units" for one in release.statistics)


def groups_bind(release: Release) -> bool:
    """Whether a person may be in more groups than are kept."""
    most = cell_count([key for key in release.keys if not key.constant])
    return not release.one_row_per_unit and (most is None or release.bounds.max_groups < most)


def counted_said(release: Release) -> str:
    """How a person counts in a release."""
    rows, groups = release.bounds.max_rows_per_group, release.bounds.max_groups
    times = f"with up to {rows} row{'s' * (rows > 1)}" if rows_bind(release) else "once"
    if all(key.constant for key in release.keys):
        return f"a person counts {times}"
    return f"a person counts {times} in {'one group' if groups == 1 else f'each of up to {groups} groups'}"
