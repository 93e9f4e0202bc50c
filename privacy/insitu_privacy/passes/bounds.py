"""Pass 7: bounds of values and of contributions, hence the sensitivity of every statistic.

Values: an expression's public interval [L, U] and a public granularity g give integers v = round((x - c) / g), so that
|v| is at most max(U - c, c - L) / g. Contributions: m rows of a unit in a group, C groups of a unit. One unit then
moves a statistic in one group by at most linf = m * max |v| (rows: m; units: 1), in at most C groups.
DESIGN.md section 4, Statistics and Contribution bounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from insitu_privacy.dataset import ContributionBounds
from insitu_privacy.domains import is_bounded
from insitu_privacy.errors import ParameterRefused
from insitu_privacy.facts import Facts
from insitu_privacy.fits import ReleaseFit, StatisticFit, in_range
from insitu_privacy.fixed_point import granularity
from insitu_privacy.leaves import leaves_over
from insitu_privacy.passes.quantiles import bounded_in_sql
from insitu_privacy.passes.spans import refusal
from insitu_privacy.passes.statistics import Wanted
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.plan import QueryParameters, tree_levels

BOUND_LIMIT = 1_000_000
_SENSITIVITY_LIMIT = 2**61


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    """A statistic with its fixed-point form and its sensitivity in one group."""

    wanted: Wanted
    granularity: Fraction
    center: Fraction
    most: int
    """Largest |v| of one row."""
    linf: int
    leaves: int = 0
    """Of a tree of counts, the number of its leaves."""
    beyond: tuple[Fraction | None, Fraction | None] = (None, None)
    """Of a tree of counts, how far values may lie below its first leaf and above its last; None where none do."""
    weight: int = 1
    """Of a tree of counts, what a row adds."""


def contribution_bounds(
    tracked: Tracked, parameters: QueryParameters, fit: ReleaseFit | None = None
) -> ContributionBounds:
    """The request's own bounds; else, over a join, the largest of the protected sources'.

    Raises ParameterRefused where a bound is out of range, or a table declares none and the request does not either.
    """
    if fit is not None:
        parameters = replace(parameters, max_rows_per_group=fit.max_rows_per_group, max_groups=fit.max_groups)
    for name, value in (("max-rows-per-group", parameters.max_rows_per_group), ("max-groups", parameters.max_groups)):
        if value is not None and not 1 <= value <= BOUND_LIMIT:
            raise ParameterRefused("INSITU-PARAM-BOUND", name=name, limit=BOUND_LIMIT, value=value)
    inputs = [item for item in tracked.inputs.values() if item.unit]
    declared = [item.bounds for item in inputs if item.bounds is not None]
    if len(declared) < len(inputs) and None in (parameters.max_rows_per_group, parameters.max_groups):
        missing = next(item.name for item in inputs if item.bounds is None)
        raise ParameterRefused("INSITU-PARAM-BOUND-NEEDED", name=missing)
    if tracked.one_row_per_unit:  # whatever is asked
        return ContributionBounds(max_rows_per_group=1, max_groups=1)
    return ContributionBounds(
        max_rows_per_group=parameters.max_rows_per_group or max(bounds.max_rows_per_group for bounds in declared),
        max_groups=parameters.max_groups or max(bounds.max_groups for bounds in declared),
    )


def bound(wanted: Wanted, rows: int, tracked: Tracked, leaves: int, fit: StatisticFit) -> Bounded:
    """The fixed-point form of one statistic where a unit has at most ``rows`` rows in a group.

    ``leaves`` limits those of a tree of counts. A sum may be held to less than its rows could add, an average be taken
    from elsewhere than the middle, and leaves lie over a part of the bounds: as ``fit`` says.

    Raises SqlRefused (INSITU-SQL-UNBOUNDED) where a summed expression has no public bounds, ParameterRefused
    (INSITU-PARAM-FITS) for leaves that lie outside of them.
    """
    if wanted.kind not in ("sum", "leaves"):
        linf = 1 if wanted.kind == "units" else rows
        return Bounded(wanted=wanted, granularity=Fraction(1), center=Fraction(0), most=1, linf=linf)
    assert wanted.value is not None
    facts = tracked.facts.facts(wanted.value)
    if not is_bounded(facts.interval) or facts.interval is None:
        text = wanted.node.this.sql()
        raise refusal("INSITU-SQL-UNBOUNDED", wanted.node.this, name=text, hint=bounded_in_sql(wanted.node))
    if wanted.kind == "leaves":
        return _tree(wanted, rows, facts, leaves, fit, one_row=tracked.one_row_per_unit)
    low, high = facts.interval
    step = granularity(facts)
    middle = (low + high) / 2 if fit.center is None else min(max(fit.center, low), high)
    center = Fraction((middle / step).__floor__()) * step if wanted.centred else Fraction(0)
    largest = max(abs(round((low - center) / step)), abs(round((high - center) / step)), 1)
    linf = rows * largest if fit.linf is None else min(fit.linf, rows * largest)
    return Bounded(wanted=wanted, granularity=step, center=center, most=largest, linf=linf)


def fit_of(parameters: QueryParameters, place: int, statistics: int) -> ReleaseFit | None:
    """The fit of the release at ``place``, which has so many statistics; None where the request names none.

    Raises ParameterRefused (INSITU-PARAM-FITS) for one that is not this release's.
    """
    if not parameters.fits:
        return None
    found = parameters.fits[place] if place < len(parameters.fits) else None
    if found is None or len(found.statistics) != statistics or not in_range(found):
        raise ParameterRefused("INSITU-PARAM-FITS")
    return found


_WEIGHT = 2**16
"""A unit with more rows than are counted has them scaled: in this many parts of a row."""


def _tree(wanted: Wanted, rows: int, facts: Facts, limit: int, fit: StatisticFit, *, one_row: bool) -> Bounded:
    assert facts.interval is not None
    low, high = facts.interval
    first, last = (low, high) if fit.ends is None else (max(low, fit.ends[0]), min(high, fit.ends[1]))
    if first > last:
        raise ParameterRefused("INSITU-PARAM-FITS")
    leaves = leaves_over(first, last, whole=facts.type == "integer", limit=limit)
    weight = 1 if one_row else _WEIGHT
    return Bounded(
        wanted=wanted,
        granularity=leaves.step,
        center=leaves.first,
        most=weight,
        linf=rows * weight,
        leaves=leaves.count,
        weight=weight,
        beyond=(low if low < leaves.first else None, high if high > leaves.last else None),
    )


def levels(one: Bounded) -> int:
    """How many times a statistic counts each unit: once for each level of a tree."""
    return len(tree_levels(one.leaves)) if one.leaves else 1


def check_sensitivity(measured: Sequence[Bounded], bounds: ContributionBounds) -> None:
    """Refuses bounds whose sensitivity does not fit 64 bits, which OpenDP computes in."""
    widest = max(one.linf * len(tree_levels(one.leaves)) for one in measured)
    if widest * bounds.max_groups >= _SENSITIVITY_LIMIT:
        limit = max(1, _SENSITIVITY_LIMIT // widest)
        raise ParameterRefused("INSITU-PARAM-BOUND", name="max-groups", limit=limit, value=bounds.max_groups)
