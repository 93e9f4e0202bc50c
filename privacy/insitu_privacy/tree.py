"""Trees of counts: from leaves to a tree, and from a noisy tree to quantiles.

A tree of counts (Hay, Rastogi, Miklau, Suciu: Boosting the accuracy of differentially private histograms through
consistency, VLDB 2010) counts the leaves, and the sums of 16 leaves each, and so on up: a rank is then the sum of a few
nodes rather than of many leaves. ``consistent`` is the paper's section 4.2: the least-squares leaves, given that every
node was measured with the same noise; where the last node of a level has fewer than 16 below it, nearly those.

A tree is one vector, level by level from the top; ``plan.tree_levels`` has the sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from insitu_privacy.plan import QuantileKind, tree_levels
from insitu_privacy.simplex import onto_simplex

Array = np.ndarray[Any, Any]
_BRANCHES = 16
_CLEAR = 0.01
"""The chance that a level without any rows at its edge shows a node that seems to stand clear of the noise."""
_SURELY = 4.0
"""Deviations of a rank's noise."""


def grown(leaves: int, counts: Iterable[tuple[int, int]]) -> list[int]:
    """The tree over leaf counts, given as (leaf, count) for those that are there."""
    bottom = [0] * leaves
    for leaf, count in counts:
        bottom[leaf] += count
    levels = [bottom]
    for size in reversed(tree_levels(leaves)[:-1]):
        below = levels[0]
        levels.insert(0, [sum(below[place * _BRANCHES : (place + 1) * _BRANCHES]) for place in range(size)])
    return [count for level in levels for count in level]


def consistent(leaves: int, tree: Array) -> Array:
    """The leaves that fit all levels of noisy trees best: float array (..., leaves) from (..., nodes)."""
    levels = _split(leaves, tree)
    if len(levels) == 1:
        return levels[0]
    fitted = [levels[-1]]
    height, b = 1, _BRANCHES
    for level in reversed(levels[:-1]):  # what a node's own count and its children's say together
        height += 1
        own = (b**height - b ** (height - 1)) / (b**height - 1)
        fitted.insert(0, own * level + (1 - own) * _children(fitted[0], level.shape[-1]).sum(axis=-1))
    down = fitted[0]
    for below in fitted[1:]:  # what remains is spread evenly over the children
        family = _children(below, down.shape[-1])
        family = family + ((down - family.sum(axis=-1)) / b)[..., None]
        down = family.reshape(*below.shape[:-1], down.shape[-1] * b)[..., : below.shape[-1]]
    return down


def not_below_zero(leaves: int, fitted: Array) -> Array:
    """Leaves (..., leaves) none of which is below zero: from the top down, the nearest to each family's own values.

    The sums above them stay, where they are not below zero themselves: cutting each leaf off at zero would add to them.
    """
    levels = [fitted]
    for size in reversed(tree_levels(leaves)[:-1]):
        levels.insert(0, _children(levels[0], size).sum(axis=-1))
    down = onto_simplex(levels[0], np.maximum(levels[0].sum(axis=-1), 0))
    for below in levels[1:]:
        padded = _children(below, down.shape[-1])
        there = _children(np.ones(below.shape[-1]), down.shape[-1]) > 0
        family = onto_simplex(np.where(there, padded, -np.inf), down)
        down = family.reshape(*below.shape[:-1], -1)[..., : below.shape[-1]]
    return down


def quantile_places(
    leaves: int,
    tree: Array,
    *,
    kind: QuantileKind,
    level: float,
    weight: int,
    deviation: Array,
    non_negative: bool = False,
    beyond: tuple[bool, bool] = (False, False),
) -> Array:
    """Where a quantile lies among the leaves: float array (...) of places, NaN where there is none.

    ``tree`` is (..., nodes), ``weight`` what a row adds, ``deviation`` (...) the standard deviation of a node's noise.
    Where the first or last leaf holds what lies ``beyond`` it, a quantile is there as soon as one rank says so: no
    noise of the ranks between moves it back among leaves where it cannot be.
    """
    if kind in ("least", "greatest"):
        last = kind == "greatest"
        outermost = _outermost(leaves, tree, last=last, weight=weight, deviation=deviation)
        reached = _surely_reached(leaves, tree, last=last, weight=weight, deviation=deviation)
        return np.asarray(np.fmax(outermost, reached) if last else np.fmin(outermost, reached))
    fitted = not_below_zero(leaves, consistent(leaves, tree)) if non_negative else consistent(leaves, tree)
    ranks = np.cumsum(fitted, axis=-1) / weight
    total = fitted.sum(axis=-1) / weight
    if kind in ("discrete", "discrete from above"):
        nudge = 1e-9 if kind == "discrete from above" else -1e-9  # where the rank is whole, the next value or this one
        target = np.maximum(level * total * (1 + nudge), 0.5)
        places = _first(ranks, target)
    else:
        before = np.floor(level * np.maximum(total - 1, 0) + 1e-9)
        part = np.clip(level * np.maximum(total - 1, 0) - before, 0, 1)
        target = before + 0.5
        low, high = _first(ranks, target), _first(ranks, before + 1.5)
        places = low + np.where(part > 1e-6, part * (high - low), 0)
    if beyond[0]:
        places = np.where(ranks[..., 0] >= target, 0, places)
    if beyond[1] and leaves > 1:
        places = np.where(ranks[..., -2] < target, leaves - 1, places)
    lost = 2 * deviation * math.sqrt(tree_levels(leaves)[0])  # of the sum of the topmost nodes
    there = total > np.maximum(0.5, lost / weight)
    return np.where(there, places, np.nan)


def _split(leaves: int, tree: Array) -> list[Array]:
    ends = np.cumsum(tree_levels(leaves))[:-1]
    return [np.asarray(level, dtype=float) for level in np.split(tree, ends, axis=-1)]


def _children(level: Array, parents: int) -> Array:
    """(..., nodes) as (..., parents, 16), with zeros where the last parent has fewer."""
    missing = parents * _BRANCHES - level.shape[-1]
    padded = np.pad(level, [(0, 0)] * (level.ndim - 1) + [(0, missing)])
    families: Array = padded.reshape(*level.shape[:-1], parents, _BRANCHES)
    return families


def _first(ranks: Array, target: Array) -> Array:
    """The first leaf whose rank reaches the target; the last where none does.

    Noisy ranks do not only rise: as many leaves are passed as have a lower rank, which errs to neither side.
    """
    places: Array = (ranks < target[..., None]).sum(axis=-1)
    within: Array = np.minimum(places, ranks.shape[-1] - 1).astype(float)
    return within


def _outermost(leaves: int, tree: Array, *, last: bool, weight: int, deviation: Array) -> Array:
    """Down from the top, at each level the outermost node that stands clear of the noise; where none of a node's
    children does, its own outer edge."""
    levels = _split(leaves, tree)
    places: Array = np.zeros(tree.shape[:-1], dtype=np.int64)
    stopped: Array = np.zeros(tree.shape[:-1], dtype=bool)
    result: Array = np.full(tree.shape[:-1], np.nan)
    span = _BRANCHES ** (len(levels) - 1)
    for depth, level in enumerate(levels):
        family = (
            level
            if depth == 0
            else np.take_along_axis(_children(level, levels[depth - 1].shape[-1]), places[..., None, None], axis=-2)[
                ..., 0, :
            ]
        )
        clear = family > np.maximum(_clear_of(family.shape[-1], deviation), weight / 2)[..., None]
        found = clear.any(axis=-1) & ~stopped
        at = family.shape[-1] - 1 - clear[..., ::-1].argmax(axis=-1) if last else clear.argmax(axis=-1)
        first = at if depth == 0 else places * _BRANCHES + at
        places = np.where(found, first, places)
        edge = np.minimum((places + 1) * span - 1, leaves - 1) if last else places * span
        result = np.where(found, edge, result)
        stopped |= ~found
        span //= _BRANCHES
    return result


def noise_of_ranks(leaves: int) -> float:
    """The most that the deviation of a rank is, in deviations of a node: a rank is a sum of at most half the nodes of
    each family on its way, and of the topmost."""
    levels = tree_levels(leaves)
    return math.sqrt(levels[0] / 2 + _BRANCHES / 2 * (len(levels) - 1))


def _surely_reached(leaves: int, tree: Array, *, last: bool, weight: int, deviation: Array) -> Array:
    """A place beyond which there are more rows than noise makes seem there; NaN where there are too few for any.

    Where rows are spread thinly no single node may stand clear of the noise, and ranks do: a greatest value is no lower
    than a quantile that is.
    """
    margin = np.maximum(_SURELY * deviation * noise_of_ranks(leaves), weight / 2)
    ranks = np.cumsum(consistent(leaves, tree), axis=-1)
    total = ranks[..., -1]
    found: Array = np.where(total > 2 * margin, _first(ranks, total - margin if last else margin), np.nan)
    return found


def _clear_of(nodes: int, deviation: Array) -> Array:
    """What the largest of so many nodes' noise stays below but with a chance of 1 percent, for Laplace noise."""
    return deviation / math.sqrt(2) * math.log(nodes / 2 / _CLEAR)
