"""The best fit of noisy marginals of one table to each other: least squares, weighted by the variances of their noise.

Marginals over a product of keys fall apart into orthogonal parts, one for each set of keys (Barak, Chaudhuri, Dwork,
Kale, McSherry, Talwar: Privacy, accuracy, and consistency too: a holistic solution to contingency table release, PODS
2007). A release measures the part of each subset of its keys, with noise that is the same in all directions: summed
over n cells, n times the variance. So the best fit of a part is the mean of its measurements, weighted by the inverse
of their variances, and the fit of a marginal is the sum of its parts. That is the weighted least-squares solution,
without the table of all keys ever being made. For trees, Hay, Rastogi, Miklau, Suciu do the same (VLDB 2010).

Then the fit is made whole numbers from the total down, so that parts add up to the last digit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from insitu_privacy.families import Family, Member
from insitu_privacy.simplex import onto_simplex, onto_total, whole

Array = np.ndarray[Any, Any]


def consistent(family: Family, values: Sequence[Array], *, non_negative: bool = False) -> list[Array]:
    """Whole numbers for each member's cells that fit all of ``values``, one flat array a member, and add up."""
    tensors = [_tensor(family, one, flat) for one, flat in zip(family.members, values, strict=True)]
    fits = _fit(family, tensors)
    top = max(family.members, key=lambda one: len(one.axes))
    if not all(set(one.axes) <= set(top.axes) for one in family.members):
        rounded = [np.rint(np.maximum(fit, 0) if non_negative else fit) for fit in fits]
    else:
        finest = _from_the_total_down(family, fits, non_negative=non_negative)
        rounded = [_marginal(finest, one.axes) for one in family.members]
    return [_flat(family, one, tensor) for one, tensor in zip(family.members, rounded, strict=True)]


def _fit(family: Family, tensors: Sequence[Array]) -> list[Array]:
    """The best fit of each member, as the sum of its orthogonal parts."""
    parts: dict[frozenset[int], Array] = {}
    for subset in dict.fromkeys(subset for one in family.members for subset in _subsets(one.axes)):
        weights, total = 0.0, np.zeros((1,) * len(family.sizes))
        for one, tensor in zip(family.members, tensors, strict=True):
            if subset <= set(one.axes):
                weight = 1 / (max(one.variance, 1e-300) * _cells(family, set(one.axes) - subset))
                total = total + weight * _part(tensor, subset)
                weights += weight
        parts[subset] = total / weights
    return [
        sum(
            (parts[subset] / _cells(family, set(one.axes) - subset) for subset in _subsets(one.axes)),
            np.zeros(tensor.shape),
        )
        for one, tensor in zip(family.members, tensors, strict=True)
    ]


def _subsets(axes: Sequence[int]) -> list[frozenset[int]]:
    return [frozenset(some) for count in range(len(axes) + 1) for some in combinations(axes, count)]


def _cells(family: Family, axes: Iterable[int]) -> int:
    return int(np.prod([family.sizes[axis] for axis in axes], dtype=np.int64))


def _part(tensor: Array, subset: frozenset[int]) -> Array:
    """The sums over the other keys, without what the sums over fewer keys already say."""
    found = _marginal(tensor, subset)
    for axis in subset:
        found = found - found.mean(axis=axis, keepdims=True)
    return found


def _marginal(tensor: Array, axes: Iterable[int]) -> Array:
    kept = set(axes)
    summed: Array = tensor.sum(axis=tuple(axis for axis in range(tensor.ndim) if axis not in kept), keepdims=True)
    return summed


def _from_the_total_down(family: Family, fits: Sequence[Array], *, non_negative: bool) -> Array:
    """Whole numbers for the finest table, that add up to whole numbers for coarser ones in a row, the total first."""
    ordered = sorted(zip(family.members, fits, strict=True), key=lambda pair: len(pair[0].axes))
    last: set[int] = set()
    done = np.rint(_marginal(ordered[0][1], ()))
    done = np.maximum(done, 0) if non_negative else done
    for one, fit in ordered:
        if last <= set(one.axes):
            new = sorted(set(one.axes) - last)
            done, last = _split(done, fit, new, non_negative=non_negative), set(one.axes)
    return done


def _split(above: Array, fit: Array, axes: Sequence[int], *, non_negative: bool) -> Array:
    """``fit`` as whole numbers whose sums over ``axes`` are ``above``."""
    if not axes:
        return above
    last = tuple(range(-len(axes), 0))
    moved = np.moveaxis(fit, axes, last)
    rows = moved.reshape(*moved.shape[: -len(axes)], -1)
    totals = np.moveaxis(above, axes, last).reshape(rows.shape[:-1])
    near = onto_simplex(rows, totals) if non_negative else onto_total(rows, totals)
    return np.moveaxis(whole(near, totals).reshape(moved.shape), last, axes)


def _tensor(family: Family, one: Member, flat: Array) -> Array:
    """The cells with an axis for each of the family's; of length 1 where it is no key of the member."""
    order = sorted(range(len(one.axes)), key=lambda place: one.axes[place])
    cells = flat.reshape([family.sizes[axis] for axis in one.axes]).transpose(order)
    return cells.reshape([size if axis in one.axes else 1 for axis, size in enumerate(family.sizes)])


def _flat(family: Family, one: Member, tensor: Array) -> Array:
    order = sorted(range(len(one.axes)), key=lambda place: one.axes[place])
    cells = tensor.reshape([family.sizes[one.axes[place]] for place in order])
    return cells.transpose(np.argsort(order) if order else []).reshape(-1)
