"""The contribution bounds of one release with the least expected total error, bias squared and noise squared.

For each statistic, in shares of a typical group: the bias is what clipping takes of all units' rows, groups and sums;
the noise is that of the mechanism at its best split of the budget, in closed form: with sensitivities a_j in shares of
a group, the least sum of squares at a given epsilon is (sum of a_j^(2/3))^3 under Laplace and (sum of a_j)^2 under
Gaussian noise (``passes.mechanisms`` splits so). Of private keys the groups count that a threshold lets through, and
those that it hides (``passing``). Bounds are tried on a grid of ratios of the root of two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from insitu_privacy.fitting.crowd import SPREAD, Crowd
from insitu_privacy.fitting.curves import Array
from insitu_privacy.fitting.passing import Passing, Terms, importance_of, passing, threshold
from insitu_privacy.plan import Release, Statistic
from insitu_privacy.tree import noise_of_ranks

_MOST_ROWS, _MOST_GROUPS = 2**17, 2**12
_SENSITIVITY_LIMIT = 2**60
_CAPS = 28
_NEAR = 1 + 1e-9
_ELSEWHERE = 1 / 8
"""How far from the others, in ranks, the values of units with many rows are taken to lie: a guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Bounds of one release. Tuples have one entry for each statistic."""

    max_rows_per_group: int
    max_groups: int
    caps: tuple[int | None, ...]
    """The most a unit adds to a group, in multiples of the granularity; None where rows bound it."""
    centers: tuple[float | None, ...]
    """What the values of an average are taken from, where that is not the middle of their bounds."""
    importance: tuple[float, ...]
    """Sensitivities in shares of a typical group, by which budget is split."""
    bias: tuple[float, ...]
    """The share of each statistic that clipping is expected to take."""
    rows_bias: float
    """The share of rows that is taken."""
    noise: float
    """The root of the noise's mean square over the statistics, in shares of a typical group."""
    typical: float
    """A typical group's share of all rows: of groups that a threshold lets through, where there is one."""
    lost: float
    """The share of rows that is expected in groups below the threshold."""
    of_ranks: float | None = None
    """Of a tree of counts, how many times a node's noise that of a rank is."""

    @property
    def error(self) -> float:
        """What is made least: a group that is not released is wrong by all of it.

        Quantiles are wrong by ranks. The rows of a unit with more than count are scaled, all of them alike, so that a
        quantile moves only as far as their values lie elsewhere than others'.
        """
        bias, noise = sum(one**2 for one in self.bias), self.noise**2
        if self.of_ranks is not None:
            bias, noise = bias * _ELSEWHERE**2, noise * self.of_ranks**2
        return self.lost * len(self.bias) + (1 - self.lost) * (bias + noise)


def choose(
    release: Release, crowds: Sequence[Crowd], terms: Terms, *, rows: int | None = None, groups: int | None = None
) -> Choice:
    """The bounds with the least mean error over ``crowds``; ``rows`` and ``groups`` where they are not to be chosen."""
    best: Choice | None = None
    totals = [totals_of(release, crowd) for crowd in crowds]
    for most_groups in [groups] if groups is not None else _candidates(_useful_groups(release, crowds)):
        for most_rows in [rows] if rows is not None else _useful_rows(release, crowds):
            tried = _tried(
                [
                    _Statistics(release, crowd, terms, each, rows=most_rows, groups=most_groups)
                    for crowd, each in zip(crowds, totals, strict=True)
                ],
                caps=rows is None,
            )
            if tried is not None and (best is None or tried.error <= best.error * _NEAR):
                best = tried
    assert best is not None, "a grid of bounds is never empty"
    return best


def _useful_groups(release: Release, crowds: Sequence[Crowd]) -> int:
    varying = 1
    for key in release.keys:
        if not key.constant:
            varying = _MOST_GROUPS if key.domain is None else min(_MOST_GROUPS, varying * max(1, len(key.domain)))
    return min(varying, max(1, math.ceil(max(float(one.groups.max()) for one in crowds))))


def _useful_rows(release: Release, crowds: Sequence[Crowd]) -> Iterator[int]:
    if all(float(one.rows.max()) <= 1 for one in crowds):
        return iter([1])
    if all(one.kind == "units" for one in release.statistics):  # rows are not counted
        return iter([release.bounds.max_rows_per_group])
    return _candidates(_MOST_ROWS)


def _candidates(most: int) -> Iterator[int]:
    last, power = 0, 0
    while True:
        number = round(2 ** (power / 2))
        if number >= most:
            yield most
            return
        if number != last:
            yield number
        last, power = number, power + 1


def totals_of(release: Release, crowd: Crowd) -> tuple[float, ...]:
    """Of each statistic over all units, without bounds: rows, units in groups, or values in multiples of the
    granularity, before a centre is taken off."""
    return tuple(_total(statistic, crowd) for statistic in release.statistics)


def _total(statistic: Statistic, crowd: Crowd) -> float:
    if statistic.kind == "units":
        return float(crowd.units @ crowd.groups)
    if statistic.kind != "sum":
        return crowd.total * statistic.most
    assert statistic.value is not None
    sums = crowd.sums.get(statistic.value)
    if sums is not None:
        found = float(crowd.units @ np.abs(sums)) / float(statistic.granularity)
        return max(found, 1.0)
    typical = abs(float(statistic.center / statistic.granularity)) or statistic.most / 2
    return crowd.total * max(typical, 1.0)


def _tried(parts: Sequence[_Statistics], *, caps: bool) -> Choice | None:
    """The choice at one m and C, seen under each assumption; None where its sensitivity is too large to compute in."""
    release = parts[0].release
    found = [
        _bounded(index, one, parts, caps=caps and one.kind == "sum") for index, one in enumerate(release.statistics)
    ]
    return _weighed(parts, found)


def error_at(choice: Choice, release: Release, crowd: Crowd, terms: Terms) -> float:
    """``Choice.error`` of bounds that were chosen for others, should ``crowd`` be what is there."""
    rows = choice.max_rows_per_group
    part = _Statistics(release, crowd, terms, totals_of(release, crowd), rows=rows, groups=choice.max_groups)
    found = [
        (_plain(one, rows) if cap is None else cap, cap is not None, center)
        for one, cap, center in zip(release.statistics, choice.caps, choice.centers, strict=True)
    ]
    weighed = _weighed([part], found)
    assert weighed is not None, "what was chosen can be computed in"
    return weighed.error


def _weighed(parts: Sequence[_Statistics], found: Sequence[tuple[int, bool, float | None]]) -> Choice | None:
    release, terms, rows, groups = parts[0].release, parts[0].terms, parts[0].rows, parts[0].groups
    widest = max(linf * one.levels for (linf, _, _), one in zip(found, release.statistics, strict=True))
    if widest * groups >= _SENSITIVITY_LIMIT:
        return None
    noises, biases, important = [], [], []
    for part in parts:
        sensitivities = [part.sensitivity(index, linf) for index, (linf, _, _) in enumerate(found)]
        importance = importance_of(sensitivities, part.selects, terms, groups)
        noises.append(_noise(sensitivities, importance, terms, groups))
        important.append(importance)
        biases.append([part.bias(index, linf) for index, (linf, _, _) in enumerate(found)])
    bias = tuple(math.sqrt(sum(one**2 for one in each) / len(parts)) for each in zip(*biases, strict=True))
    return Choice(
        max_rows_per_group=rows,
        max_groups=groups,
        caps=tuple(linf if capped else None for linf, capped, _ in found),
        centers=tuple(center for _, _, center in found),
        importance=tuple(sum(each) / len(parts) for each in zip(*important, strict=True)),
        bias=bias,
        rows_bias=sum(part.rows_bias for part in parts) / len(parts),
        noise=math.sqrt(sum(one**2 for one in noises) / len(noises)),
        typical=sum(part.groups_seen.size for part in parts) / len(parts),
        lost=sum(part.groups_seen.lost for part in parts) / len(parts),
        of_ranks=None if release.tree is None else noise_of_ranks(release.tree.leaves),
    )


def _bounded(
    index: int, statistic: Statistic, parts: Sequence[_Statistics], *, caps: bool
) -> tuple[int, bool, float | None]:
    """What a unit may add to a group, whether that is a cap of its own, and the centre it goes with."""
    plain = _plain(statistic, parts[0].rows)
    if statistic.kind != "sum":
        return plain, False, None
    options = parts[0].caps(index) if caps and all(part.has_sums(index) for part in parts) else []
    best, capped = plain, False
    least = _capped_error(index, plain, parts)
    for cap in options:
        error = _capped_error(index, cap, parts)
        if cap < plain and error < least:
            best, least, capped = cap, error, True
    if not (capped and statistic.center):
        return best, capped, None
    return best, capped, sum(part.mean(index) for part in parts) / len(parts)


def _plain(statistic: Statistic, rows: int) -> int:
    """What a unit may add to a group where rows bound it."""
    return (1 if statistic.kind == "units" else rows) * statistic.most


def _capped_error(index: int, linf: int, parts: Sequence[_Statistics]) -> float:
    return sum(part.bias(index, linf) ** 2 + part.alone(index, linf) ** 2 for part in parts)


def _noise(sensitivities: Sequence[float], importance: Sequence[float], terms: Terms, groups: int) -> float:
    """The root of the sum of squares of a mechanism's noise, its budget split by ``importance``."""
    found = []
    if terms.laplace:
        parts = [one ** (2 / 3) for one in importance]
        shares = [terms.epsilon * part / sum(parts) for part in parts]
        found.append(2 * sum((one / share) ** 2 for one, share in zip(sensitivities, shares, strict=True)))
    if terms.gaussian:
        shares = [terms.rho * one / sum(importance) for one in importance]
        squares = sum(one**2 / share for one, share in zip(sensitivities, shares, strict=True))
        found.append(squares / groups / 2)
    return math.sqrt(terms.nodes * min(found))


class _Statistics:
    """The statistics of a release over a crowd at given m and C: totals, and what is kept of them."""

    def __init__(
        self, release: Release, crowd: Crowd, terms: Terms, totals: Sequence[float], *, rows: int, groups: int
    ) -> None:
        self.release, self.terms, self.rows, self.groups = release, terms, rows, groups
        self._crowd, self._totals = crowd, totals
        self._in_group = crowd.rows / crowd.groups
        self._kept_groups = np.minimum(crowd.groups, groups)
        kept = float(crowd.units @ (self._kept_groups * self._at_most(rows)))
        self.rows_bias = max(0.0, 1 - kept / max(crowd.total, 1e-9))
        self._sums = {index: self._scaled(index) for index in range(len(release.statistics)) if self.has_sums(index)}
        self.selects = release.threshold.statistic if release.threshold is not None else None
        self.groups_seen = Passing(lost=0.0, size=1 / crowd.cells)
        if self.selects is not None:
            self.groups_seen = self._passing(self.selects)

    def _passing(self, selects: int) -> Passing:
        """Which groups a threshold lets through where no sum has a cap of its own."""
        rows = [(1 if one.kind == "units" else self.rows) * one.most for one in self.release.statistics]
        plain = [self.sensitivity(index, linf) for index, linf in enumerate(rows)]
        importance = importance_of(plain, selects, self.terms, self.groups)
        tau = threshold(importance, selects, self.terms, self.groups)
        return passing(self._crowd.cells, float(self._crowd.units @ self._kept_groups) / self.terms.nodes, tau)

    def _at_most(self, rows: int) -> Array:
        """Expected rows of a group that count: they lie unevenly, where there are several groups."""
        several = self._crowd.groups > 1
        found = np.zeros_like(self._in_group)
        for side, share in SPREAD:
            away = side * np.sqrt(np.maximum(self._in_group - 1, 0)) * several
            found += share * np.minimum(np.maximum(1.0, self._in_group + away), rows)
        return np.minimum(found, self._in_group)

    def _scaled(self, index: int) -> Array:
        """What each unit's values in a group add up to, scaled where it has more rows than count."""
        statistic = self.release.statistics[index]
        assert statistic.value is not None
        scaled = np.minimum(1.0, self.rows / self._in_group)
        found: Array = np.abs(self._crowd.sums[statistic.value]) / self._crowd.groups * scaled
        return found / float(statistic.granularity)

    def sensitivity(self, index: int, linf: int) -> float:
        """Of all groups of a unit together, in shares of a typical group."""
        cell = max(self._totals[index] * self.groups_seen.size, 1.0)
        return self.groups * self.release.statistics[index].levels * linf / cell

    def alone(self, index: int, linf: int) -> float:
        """The noise of one statistic with an equal share of the budget."""
        count = len(self.release.statistics)
        share = self.terms.epsilon / count
        return self.sensitivity(index, linf) * math.sqrt(2 * self.terms.nodes) / share

    def bias(self, index: int, linf: int) -> float:
        """The share of the total that bounds take."""
        crowd = self._crowd
        if self.release.statistics[index].kind == "units":
            return 1 - float(crowd.units @ self._kept_groups) / max(self._totals[index], 1e-9)
        if index not in self._sums:
            return self.rows_bias
        kept = float(crowd.units @ (self._kept_groups * np.minimum(self._sums[index], linf)))
        return max(0.0, 1 - kept / self._totals[index])

    def has_sums(self, index: int) -> bool:
        statistic = self.release.statistics[index]
        return statistic.kind == "sum" and statistic.value in self._crowd.sums

    def caps(self, index: int) -> list[int]:
        """What units' sums in a group may be held to: a grid over how they are spread."""
        statistic = self.release.statistics[index]
        assert statistic.value is not None
        in_group = np.abs(self._crowd.sums[statistic.value]) / self._crowd.groups / float(statistic.granularity)
        most, middle = float(in_group.max()), float(np.median(in_group))
        if most < 1:
            return []
        return sorted({max(1, round(one)) for one in np.geomspace(max(middle, 1.0), most, _CAPS)})

    def mean(self, index: int) -> float:
        """Of the values of a row."""
        statistic, crowd = self.release.statistics[index], self._crowd
        assert statistic.value is not None
        return float(crowd.units @ crowd.sums[statistic.value]) / max(crowd.total, 1e-9)
