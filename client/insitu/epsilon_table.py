"""What each epsilon of a ladder would buy: the expected half-width of every noisy column, for planning a budget.

The query is planned anew at each step, which takes milliseconds, so that mechanisms and bounds are those it would have.
What is expected there is found like ``explain``'s own (``expected``), where that is quick; else it is the asked
epsilon's, widened or narrowed as the noise is: right where an answer is linear in the noise, nearly so for ratios of
groups that are not small. Nothing is read or spent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from insitu_privacy.errors import ParameterRefused
from insitu_privacy.plan import PrivacyPlan, Release

from insitu.accuracy import Reach
from insitu.noise import half_width
from insitu.planned import Planned

LADDER = tuple(map(Fraction, ("1/10", "1/5", "1/2", "1", "2", "5", "10")))
_QUICK_CELLS = 20
"""Of more cells, and of quantiles and SQL over whole results, an expectation of its own would take too long."""
_NOTHING: Reach = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One epsilon, and how far the interval of each output column is expected to reach; None where it has none."""

    epsilon: Fraction
    reach: tuple[Reach, ...]
    """Half-width, and half-width in shares of the value."""

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "epsilon": float(self.epsilon),
            "half_widths": [width for width, _ in self.reach],
            "relative": [share for _, share in self.reach],
        }


def epsilon_table(
    asked: PrivacyPlan,
    reach: Sequence[Reach],
    *,
    nodes: int,
    most: Fraction,
    plan_at: Callable[[Fraction], Planned],
    expected_of: Callable[[Planned], Sequence[Reach]],
) -> tuple[Step, ...]:
    """The ladder up to ``most``. ``reach`` is what is expected of the plan as it was asked."""
    if not asked.releases:
        return ()
    leaf = max((float(one.statistics[0].granularity) for one in asked.releases if one.tree is not None), default=0.0)
    stuck = any(width is not None and width <= leaf for width, _ in reach) and _cells(asked) <= _QUICK_CELLS
    steps = []
    for epsilon in LADDER:
        if epsilon > most:
            break
        try:
            planned = plan_at(epsilon)
        except ParameterRefused:  # no noise that may be used is possible there
            steps.append(Step(epsilon=epsilon, reach=(_NOTHING,) * len(reach)))
            continue
        plan = planned.plan
        ratio = _wider(plan, asked, nodes)
        quick = _is_quick(plan) or ratio is None or stuck
        found = expected_of(planned) if quick else [_times(one, ratio or 1.0) for one in reach]
        steps.append(Step(epsilon=epsilon, reach=tuple(found)))
    return tuple(steps)


def _is_quick(plan: PrivacyPlan) -> bool:
    return plan.rows_are_cells and not plan.quantiles and _cells(plan) <= _QUICK_CELLS


def _cells(plan: PrivacyPlan) -> int:
    return sum(release.cells or 1 for release in plan.releases)


def _wider(plan: PrivacyPlan, asked: PrivacyPlan, nodes: int) -> float | None:
    """How many times wider the noise of a plan is than that of the one asked for; None where they differ in more."""
    if [len(one.statistics) for one in plan.releases] != [len(one.statistics) for one in asked.releases]:
        return None
    pairs = zip(plan.releases, asked.releases, strict=True)
    return max(ratio for one, other in pairs for ratio in _ratios(one, other, nodes))


def _ratios(one: Release, other: Release, nodes: int) -> list[float]:
    def widths(release: Release) -> list[float]:
        return [
            half_width(release.mechanism, statistic.scale, nodes) * float(statistic.granularity)
            for statistic in release.statistics
        ]

    return [new / old for new, old in zip(widths(one), widths(other), strict=True)]


def _times(reach: Reach, ratio: float) -> Reach:
    width, share = reach
    if not width:
        return _NOTHING
    return width * ratio, None if share is None else share * ratio
