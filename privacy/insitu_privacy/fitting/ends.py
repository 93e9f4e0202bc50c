"""Where the leaves of a tree of counts are laid: over the values that a profile lets expect, for finer leaves.

Half of the values of heavy-tailed costs may lie in one leaf of those that span the declared bounds. What lies beyond
the chosen ends counts in the first or last leaf, so that no rank moves: a quantile is wrong only where it lies there
itself, and then it has no bounded interval (``released``). So the ends are far from the quantiles asked for, as groups
differ: of the values that lie beyond such a quantile, one in fifty lies beyond the end.

A researcher's own bounds (LEAST, GREATEST) are left alone, and so is an end that a MIN or MAX is looked for at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from insitu_privacy.expressions import Call, Expression, Op
from insitu_privacy.fitting.curves import Curve
from insitu_privacy.leaves import leaves_over, round_step
from insitu_privacy.plan import Quantile, Release, Tree, tree_levels

_BEYOND = 0.02
"""The share of the values beyond a quantile that may lie beyond the end."""
_ROUND = 100
"""Ends are numbers as round as a hundredth of what lies between them."""


def ends(release: Release, quantiles: Sequence[Quantile], curve: Curve | None) -> tuple[Fraction, Fraction] | None:
    """The ends for the tree that ``quantiles`` are read from; None where those it has are as good."""
    if release.tree is None or curve is None or curve.total <= 0 or any(map(_is_bounded, release.values)):
        return None
    (statistic,) = release.statistics
    first, step, tree = statistic.center, statistic.granularity, release.tree
    last = first + step * (tree.leaves - 1)
    low, high = _expected(quantiles, curve)
    unit = round_step(Fraction((min(high, float(last)) - max(low, float(first))) / _ROUND))
    found = max(first, _multiple(low, unit, up=False)), min(last, _multiple(high, unit, up=True))
    return found if found[0] < found[1] and _is_finer(release, tree, found) else None


def _expected(quantiles: Sequence[Quantile], curve: Curve) -> tuple[float, float]:
    """Infinite where the ends are those of all values."""
    low = min(_share(one, kind="least") for one in quantiles)
    high = min(_share(one, kind="greatest") for one in quantiles)
    below, above = curve.quantiles(np.array([low, 1 - high]))
    return (float(below) if low else -math.inf), (float(above) if high else math.inf)


def _share(one: Quantile, *, kind: str) -> float:
    """How many of the values may lie beyond the end on the one side."""
    if one.kind in ("least", "greatest"):
        return 0.0 if one.kind == kind else _BEYOND
    return _BEYOND * float(one.level if kind == "least" else 1 - one.level)


def _multiple(value: float, unit: Fraction, *, up: bool) -> Fraction:
    if math.isinf(value):
        return Fraction(10**18 if up else -(10**18))
    ratio = Fraction(value) / unit
    return (ratio.__ceil__() if up else ratio.__floor__()) * unit


def _is_finer(release: Release, tree: Tree, found: tuple[Fraction, Fraction]) -> bool:
    """Whether leaves are finer so, or as fine with fewer levels to divide the budget over."""
    (statistic,) = release.statistics
    made = leaves_over(*found, whole=release.value_types == ("integer",), limit=tree.leaves)
    fewer = len(tree_levels(made.count)) < len(tree_levels(tree.leaves))
    return made.step < statistic.granularity or (made.step == statistic.granularity and fewer)


def _is_bounded(value: Expression) -> bool:
    """Whether a researcher wrote bounds around values."""
    return isinstance(value, Call) and (value.op in (Op.LEAST, Op.GREATEST) or any(map(_is_bounded, value.args)))
