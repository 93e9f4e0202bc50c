"""Runs a hand-written statement and its noise: the floor of the benchmark. No accounting, no keys, no ledger.

The noise is real and as large as the bounds ask at epsilon = 1 (and delta = 1e-6 where keys are private), so that its
time is the time an expert with OpenDP would need.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import opendp.prelude as dp

from bench.queries import Handwritten, Query

dp.enable_features("contrib")
EPSILON, DELTA = 1.0, 1e-6
Rows = Sequence[Sequence[object]]


def answer(query: Query, rows: Rows) -> list[tuple[object, ...]]:
    """Noisy rows of a hand-written statement's exact rows: all public keys, or the keys above the threshold."""
    form = query.handwritten
    assert form is not None
    keys, columns = _cells(form, rows)
    scale = 1 if form.domains is None else query.max_groups * len(form.linf)
    noisy = [
        _noise(form, query.max_groups, linf * scale / EPSILON)(column)
        for linf, column in zip(form.linf, columns, strict=True)
    ]
    found = [(*key, *values) for key, *values in zip(keys, *noisy, strict=True)]
    if form.domains is None:
        found = [row for row in found if row[-1] > _threshold(query.max_groups)]
    return sorted(found, key=repr)


def _cells(form: Handwritten, rows: Rows) -> tuple[list[tuple[object, ...]], list[list[int]]]:
    width = len(form.linf)
    held = {tuple(row[:-width]): [_integer(value) for value in row[-width:]] for row in rows}
    keys = list(held) if form.domains is None else list(itertools.product(*form.domains))
    empty = [0] * width
    cells = [held.get(key, empty) for key in keys]
    return keys, [[cell[index] for cell in cells] for index in range(width)]


def _integer(value: object) -> int:
    return 0 if value is None else int(value)  # type: ignore[call-overload]  # int or Decimal


def _noise(form: Handwritten, groups: int, scale: float) -> Callable[[list[int]], list[int]]:
    vector = dp.vector_domain(dp.atom_domain(T="i64"))
    if form.domains is not None:
        return dp.m.make_laplace(vector, dp.l1_distance(T="i64"), scale)
    return dp.m.make_gaussian(vector, dp.l2_distance(T="f64"), _sigma(groups))


def _sigma(groups: int) -> float:
    """Of a Gaussian with epsilon 1 at half of delta, by the zCDP bound eps = rho + 2 sqrt(rho ln(1/delta))."""
    log = math.log(2 / DELTA)
    rho = (math.sqrt(log + EPSILON) - math.sqrt(log)) ** 2
    return math.sqrt(groups / (2 * rho))


def _threshold(groups: int) -> float:
    """One person's groups, at count one each, exceed it with probability below the other half of delta."""
    return 1 + _sigma(groups) * math.sqrt(2 * math.log(2 * groups / DELTA))
