"""What a query would release, at which noise and cost, and what each node would run: nothing is sent or spent.

``Explanation.to_json`` is the document of the `explain` command. Expected intervals come from running the query's own
post-processing over made-up releases (``bounds``) and are the widest of any group: where nodes have profiles, groups
are as large as these let expect on the average; else each holds ``REPRESENTATIVE_ROWS`` rows at each node. Without
profiles what clipping takes is not known. ``half_width`` of each statistic is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from insitu_privacy.dataset import Dataset
from insitu_privacy.errors import InsituError
from insitu_privacy.plan import Loss, PrivacyPlan, Release, Statistic, composed

from insitu.accuracy import Reach
from insitu.bounds import clipping, made_up_releases
from insitu.bounds_said import bounds_reason
from insitu.clipped import Profiled
from insitu.epsilon_table import Step, epsilon_table
from insitu.looking import Look
from insitu.noise import half_width
from insitu.planned import Planned

if TYPE_CHECKING:
    from insitu_privacy.postprocess import Postprocessor

DIALECTS = ("duckdb", "postgres")
_MUCH = 0.5
_CAP_KEY = "secret of each node"
_NOTHING: Reach = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A plan in the terms of the researcher."""

    plan: PrivacyPlan
    nodes: tuple[str, ...]
    level: float
    expected: tuple[float | None, ...]
    """Half-width of each output column's interval, of dates in days; None where it has none or none can be foretold."""
    clipping: tuple[float | None, ...]
    """Share by which contribution bounds are expected to change each column, None where no profile says."""
    reasons: tuple[str, ...]
    """Of each release, where its contribution bounds come from."""
    node_sql: Mapping[str, str]
    epsilon_table: tuple[Step, ...] = ()
    """What each epsilon of a ladder would buy."""
    warnings: tuple[str, ...] = ()
    """Why a query that is asked like this would be refused, or leave out much."""
    profiled: Profiled | None = None
    """Which nodes have profiles; None where nothing is released."""
    look: Look | None = None
    """What is asked first, from a part of epsilon; ``plan`` has the rest."""
    look_sql: Mapping[str, str] = field(default_factory=dict)

    @property
    def loss(self) -> Loss:
        """What it costs in all."""
        return self.plan.loss if self.look is None else composed([self.look.plan.loss, self.plan.loss])

    @property
    def person_level(self) -> tuple[Fraction, Fraction]:
        """(epsilon, delta) for a person who is known to as many nodes as the dataset allows."""
        times = min(self.plan.nodes_per_unit, len(self.nodes))
        return self.loss.epsilon * times, min(self.loss.delta * times, Fraction(1))

    def to_json(self) -> dict[str, Any]:
        """The JSON document of the `explain` command."""
        epsilon, delta = self.person_level
        plan = self.plan
        return {
            "dataset": plan.dataset,
            "plan_digest": plan.digest,
            "nodes": list(self.nodes),
            "releases": [
                _release(release, len(self.nodes), self.level, reason)
                for release, reason in zip(plan.releases, self.reasons, strict=True)
            ],
            "columns": [{"name": column.name, "noisy": column.noisy} for column in plan.output],
            "clipping": list(self.clipping),
            "without_profile": None if self.profiled is None else list(self.profiled.without),
            "expected_intervals": list(self.expected),
            "epsilon_table": [step.to_json() for step in self.epsilon_table],
            "level": self.level,
            "cost": {
                "epsilon": float(self.loss.epsilon),
                "delta": float(self.loss.delta),
                "rho": float(self.loss.rho),
                "nodes_per_unit": plan.nodes_per_unit,
                "person_level": {"epsilon": float(epsilon), "delta": float(delta)},
            },
            "postprocessing": plan.postprocessing,
            "node_sql": dict(self.node_sql),
            "warnings": list(self.warnings),
            "first_look": None if self.look is None else self._first_look(self.look),
        }

    def _first_look(self, look: Look) -> dict[str, Any]:
        releases = [_release(one, len(self.nodes), self.level, "one row for each person") for one in look.plan.releases]
        return {
            "epsilon": float(look.plan.loss.epsilon),
            "plan_digest": look.plan.digest,
            "sql": look.asked.sql,
            "releases": releases,
            "node_sql": dict(self.look_sql),
        }

    def __str__(self) -> str:
        from insitu.output_facts import explanation_text

        return explanation_text(self)

    def __repr__(self) -> str:
        """What a notebook shows: the text, rather than the fields."""
        return str(self)


def explain_plan(
    planned: Planned,
    postprocessor: Postprocessor,
    *,
    level: float = 0.95,
    plan_at: Callable[[Fraction], Planned] | None = None,
) -> Explanation:
    """Explain what is planned as its nodes would run it; with ``plan_at``, also what other epsilons would buy."""
    plan, nodes = planned.plan, planned.asked.nodes
    reach = expected(planned, postprocessor, level)
    steps: tuple[Step, ...] = ()
    if plan_at is not None:
        steps = epsilon_table(
            plan,
            reach,
            nodes=len(nodes),
            most=planned.trusted.grant.epsilon,
            plan_at=plan_at,
            expected_of=lambda other: expected(other, postprocessor, level),
        )
    return Explanation(
        plan=plan,
        nodes=nodes,
        level=level,
        expected=tuple(width for width, _ in reach),
        clipping=clipping(plan, planned.outlooks, nodes, postprocessor),
        reasons=tuple(
            bounds_reason(release, planned.asked.parameters, outlook, planned.profiled)
            for release, outlook in zip(plan.releases, planned.outlooks, strict=True)
        ),
        epsilon_table=steps,
        profiled=planned.profiled,
        node_sql=_all_sql(plan, planned.dataset),
        warnings=_warnings(planned),
        look=planned.look,
        look_sql={} if planned.look is None else _all_sql(planned.look.plan, planned.dataset),
    )


def _warnings(planned: Planned) -> tuple[str, ...]:
    cost, most = planned.loss.epsilon, planned.trusted.grant.epsilon
    found = []
    if cost > most:
        found.append(f"ε {float(cost):g} is more than the grant's ε {float(most):g}")
    lost = max((one.choice.lost for one in planned.outlooks if one is not None), default=0.0)
    if lost > _MUCH:
        found.append(
            f"about {lost:.0%} of the rows are expected in groups below the threshold, which are not released: "
            "a larger epsilon or coarser groups show more, and keys with a public domain (IN ...) show all"
        )
    return tuple(found)


def _all_sql(plan: PrivacyPlan, dataset: Dataset) -> dict[str, str]:
    return {dialect: _node_sql(plan, dataset, dialect) for dialect in DIALECTS}


def _node_sql(plan: PrivacyPlan, dataset: Dataset, dialect: str) -> str:
    from insitu_privacy.render import render

    tables = {name: name for name in dataset.tables}
    statements = [render(release, dialect=dialect, tables=tables, cap_key=_CAP_KEY) for release in plan.releases]
    return ";\n\n".join(statements)


def expected(planned: Planned, postprocessor: Postprocessor, level: float) -> list[Reach]:
    """Of each output column, how far its widest interval reaches to each side, and in shares of its value.

    Bounds may be expected to cut so much that a variance is below zero: what it has no interval for is foretold as if
    nothing were cut.
    """
    found = _expected(planned, postprocessor, level, bounded=True)
    missing = [column.noisy and one == _NOTHING for one, column in zip(found, planned.plan.output, strict=True)]
    if not any(missing) or all(one is None for one in planned.outlooks):
        return found
    whole = _expected(planned, postprocessor, level, bounded=False)
    return [other if gone else one for one, other, gone in zip(found, whole, missing, strict=True)]


def _expected(planned: Planned, postprocessor: Postprocessor, level: float, *, bounded: bool) -> list[Reach]:
    from insitu_privacy.merge import merge

    plan, nodes = planned.plan, planned.asked.nodes
    made_up = made_up_releases(plan, planned.outlooks, nodes, bounded=bounded)
    try:
        table = postprocessor.run(plan, merge(plan, made_up, nodes), level=level)
    except InsituError:
        return [_NOTHING for _ in plan.output]
    cells = [
        [
            (half_of(interval), row[index])
            for row, intervals in zip(table.rows, table.intervals, strict=True)
            if (interval := intervals[index]) is not None
        ]
        for index in range(len(plan.output))
    ]
    return [_reach(one) if column.noisy else _NOTHING for one, column in zip(cells, plan.output, strict=True)]


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


def _release(release: Release, nodes: int, level: float, reason: str) -> dict[str, Any]:
    scales = [statistic.scale for statistic in release.statistics]
    return {
        "name": release.name,
        "statistics": [_statistic(release, one, nodes, level) for one in release.statistics],
        "contribution_bounds": {
            "max_rows_per_group": release.bounds.max_rows_per_group,
            "max_groups": release.bounds.max_groups,
        },
        "bounds_reason": reason,
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
