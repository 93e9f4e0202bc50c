"""Pass 8: group keys. Public ones have a finite domain, and the whole cross product is released without delta;
otherwise groups are selected by thresholding on their number of units (DESIGN.md section 4, Group keys).
"""

from __future__ import annotations

from fractions import Fraction

from insitu_privacy.dataset import ContributionBounds
from insitu_privacy.domains import Facts
from insitu_privacy.evaluate import Value
from insitu_privacy.passes.frontier import Frontier, GroupKey
from insitu_privacy.passes.spans import forbidden
from insitu_privacy.passes.tracked import Tracked
from insitu_privacy.plan import KeyColumn, KeyValue, cell_count

CELL_LIMIT = 50_000
"""Cross products larger than this are not released whole: most cells would be noise alone."""


def keys(front: Frontier, tracked: Tracked) -> tuple[KeyColumn, ...]:
    """The group keys, all with their public domains or, where one has none, all private."""
    columns = tuple(_key(key, tracked) for key in front.keys)
    count = cell_count(columns)
    if count is not None and count <= CELL_LIMIT:
        return columns
    too_many = f"the cross product of the keys has {count} cells, more than {CELL_LIMIT}"
    return tuple(
        KeyColumn(
            name=column.name,
            type=column.type,
            expression=column.expression,
            constant=column.constant,
            domain=None,
            reason=column.reason if count is None else too_many,
        )
        for column in columns
    )


_TREE_NODES = 2**16
_LEAVES = (16, 4096)
_LEAVES_OF_PRIVATE_KEYS = 256


def leaves_limit(columns: tuple[KeyColumn, ...], front: Frontier) -> int:
    """How many leaves a tree of counts may have for each group, so that there is not too much noise to draw."""
    cells = cell_count(columns)
    if cells is None:
        return _LEAVES_OF_PRIVATE_KEYS
    if cells * _LEAVES[0] > _TREE_NODES:
        limit = _TREE_NODES // _LEAVES[0]
        raise forbidden(
            front.keys[0].node, f"a quantile of more than {limit} groups", "Group by fewer or coarser keys."
        )
    return max(_LEAVES[0], min(_LEAVES[1], _TREE_NODES // max(1, cells)))


def _key(key: GroupKey, tracked: Tracked) -> KeyColumn:
    facts = tracked.facts.facts(key.expression)
    return KeyColumn(
        name=key.name,
        type=facts.type,
        expression=key.expression,
        constant=facts.constant,
        domain=_domain(facts),
        reason=f"{key.node.sql()} has {'a finite public domain' if facts.values is not None else 'no public domain'}",
    )


def _domain(facts: Facts) -> tuple[KeyValue, ...] | None:
    if facts.values is None:
        return None
    nulls: tuple[KeyValue, ...] = (None,) if facts.nullable else ()
    return nulls + tuple(_scalar(value) for value in facts.values)


def _scalar(value: Value) -> KeyValue:
    return float(value) if isinstance(value, Fraction) else value


def effective_bounds(bounds: ContributionBounds, columns: tuple[KeyColumn, ...]) -> ContributionBounds:
    """Bounds as they bind: a unit has one group where all keys are constant per unit, and never more than exist."""
    varying = tuple(column for column in columns if not column.constant)
    most = cell_count(varying)
    groups = bounds.max_groups if most is None else min(bounds.max_groups, max(1, most))
    return ContributionBounds(max_rows_per_group=bounds.max_rows_per_group, max_groups=groups)
