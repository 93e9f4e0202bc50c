"""A query's own rows: what the answer to a first look at it says (``insitu_privacy.first_look``), and what follows.

The look's noise hides what few units have, above all the tail of those with very many rows. So the histogram is not
taken as it is: it decides between guesses (``crowd``). Conditions are taken to keep a share p of all rows at random,
among a share q of the units. For every p of a grid q is fitted by least squares; by how well the histogram bears them
out, three p stand for what remains open. Where none explains it within its noise, or no profile says what all rows are,
log-normal numbers may (``smooth``); else the histogram is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from insitu_privacy.data_profile import Histogram
from insitu_privacy.fitting.curves import Array, curve_of
from insitu_privacy.fitting.smooth import borne_out, is_explained, off, smooth

if TYPE_CHECKING:
    from insitu_privacy.fitting.crowd import Crowd

SHARES = tuple(2 ** (-power / 2) for power in range(28))
"""Of the rows, those that conditions may keep."""
_FEW, _COUNTED = 30, 96
"""Up to so many rows expected of a unit, numbers up to so many are reckoned one by one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OwnRows:
    """Noisy histograms over all nodes that were asked."""

    rows: Histogram
    """Units by their rows."""
    groups: Histogram | None
    """Units by the groups that they are in, of the one key that a unit may have several of; None if nobody looked."""


def shares_of(seen: Histogram, whole: Crowd, shares: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """What a histogram of rows bears out: shares p of all rows, each with the share q of units that goes with it.

    ``whole`` is all units with all rows. None where nothing explains the histogram.
    """
    errors, sizes = off(np.array([kept(whole, share, seen) for share in shares]), seen, most=1.0)
    if not is_explained(errors, seen):
        return ()
    return tuple((shares[one], float(sizes[one])) for one in borne_out(errors, np.arange(len(shares))))


def kept(whole: Crowd, share: float, like: Histogram) -> Array:
    """Units by their rows, in the bins of a histogram, where every row is kept with the same chance: binomial numbers;
    where they are large, about what is expected."""
    edges = np.array([float(edge) for edge in like.measure.edges])
    if share >= 1:
        return _binned(whole.rows, whole.units, edges)
    expected = share * whole.rows
    few = expected <= _FEW
    rows, units = whole.rows[few], whole.units[few]
    chance = np.exp(rows * math.log1p(-share))
    numbers = np.zeros(_COUNTED)
    for number in range(1, _COUNTED):
        chance = chance * np.maximum(rows - number + 1, 0.0) / number * (share / (1 - share))
        numbers[number] = float(chance @ units)
    small = _binned(np.arange(1.0, _COUNTED), numbers[1:], edges)
    return small + _binned(expected[~few], whole.units[~few], edges)


def _binned(values: Array, units: Array, edges: Array) -> Array:
    found: Array = np.bincount(np.searchsorted(edges, values, side="right"), weights=units, minlength=len(edges) + 1)
    return found


def with_groups(crowd: Crowd, seen: Histogram | None, most: int | None) -> Crowd:
    """The groups of each unit as a histogram has them, those with more rows in more; as they were if noise hides it.

    ``most`` is how many groups there are, where that is public.
    """
    curve = None if seen is None else next(iter(smooth(seen)[-1:]), curve_of(seen))
    if curve is None or curve.total <= 0:
        return crowd
    groups = np.maximum(1.0, curve.quantiles(_levels(crowd.rows, crowd.units)))
    return replace(crowd, groups=np.minimum(groups, crowd.rows if most is None else np.minimum(crowd.rows, most)))


def _levels(values: Array, units: Array) -> Array:
    """Which share of the units has no more, for each."""
    order = np.argsort(values, kind="stable")
    levels = np.empty_like(values)
    levels[order] = (np.cumsum(units[order]) - units[order] / 2) / units.sum()
    return levels


__all__ = ["SHARES", "OwnRows", "kept", "shares_of", "with_groups"]
