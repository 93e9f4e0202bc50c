"""What a query would release, at which noise and cost, and what each node would run: nothing is sent or spent.

``Explanation.to_json`` is the document of the `explain` command. Expected intervals come from running the query's own
post-processing over made-up releases in which every group holds ``REPRESENTATIVE_ROWS`` rows, and are the widest of
any group; a column of plain counts or sums so shows the spread of its noise, a ratio that of groups of such a size.
``half_width`` of each statistic is exact. No real data is known here, so clipping bias is not foretold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from insitu_privacy.dataset import ColumnType, Dataset
from insitu_privacy.errors import InsituError
from insitu_privacy.plan import KeyColumn, PrivacyPlan, Release, ReleasedValues, Statistic, Tree

from insitu.accuracy import Reach
from insitu.noise import half_width

if TYPE_CHECKING:
    from insitu_privacy.postprocess import Postprocessor

DIALECTS = ("duckdb", "postgres")
REPRESENTATIVE_ROWS = 1000
_CAP_KEY = "secret of each node"
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
class Explanation:
    """A plan in the terms of the researcher."""

    plan: PrivacyPlan
    nodes: tuple[str, ...]
    level: float
    expected: tuple[float | None, ...]
    """Half-width of each output column's interval, of dates in days; None where it has none or none can be foretold."""
    node_sql: Mapping[str, str]

    @property
    def person_level(self) -> tuple[Fraction, Fraction]:
        """(epsilon, delta) for a person who is known to as many nodes as the dataset allows."""
        times = min(self.plan.nodes_per_unit, len(self.nodes))
        return self.plan.loss.epsilon * times, min(self.plan.loss.delta * times, Fraction(1))

    def to_json(self) -> dict[str, Any]:
        """The JSON document of the `explain` command."""
        epsilon, delta = self.person_level
        plan = self.plan
        return {
            "dataset": plan.dataset,
            "plan_digest": plan.digest,
            "nodes": list(self.nodes),
            "releases": [_release(release, len(self.nodes), self.level) for release in plan.releases],
            "columns": [{"name": column.name, "noisy": column.noisy} for column in plan.output],
            "expected_intervals": list(self.expected),
            "level": self.level,
            "cost": {
                "epsilon": float(plan.loss.epsilon),
                "delta": float(plan.loss.delta),
                "rho": float(plan.loss.rho),
                "nodes_per_unit": plan.nodes_per_unit,
                "person_level": {"epsilon": float(epsilon), "delta": float(delta)},
            },
            "postprocessing": plan.postprocessing,
            "node_sql": dict(self.node_sql),
        }

    def __str__(self) -> str:
        from insitu.output_facts import explanation_text

        return explanation_text(self)


def explain_plan(
    plan: PrivacyPlan, dataset: Dataset, nodes: tuple[str, ...], postprocessor: Postprocessor, *, level: float = 0.95
) -> Explanation:
    """Explain ``plan`` as ``nodes`` would run it."""
    return Explanation(
        plan=plan,
        nodes=nodes,
        level=level,
        expected=tuple(width for width, _ in expected(plan, nodes, postprocessor, level)),
        node_sql={dialect: _node_sql(plan, dataset, dialect) for dialect in DIALECTS},
    )


def _node_sql(plan: PrivacyPlan, dataset: Dataset, dialect: str) -> str:
    from insitu_privacy.render import render

    tables = {name: name for name in dataset.tables}
    statements = [render(release, dialect=dialect, tables=tables, cap_key=_CAP_KEY) for release in plan.releases]
    return ";\n\n".join(statements)


def expected(plan: PrivacyPlan, nodes: Sequence[str], postprocessor: Postprocessor, level: float) -> list[Reach]:
    """Of each output column, how far its widest interval reaches to each side, and in shares of its value."""
    from insitu_privacy.merge import merge

    made_up = [[_made_up(release) for release in plan.releases] for _ in nodes]
    try:
        table = postprocessor.run(plan, merge(plan, made_up, nodes), level=level)
    except InsituError:
        return [(None, None) for _ in plan.output]
    cells = [
        [
            (half_of(interval), row[index])
            for row, intervals in zip(table.rows, table.intervals, strict=True)
            if (interval := intervals[index]) is not None
        ]
        for index in range(len(plan.output))
    ]
    return [_reach(one) if column.noisy else (None, None) for one, column in zip(cells, plan.output, strict=True)]


def half_of(interval: tuple[float, float] | tuple[str, str]) -> float:
    """Half the width of an interval; of dates and timestamps in days."""
    low, high = interval
    if isinstance(low, str) or isinstance(high, str):
        return (datetime.fromisoformat(str(high)) - datetime.fromisoformat(str(low))) / timedelta(days=2)
    return (high - low) / 2


def _reach(cells: Sequence[tuple[float, object]]) -> Reach:
    shares = [width / abs(value) if isinstance(value, (int, float)) and value else None for width, value in cells]
    known = [share for share in shares if share is not None]
    widest = max((width for width, _ in cells), default=None)
    return widest, max(known) if known and len(known) == len(shares) else None


def _made_up(release: Release) -> ReleasedValues:
    """One node's share of a release in which every group has the representative size and mean values."""
    cells = release.cells
    if release.tree is not None:
        return _made_up_tree(release, release.tree)
    if cells is not None:
        return ReleasedValues(keys=None, statistics=tuple((_typical(one),) * cells for one in release.statistics))
    key = tuple(_example(column) for column in release.keys)
    floor = release.threshold.tau + 1 if release.threshold else 0
    return ReleasedValues(keys=(key,), statistics=tuple((max(_typical(one), floor),) for one in release.statistics))


def _made_up_tree(release: Release, tree: Tree) -> ReleasedValues:
    """Rows spread evenly over the leaves."""
    from insitu_privacy.tree import grown

    each = -(-REPRESENTATIVE_ROWS // tree.leaves) * tree.weight
    counts = grown(tree.leaves, ((leaf, each) for leaf in range(tree.leaves)))
    if tree.keys_of is None:
        return ReleasedValues(keys=None, statistics=tuple((count,) * (release.cells or 0) for count in counts))
    key = tuple(_example(column) for column in release.keys)
    return ReleasedValues(keys=(key,), statistics=tuple((count,) for count in counts))


def _typical(statistic: Statistic) -> int:
    """Counts are the representative size; sums are of values at the centre, so that nothing is added to it."""
    return 0 if statistic.kind == "sum" else REPRESENTATIVE_ROWS


def _example(column: KeyColumn) -> int | float | str | bool | None:
    if column.domain:
        value = column.domain[-1]
        return value if value is None or isinstance(value, (int, float, str, bool)) else value.isoformat()
    return _EXAMPLE[column.type]


def _release(release: Release, nodes: int, level: float) -> dict[str, Any]:
    scales = [statistic.scale for statistic in release.statistics]
    return {
        "name": release.name,
        "statistics": [_statistic(release, one, nodes, level) for one in release.statistics],
        "contribution_bounds": {
            "max_rows_per_group": release.bounds.max_rows_per_group,
            "max_groups": release.bounds.max_groups,
        },
        "keys": _keys(release),
        "mechanism": release.mechanism,
        "scale": float(max(scales, default=Fraction(0))),
        "suppress_below": release.suppress_below,
    }


def _statistic(release: Release, statistic: Statistic, nodes: int, level: float) -> dict[str, Any]:
    width = half_width(release.mechanism, statistic.scale, nodes, level)
    one = float(statistic.granularity) if release.tree is None else 1 / release.tree.weight
    return {
        "kind": str(statistic.kind),
        "linf": statistic.linf,
        "granularity": float(statistic.granularity),
        "center": float(statistic.center),
        "epsilon": float(statistic.epsilon),
        "rho": float(statistic.rho),
        "scale": float(statistic.scale),
        "half_width": width * one,
        "one": one,
        "leaves": None if release.tree is None else release.tree.leaves,
    }


def _keys(release: Release) -> dict[str, Any]:
    threshold = release.threshold
    return {
        "selection": "thresholded" if threshold else "public",
        "count": release.cells,
        "columns": [
            {
                "name": key.name,
                "type": key.type,
                "public": key.domain is not None,
                "count": None if key.domain is None else len(key.domain),
                "reason": key.reason,
            }
            for key in release.keys
        ],
        "threshold": None if threshold is None else {"tau": threshold.tau, "delta": float(threshold.delta)},
    }
