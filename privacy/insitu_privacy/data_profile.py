"""Profiles: differentially private histograms of what bounds depend on, released once per dataset version and node.

A *measure* is one histogram over fixed public bins: how many rows a unit has in a table (``rows``), how many values of
a column (``distinct``), what its values of a column add up to (``sums``), and which values there are (``values``, where
each unit counts once in all, spread over its rows). Each unit adds at most 1 to a measure. Which measures there are,
and their bins, follow from the dataset's contract alone (``profile_measures``). DESIGN.md section 4, Bounds that fit.

Profiles are public: whatever is computed from them costs nothing. Here are the values and their sum over nodes; how
they are made is said in ``profile_measures``, how they are signed in ``insitu_access.profile``, and what is concluded
from them in ``fitting``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from fractions import Fraction
from typing import Literal

MeasureKind = Literal["rows", "distinct", "sums", "values"]
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What one histogram counts. Bin 0 is below ``edges[0]``, bin i from ``edges[i - 1]`` on, the last without end."""

    table: str
    kind: MeasureKind
    column: str | None
    """None for rows."""
    edges: tuple[Fraction, ...]
    """Ascending; days since 1970-01-01 for dates and timestamps (``day_number``)."""

    @property
    def bins(self) -> int:
        """Number of bins."""
        return len(self.edges) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Noisy units in each bin of a measure, and the standard deviation of the noise in each."""

    measure: Measure
    counts: tuple[float, ...]
    deviation: float

    def __post_init__(self) -> None:
        if len(self.counts) != self.measure.bins:
            raise ValueError("a histogram has one count for each bin")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataProfile:
    """The histograms of one node, or the sum over several."""

    dataset: str
    dataset_digest: str
    histograms: tuple[Histogram, ...]

    def find(self, table: str, kind: MeasureKind, column: str | None = None) -> Histogram | None:
        """The histogram of a measure, if the profile has it."""
        wanted = (table, kind, column)
        found = (one for one in self.histograms if (one.measure.table, one.measure.kind, one.measure.column) == wanted)
        return next(found, None)


def added(profiles: Sequence[DataProfile]) -> DataProfile | None:
    """The profile of several nodes together; None without any.

    Only measures that all of them have in the same bins are kept. Raises ValueError for profiles of several datasets.
    """
    if not profiles:
        return None
    first = profiles[0]
    if any(one.dataset_digest != first.dataset_digest for one in profiles):
        raise ValueError("profiles of different datasets cannot be added")
    measures = [one.measure for one in first.histograms]
    common = [one for one in measures if all(any(h.measure == one for h in each.histograms) for each in profiles)]
    histograms = [[next(h for h in each.histograms if h.measure == measure) for each in profiles] for measure in common]
    return DataProfile(
        dataset=first.dataset,
        dataset_digest=first.dataset_digest,
        histograms=tuple(_sum(each) for each in histograms),
    )


def _sum(histograms: Sequence[Histogram]) -> Histogram:
    return Histogram(
        measure=histograms[0].measure,
        counts=tuple(map(sum, zip(*(one.counts for one in histograms), strict=True))),
        deviation=math.sqrt(sum(one.deviation**2 for one in histograms)),
    )


def day_number(value: date | datetime) -> Fraction:
    """Days since 1970-01-01."""
    day = value.date() if isinstance(value, datetime) else value
    return Fraction((day - _EPOCH).days)
