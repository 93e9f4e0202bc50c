"""What the values of a unit's rows add up to, where rows are as good as drawn from all values of a column.

The sums of profiles are those of units with all of their rows. Where conditions keep a few, a unit's sum is not its
share of that: one row in a hundred may hold most of it. So sums are drawn from the values of rows, as if each row's
was independent of the others of its unit; from fixed numbers, that whoever asks finds the same.
"""

from __future__ import annotations

import numpy as np

from insitu_privacy.fitting.curves import Array, Curve

_DRAWN = 32
"""Rows of a unit that are drawn one by one; sums of more are taken to be normal."""


def sums_of(rows: Array, units: Array, values: Curve) -> Array:
    """What the values of so many rows add up to, for each entry of ``rows``; ``units`` say how many units it is.

    Every entry with one row stands for as many of the values as it has units: large values are few and far between, so
    they are laid evenly over the entries in proportion to their units.
    """
    draw = np.random.default_rng(0)
    several = np.minimum(np.round(rows), _DRAWN).astype(int)
    levels = draw.random((len(rows), _DRAWN))
    levels[:, 0] = _evenly(units, draw)
    drawn = values.quantiles(levels.reshape(-1)).reshape(levels.shape)
    counted = np.arange(_DRAWN) < several[:, None]
    sums: Array = (drawn * counted).sum(axis=1)
    mean = values.mean
    deviation = float(np.sqrt(max(float(values.values**2 @ values.units) / values.total - mean**2, 0.0)))
    off = np.where(several > 0, (sums - several * mean) / np.sqrt(np.maximum(several, 1)), 0.0)
    many = rows > _DRAWN
    held = np.clip(off, -3 * deviation, 3 * deviation)
    return np.where(many, rows * mean + held * np.sqrt(rows), sums)


def _evenly(units: Array, draw: np.random.Generator) -> Array:
    """A level for each entry: in a random order, one after the other, each as long as it has units."""
    order = draw.permutation(len(units))
    levels = np.empty_like(units)
    levels[order] = (np.cumsum(units[order]) - units[order] / 2) / units.sum()
    return levels
