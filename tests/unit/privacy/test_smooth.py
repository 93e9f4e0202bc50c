"""Log-normal numbers behind a noisy histogram: the tail that noise hides, and nobody where there is only noise."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from insitu_privacy.data_profile import Histogram, Measure
from insitu_privacy.fitting.smooth import smooth

EDGES = (Fraction(1), *(Fraction(edge) for power in range(1, 16) for edge in (2**power, 3 * 2 ** (power - 1))))
ROWS = Measure(table="", kind="rows", column=None, edges=EDGES)


def histogram(numbers: np.ndarray, noise: float, seed: int) -> Histogram:
    counts = np.bincount(np.searchsorted([float(one) for one in EDGES], numbers, side="right"), minlength=ROWS.bins)
    drawn = np.random.default_rng(seed).laplace(0, noise, ROWS.bins)
    return Histogram(measure=ROWS, counts=tuple((counts + drawn).tolist()), deviation=noise * 2**0.5)


def numbers(median: float, spread: float, persons: int, seed: int) -> np.ndarray:
    return np.maximum(1, np.round(np.random.default_rng(seed).lognormal(np.log(median), spread, persons)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("median", "spread"), [(1.2, 0.5), (6, 0.4), (6, 1.2), (300, 0.8)])
def test_what_is_there_is_found_with_the_tail_that_noise_hides(median: float, spread: float, seed: int) -> None:
    there = numbers(median, spread, 3_000, seed)
    found = smooth(histogram(there, 30.0, seed))
    assert 1 <= len(found) <= 3
    means = [one.mean for one in found]
    assert means == sorted(means)
    assert means[0] * 0.8 < float(there.mean()) < means[-1] * 1.25
    for curve in found:
        assert curve.total == pytest.approx(len(there), rel=0.15)
        assert float(curve.quantiles(np.array([0.99]))[0]) < 3 * float(np.quantile(there, 0.99))


@pytest.mark.parametrize("seed", range(10))
def test_noise_alone_is_nobody(seed: int) -> None:
    assert smooth(histogram(np.array([]), 30.0, seed)) == ()


def test_what_is_nothing_like_it_is_explained_by_none() -> None:
    assert smooth(histogram(np.array([1] * 2_000 + [500] * 2_000), 10.0, 1)) == ()
