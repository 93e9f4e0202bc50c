"""The nearest values that are not below zero and add up to a given total; and the nearest whole ones.

The first is the Euclidean projection onto a simplex (Held, Wolfe, Crowder 1974; as post-processing of noisy counts
"norm-sub": Wang, Lopuhaä-Zwakenberg, Li, Skoric, Li: Locally differentially private frequency estimation with
consistency, NDSS 2020). It keeps the total, where cutting each value off at zero would add to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def onto_simplex(values: Array, totals: Array) -> Array:
    """The values (..., n) nearest to those given that are at least 0 and add up to ``totals`` (...), at least 0.

    What is minus infinity stays 0.
    """
    ordered = -np.sort(-values, axis=-1)
    there = np.isfinite(ordered)
    excess = np.cumsum(np.where(there, ordered, 0), axis=-1) - totals[..., None]
    places = np.arange(1, values.shape[-1] + 1)
    kept = np.maximum((there & (np.where(there, ordered, 0) - excess / places > 0)).sum(axis=-1), 1)
    level = np.take_along_axis(excess, kept[..., None] - 1, axis=-1) / kept[..., None]
    projected: Array = np.maximum(values - level, 0)
    return projected


def onto_total(values: Array, totals: Array) -> Array:
    """The values (..., n) nearest to those given that add up to ``totals`` (...)."""
    moved: Array = values + ((totals - values.sum(axis=-1)) / values.shape[-1])[..., None]
    return moved


def whole(values: Array, totals: Array) -> Array:
    """Whole numbers (..., n), each less than 1 away, with the whole ``totals`` (...) that the values already have.

    The largest remainders are rounded up. Rounding each by itself would lose most of a total that is spread thin.
    """
    floors = np.floor(values)
    missing = np.rint(totals - floors.sum(axis=-1))
    order = np.argsort(-(values - floors), axis=-1, kind="stable")
    ranks = np.argsort(order, axis=-1, kind="stable")
    rounded: Array = floors + (ranks < missing[..., None])
    return rounded
