"""Draws the noise: OpenDP's integer mechanisms, one vector call per statistic. The only place where noise is made.

Input is exact and private; output is safe to release. Before any noise is drawn, OpenDP's own privacy map is asked for
the loss of the very measurement that is about to run, at the sensitivity the plan declares; a measurement whose loss
exceeds the plan's claim does not run (P3; DESIGN.md section 4, Mechanisms).

A known fault of OpenDP 0.16.0, measured: its threshold measurements release counts >= threshold but compute delta for
counts > threshold (scale 1, threshold 5: claimed 0.0049, true 0.0134). The plan computes delta at tau for "> tau", so
this module passes ``threshold = tau + 1`` and asks the map of the measurement at tau. A test measures it.

Importing OpenDP takes seconds: this module is imported by the node alone, and OpenDP only when it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from functools import lru_cache
from itertools import product
from typing import Any

import opendp.prelude as dp

from insitu_privacy.errors import ExecutionFailed
from insitu_privacy.plan import KeyValue, Release, ReleasedValues, Statistic, Tree, key_order
from insitu_privacy.tree import grown

dp.enable_features("contrib")

Row = tuple[Any, ...]
JsonKey = int | float | str | bool | None
_SATURATION = 2**62


@dataclass(frozen=True, slots=True, repr=False)
class ExactCells:
    """Private rows as the engine returned them: keys, then exact statistics. Its repr hides them."""

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        return "ExactCells(<private>)"


def privatize(
    release: Release, cells: ExactCells, selected: Sequence[tuple[JsonKey, ...]] | None = None
) -> ReleasedValues:
    """The noisy values of a release.

    ``selected`` are the keys of the release that this one follows (``Tree.keys_of``): public by then.
    Raises ExecutionFailed (INSITU-MECHANISM-CLAIM) before drawing noise where OpenDP's map exceeds the plan's claim.
    """
    check_claims(release)
    if release.tree is not None:
        return _grown(release, release.tree, cells, selected)
    groups = _by_key(release, cells)
    if release.threshold is None:
        domains = [key.domain or () for key in release.keys]
        order = list(product(*domains))
        return ReleasedValues(keys=None, statistics=_noisy(release, groups, order, skip=None))
    return _selected(release, groups)


def check_claims(release: Release) -> None:
    """Recomputes every loss of a release with OpenDP and compares it with the plan's claim."""
    groups = release.bounds.max_groups
    for index, statistic in enumerate(release.statistics):
        if release.threshold is not None and index == release.threshold.statistic:
            _check_threshold(release, statistic, groups)
            continue
        loss = _vector_loss(release.mechanism, statistic.scale, groups * statistic.levels, statistic.linf)
        _require(loss, statistic.epsilon if release.mechanism == "laplace" else statistic.rho)


def _check_threshold(release: Release, statistic: Statistic, groups: int) -> None:
    assert release.threshold is not None
    tau = release.threshold.tau
    loss, delta = _threshold_loss(release.mechanism, statistic.scale, tau, groups, statistic.linf)
    _require(loss, statistic.epsilon if release.mechanism == "laplace" else statistic.rho)
    _require(delta, release.threshold.delta)


_ROUNDING = Fraction(1) + Fraction(1, 2**40)
"""OpenDP's maps round up in floats, the plan's claims are exact: equal losses may differ by a few units in the last
place. Twelve decimal digits are compared."""


def _require(loss: float, claim: Fraction) -> None:
    if not Fraction(loss) <= claim * _ROUNDING:
        raise ExecutionFailed("INSITU-MECHANISM-CLAIM")


def _l2(groups: int, linf: int) -> float:
    """sqrt(groups) * linf, rounded up."""
    return math.sqrt(groups) * linf * (1 + 2**-50)


@lru_cache(maxsize=256)
def _vector_measurement(mechanism: str, scale: Fraction) -> Any:
    domain = dp.vector_domain(dp.atom_domain(T="i64"))
    if mechanism == "laplace":
        return dp.m.make_laplace(domain, dp.l1_distance(T="i64"), _float_up(scale))
    return dp.m.make_gaussian(domain, dp.l2_distance(T="f64"), _float_up(scale), MO="ZeroConcentratedDivergence")


@lru_cache(maxsize=256)
def _threshold_measurement(mechanism: str, scale: Fraction, threshold: int) -> Any:
    domain = dp.map_domain(dp.atom_domain(T="i64"), dp.atom_domain(T="i64"))
    if mechanism == "laplace":
        metric = dp.l01inf_distance(dp.absolute_distance(T="i64"))
        return dp.m.make_laplace_threshold(domain, metric, _float_up(scale), threshold)
    metric = dp.l02inf_distance(dp.absolute_distance(T="f64"))
    return dp.m.make_gaussian_threshold(
        domain, metric, _float_up(scale), threshold, MO="Approximate<ZeroConcentratedDivergence>"
    )


@lru_cache(maxsize=256)
def _vector_loss(mechanism: str, scale: Fraction, cells: int, linf: int) -> float:
    """What OpenDP's map says of a measurement where that many cells move by ``linf``. It is asked once of each: a
    measurement is one object as long as it is kept, and its map a function."""
    measurement = _vector_measurement(mechanism, scale)
    loss: float = measurement.map(cells * linf if mechanism == "laplace" else _l2(cells, linf))
    return loss


@lru_cache(maxsize=256)
def _threshold_loss(mechanism: str, scale: Fraction, tau: int, groups: int, linf: int) -> tuple[float, float]:
    total = groups * linf if mechanism == "laplace" else _l2(groups, linf)
    loss, delta = _threshold_measurement(mechanism, scale, tau).map((groups, total, linf))
    return loss, delta


def _float_up(scale: Fraction) -> float:
    near = float(scale)
    return near if Fraction(near) >= scale else near * (1 + 2**-52)


# -- cells -----------------------------------------------------------------------------------------------------------


def _by_key(release: Release, cells: ExactCells) -> dict[tuple[KeyValue, ...], Row]:
    """Exact statistics by group key. A release without keys has the one group ()."""
    width = len(release.keys)
    return {tuple(_key(value) for value in row[:width]): row[width:] for row in cells.rows}


def _key(value: Any) -> KeyValue:
    """NaN is NULL; and -0.0 is 0.0, which SQL groups with it: which of the two stood first is some person's row."""
    if isinstance(value, float):
        return None if math.isnan(value) else value + 0.0
    key: KeyValue = value
    return key


def _noisy(
    release: Release,
    groups: Mapping[tuple[KeyValue, ...], Row],
    order: Sequence[tuple[KeyValue, ...]],
    skip: int | None,
) -> tuple[tuple[int, ...], ...]:
    """Noise on each statistic but ``skip``, in the order of cells given; a group that is not there counts 0."""
    return tuple(
        ()
        if index == skip
        else tuple(
            _vector_measurement(release.mechanism, statistic.scale)(
                [_saturated(groups[key][index]) if key in groups else 0 for key in order]
            )
        )
        for index, statistic in enumerate(release.statistics)
    )


def _saturated(value: Any) -> int:
    """Fits 64 bits whatever the data: clipping both neighbours' sums alike cannot raise the sensitivity."""
    return max(-_SATURATION, min(_SATURATION, int(value)))


def _selected(release: Release, groups: Mapping[tuple[KeyValue, ...], Row]) -> ReleasedValues:
    """Keys by thresholding on the noisy number of units, then noise on the other statistics of those that remain."""
    assert release.threshold is not None
    index = release.threshold.statistic
    order = list(groups)
    counts = {place: _saturated(groups[key][index]) for place, key in enumerate(order)}
    scale = release.statistics[index].scale
    # the fault described above: 0.16.0 keeps counts >= threshold
    kept = _threshold_measurement(release.mechanism, scale, release.threshold.tau + 1)(counts)
    chosen = sorted(kept, key=lambda place: key_order(order[place]))
    others = _noisy(release, groups, [order[place] for place in chosen], skip=index)
    selected = tuple(kept[place] for place in chosen)
    return ReleasedValues(
        keys=tuple(tuple(_json(value) for value in order[place]) for place in chosen),
        statistics=tuple(selected if at == index else values for at, values in enumerate(others)),
    )


def _grown(
    release: Release, tree: Tree, cells: ExactCells, selected: Sequence[tuple[JsonKey, ...]] | None
) -> ReleasedValues:
    """A noisy tree of counts for each group, noise on every node."""
    width = len(release.keys)
    leaves: dict[tuple[JsonKey, ...], list[tuple[int, int]]] = {}
    for row in cells.rows:
        key = tuple(_json(_key(value)) for value in row[:width])
        leaves.setdefault(key, []).append((int(row[width]), _saturated(row[width + 1])))
    if tree.keys_of is None:
        order = [tuple(map(_json, key)) for key in product(*(key.domain or () for key in release.keys))]
    elif selected is not None:
        order = list(selected)
    else:
        raise ExecutionFailed("INSITU-MECHANISM-CLAIM")  # without keys there is nothing that may be shown
    exact = [count for key in order for count in grown(tree.leaves, leaves.get(key, ()))]
    (statistic,) = release.statistics
    noisy, nodes = _vector_measurement(release.mechanism, statistic.scale)(exact), release.width
    return ReleasedValues(
        keys=None if tree.keys_of is None else tuple(order),
        statistics=tuple(tuple(noisy[place::nodes]) for place in range(nodes)),
    )


def _json(value: KeyValue) -> JsonKey:
    return value.isoformat() if isinstance(value, (date, datetime)) else value
