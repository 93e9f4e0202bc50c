"""Intervals from the answers of perturbed copies: how far each cell's reaches below and above its value.

The interval is the bias-corrected percentile interval of the copies (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, section 14.3, without acceleration): the noise being symmetric, it is exact for any increasing function
of a statistic, ratios and roots among them, and it moves back what noise moves one way, as it does a variance.

Answers that come in steps (counts at small scales, quantiles that are leaves of a tree) repeat among copies:

- An end that many copies share counts as reached by half of them: the mid-P rule (Lancaster, Significance tests in
  discrete distributions, JASA 56, 1961; Berry and Armitage, Mid-P confidence intervals, The Statistician 44, 1995).
  Intervals then hold 95 per cent on average, where "at least 95" would be up to 100; where one step holds more than 97
  per cent by itself no interval can hold less.
- Only what ties leave unexplained is bias: a value that most copies repeat is not off because few are below it.

Dates are counted in days, timestamps in microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa

from insitu_privacy.tree import Array

_LEAST_SIDE = 0.02
"""With a smaller share of copies on one side the value is an extreme of what noise makes of it: no interval."""
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # timestamps have no zone
_MICROSECOND = timedelta(microseconds=1)
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Of each cell of a column, how far its interval reaches to both sides; NaN where it has none."""

    low: Array
    high: Array
    lost: Array
    """Where it has none because some copy has no value."""


def is_measured(kind: pa.DataType) -> bool:
    """Whether a column of answers can have intervals: numbers, dates and timestamps."""
    types = pa.types
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(numeric or types.is_date(kind) or types.is_timestamp(kind))


def cell_spread(answers: Any, copies: int, cells: int, level: float) -> Spread:
    """For stacked copies, the first of which is not perturbed."""
    table = _numbers(answers).reshape(copies, cells)
    with np.errstate(invalid="ignore"):  # infinity less infinity: no interval
        return percentiles(table[1:] - table[:1], level)


def row_spread(copies: Sequence[Any], value: Any, level: float) -> Spread:
    """For one value of a whole answer."""
    middle, others = as_number(value), [as_number(one) for one in copies]
    known = [one for one in others if one is not None]
    if middle is None or len(known) < len(others):
        nothing = np.full(1, math.nan)
        return Spread(low=nothing, high=nothing, lost=np.ones(1, dtype=bool))
    return percentiles(np.array([float(one - middle) for one in known]).reshape(-1, 1), level)


def as_number(value: Any) -> int | float | None:
    """A number, a date in days or a timestamp in microseconds; None for anything else."""
    if isinstance(value, datetime):
        plain = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
        return (plain - _EPOCH) // _MICROSECOND
    if isinstance(value, date):
        return value.toordinal()
    if isinstance(value, Decimal):
        return float(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _numbers(answers: Any) -> Array:
    kind = answers.type
    if pa.types.is_timestamp(kind):
        answers = answers.cast(pa.timestamp("us", kind.tz)).cast(pa.int64())
    elif pa.types.is_date(kind):
        answers = answers.cast(pa.date32()).cast(pa.int32())
    found: Array = answers.cast(pa.float64(), safe=False).combine_chunks().to_numpy(zero_copy_only=False)
    return found


def percentiles(spread: Array, level: float) -> Spread:
    """Both ends for each column of deviations of copies from the value, one row a copy."""
    copies = len(spread)
    finite: Array = np.isfinite(spread)
    lost = np.logical_not(finite.all(axis=0))
    ordered = np.sort(np.where(lost, 0.0, spread), axis=0)
    less, equal = (ordered < 0).sum(axis=0), (ordered == 0).sum(axis=0)
    below = np.clip(0.5, less / copies, (less + equal) / copies)
    tail = np.full(len(lost), (1 - level) / 2)
    tails = np.stack([tail, tail])
    luck = 1 / math.sqrt(copies)  # two standard deviations of a share near one half
    for column in np.flatnonzero(np.abs(below - 0.5) > luck):
        tails[:, column] = _corrected(float(below[column]), level)
    low, high = _end(ordered, tails[0]), -_end(-ordered[::-1], tails[1])
    unbounded = lost | np.isnan(tails[0])
    return Spread(low=np.where(unbounded, np.nan, low), high=np.where(unbounded, np.nan, high), lost=lost)


def _corrected(below: float, level: float) -> tuple[float, float]:
    """What shares of the copies are to lie beyond the two ends."""
    if not _LEAST_SIDE <= below <= 1 - _LEAST_SIDE:
        return math.nan, math.nan
    shift, reach = 2 * _NORMAL.inv_cdf(below), _NORMAL.inv_cdf((1 + level) / 2)
    return _NORMAL.cdf(shift - reach), 1 - _NORMAL.cdf(shift + reach)


def _end(ordered: Array, tail: Array) -> Array:
    """The lower end that leaves ``tail`` of the copies beyond it, for each column of rising values."""
    ranks = len(ordered) + 1
    places = np.clip(np.floor(np.nan_to_num(tail) * ranks + 1e-9).astype(np.int64) - 1, 0, len(ordered) - 1)
    ends = np.take_along_axis(ordered, places[None, :], axis=0)[0]
    less, equal = (ordered < ends).sum(axis=0), (ordered == ends).sum(axis=0)
    reached = (less + (equal + 1) / 2) / ranks
    further = np.clip(less + equal, 0, len(ordered) - 1)
    inner = np.take_along_axis(ordered, further[None, :], axis=0)[0]
    found: Array = np.where((reached < tail - 1e-9) & (equal > 1), inner, ends)
    return found
