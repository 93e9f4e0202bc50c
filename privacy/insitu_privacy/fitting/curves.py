"""From a noisy histogram to how units are spread: what noise has made of empty bins removed, the tail drawn out.

Profiles are noisy, and how far a tail reaches decides how much clipping costs. So counts are looked at doubling by
doubling: from the fullest on they are believed as long as they stand three deviations clear of the noise, beyond a hole
where a run of them stands five; what lies beyond is drawn out from those. That errs towards long tails, as bounds do
that cost some noise rather than some bias.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from insitu_privacy.data_profile import Histogram

Array = np.ndarray[Any, Any]
_CLEAR = 3.0
"""Deviations by which a doubling must stand clear."""
_CLEAR_BEYOND = 5.0
"""Deviations by which a run of doublings beyond a hole must."""
_FALL = (0.02, 0.6)
"""Least and greatest share of a doubling's units that the next one is taken to have."""
_LEAST = 1e-3
"""Units of a doubling below which nothing is fitted to it: profiles have no more digits."""
_BEYOND = 5
"""Doublings that are drawn out beyond the last one believed."""
_WITHIN = (1 / 6, 1 / 2, 5 / 6)
"""Where the units of a bin are taken to lie in it."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Units by the size of what was counted: ``units[i]`` of them at ``values[i]``, ascending."""

    values: Array
    units: Array

    @property
    def total(self) -> float:
        """Number of units."""
        return float(self.units.sum())

    @property
    def mean(self) -> float:
        """Mean over units; 0 where there are none."""
        return float(self.values @ self.units) / self.total if self.total > 0 else 0.0

    def quantiles(self, levels: Array) -> Array:
        """The least value that at least a share ``levels`` of the units does not exceed."""
        if self.total <= 0:
            return np.zeros_like(levels)
        reached = np.cumsum(self.units) / self.total
        places = np.searchsorted(reached, levels, side="left")
        found: Array = self.values[np.minimum(places, len(self.values) - 1)]
        return found

    def share_between(self, low: float, high: float) -> float:
        """The share of units from ``low`` to ``high``, both included."""
        inside = (self.values >= low) & (self.values <= high)
        return float(self.units[inside].sum()) / self.total if self.total > 0 else 0.0


def curve_of(histogram: Histogram) -> Curve:
    """How units are spread by a histogram."""
    edges = [float(edge) for edge in histogram.measure.edges]
    counts = list(histogram.counts)
    if histogram.measure.kind == "values" and _is_even(edges):
        ends = [2 * edges[0] - edges[1], *edges, 2 * edges[-1] - edges[-2]] if len(edges) > 1 else _around(edges[0])
        return _spread(ends, [max(0.0, count) for count in counts])
    positive = [place for place, edge in enumerate(edges) if edge > 0]
    first = positive[0] if positive else len(edges)
    whole = histogram.measure.kind in ("rows", "distinct")
    above = _side(edges[first:], counts[first + 1 :], histogram.deviation, whole=whole)
    lower = [-edge for edge in reversed(edges[:first])]
    below = _side(lower, list(reversed(counts[:first])), histogram.deviation, whole=False)
    inside = max(0.0, counts[first]) if first < len(counts) else 0.0
    zero = (0.0, edges[first]) if positive and not edges[:first] else (0.0, 0.0)
    middle = _spread(list(zero), [inside])
    if whole:  # a unit that is there has a row: bin 0 is noise
        middle = _spread([0.0, 0.0], [0.0])
    return Curve(
        values=np.concatenate([-below.values[::-1], middle.values, above.values]),
        units=np.concatenate([below.units[::-1], middle.units, above.units]),
    )


def _is_even(edges: Sequence[float]) -> bool:
    """Whether bins are about equally wide, as against doublings."""
    if len(edges) < 4 or min(edges) <= 0 <= max(edges):
        return len(edges) < 4
    return abs(edges[-1] - edges[-2]) < 4 * abs(edges[1] - edges[0])


def _around(edge: float) -> list[float]:
    return [edge - 1, edge, edge + 1]


def _spread(ends: Sequence[float], counts: Sequence[float], *, whole: bool = False) -> Curve:
    """Units evenly over their bins; where they are whole numbers, the end of a bin is not in it."""
    low, high = np.array(ends[:-1]), np.array(ends[1:]) - (1.0 if whole else 0.0)
    values = np.stack([low + (high - low) * part for part in _WITHIN], axis=1).reshape(-1)
    return Curve(values=values, units=np.repeat(np.array(counts, dtype=float) / len(_WITHIN), len(_WITHIN)))


def _side(edges: list[float], counts: list[float], deviation: float, *, whole: bool) -> Curve:
    """One side of zero: ``counts[i]`` from ``edges[i]`` on."""
    if not edges:
        return Curve(values=np.zeros(0), units=np.zeros(0))
    least = next((edge for edge in edges if edge > 0), 1.0) / 2  # of whole numbers below zero, the first edge is 0
    octaves = np.floor(np.log2(np.maximum(edges, least))).astype(int)
    octaves -= octaves[0]
    sums = np.bincount(octaves, weights=counts)
    noise = deviation * np.sqrt(np.bincount(octaves))
    first, last = _last_run(sums, noise)
    kept = np.where(octaves <= last, np.maximum(counts, 0.0), 0.0)
    believed = np.bincount(octaves, weights=kept)  # a doubling holds what its bins say in sum, negative ones among them
    kept *= np.where(believed > 0, np.maximum(sums, 0.0) / np.maximum(believed, 1e-9), 0.0)[octaves]
    for octave, units in _beyond(sums, first, last + 1, noise):
        places = np.flatnonzero(octaves == octave)
        parts = np.power(max(units / max(float(sums[last]), 1.0), 1e-3), (np.arange(len(places)) + 0.5) / len(places))
        for place, part in zip(places, parts / parts.sum() if len(places) else parts, strict=True):
            kept[place] = units * float(part)
    return _spread([*edges, edges[-1] * 2], [float(one) for one in kept], whole=whole)


def _last_run(sums: Array, noise: Array) -> tuple[int, int]:
    """The first and last doubling of the farthest run that is believed; (0, -1) where not the fullest stands clear.

    From the fullest on, doublings are believed as long as each stands clear. Beyond a hole there may be more, as where
    one ward costs a hundred times as much as others: a run of doublings that together stand clear of all noise. One
    alone now and then does by noise, among so many, which is why those must stand clear by more.
    """
    if not len(sums):
        return 0, -1
    most = int(np.argmax(sums))
    clear = sums > _CLEAR * noise
    if not clear[most]:
        return 0, -1
    first, last = most, most + _length(clear[most:]) - 1
    while (run := _farther(sums, noise, last + 1)) is not None:
        first, last = run
        last += _length(clear[last + 1 :])
    return first, last


def _length(clear: Array) -> int:
    """How many are clear before the first that is not."""
    holes = np.flatnonzero(~clear)
    return int(holes[0]) if len(holes) else len(clear)


def _farther(sums: Array, noise: Array, start: int) -> tuple[int, int] | None:
    """From ``start`` on, the run that stands farthest clear of the noise; None where none does by enough."""
    found, farthest = None, _CLEAR_BEYOND
    for first in range(start, len(sums)):
        heights = np.cumsum(sums[first:]) / np.sqrt(np.cumsum(noise[first:] ** 2) + 1e-9)
        place = int(np.argmax(heights))
        if heights[place] > farthest:
            found, farthest = (first, first + place), float(heights[place])
    return found


def _beyond(seen: Array, first: int, believed: int, noise: Array) -> Iterator[tuple[int, float]]:
    """Doublings beyond those believed, and the units each is taken to have: at most a deviation more than was seen.

    The logarithms of the doublings from the fullest on are fitted by a parabola, which is a log-normal tail, or by a
    line, which is that of a power, where the parabola bends upwards; each in its precision.
    """
    sums = seen[:believed]
    if first >= len(sums):
        return
    start = first + int(np.argmax(sums[first:]))
    tail, places = sums[start:], np.arange(start, len(sums))
    if len(tail) < 2 or float(tail.min()) < _LEAST:
        return
    precision = tail / np.sqrt(noise[start : len(sums)] ** 2 + tail)
    fitted = np.polyfit(places, np.log(tail), 2 if len(tail) > 2 else 1, w=precision)
    if len(fitted) == 3 and fitted[0] > 0:
        fitted = np.polyfit(places, np.log(tail), 1, w=precision)
    before = float(np.polyval(fitted, len(sums) - 1))
    units = min(float(sums[-1]), math.exp(min(before, 700.0)))
    for octave in range(len(sums), min(len(sums) + _BEYOND, len(seen))):
        after = float(np.polyval(fitted, octave))
        units *= min(max(math.exp(min(after - before, 0.0)), _FALL[0]), _FALL[1])
        units = min(units, max(0.0, float(seen[octave])) + float(noise[octave]))
        before = after
        yield octave, units


def grid(points: int = 240, tail: int = 240, least: float = 1e-6) -> tuple[Array, Array]:
    """Levels from 0 to 1, finer towards 1, and the share of the units that each stands for."""
    body = (np.arange(points) + 0.5) / points * 0.9
    ends = np.exp(np.linspace(math.log(0.1), math.log(least), tail + 1))
    levels = np.concatenate([body, 1 - np.sqrt(ends[:-1] * ends[1:]), [1 - least / 2]])
    shares = np.concatenate([np.full(points, 0.9 / points), ends[:-1] - ends[1:], [least]])
    return levels, shares
