"""Profiles of a small dataset, made up, as nodes would sign them."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

from insitu_access.data_profile import NodeProfile, seal_data_profile
from insitu_access.keys import SigningKey
from insitu_privacy.data_profile import DataProfile, Histogram, Measure

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
ROWS = Measure(table="visit", kind="rows", column=None, edges=(Fraction(2), Fraction(5)))
AMOUNTS = Measure(table="visit", kind="values", column="amount", edges=(Fraction(-1, 2), Fraction(100)))


def made(node: str, digest: str, *, serial: int = 1, dataset: str = "care", count: float = 10.5) -> NodeProfile:
    histograms = tuple(
        Histogram(measure=measure, counts=(count, count + 1, count / 2), deviation=2.5) for measure in (ROWS, AMOUNTS)
    )
    return NodeProfile(
        node=node,
        serial=serial,
        epsilon=Fraction(1, 2),
        issued_at=AT,
        profile=DataProfile(dataset=dataset, dataset_digest=digest, histograms=histograms),
    )


def sealed(
    node: str, key: SigningKey, digest: str, *, serial: int = 1, dataset: str = "care", count: float = 10.5
) -> str:
    """The same, signed."""
    return seal_data_profile(made(node, digest, serial=serial, dataset=dataset, count=count), key)
