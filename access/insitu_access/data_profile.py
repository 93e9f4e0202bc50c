"""A node's profile of its data, signed over the exact bytes: public, and kept by whoever meets it.

``open_data_profile`` accepts a profile only if all of these hold; whichever fails, the error is IntegrityFailed
INSITU-VERIFY-RELEASE with the reason:

  H1  it is a profile token within its size limit (``jose`` J1 to J3)
  H2  a key of the node in the manifest signed it (J4, J5)
  H3  its form is exact: bins ascend, there is one count for each, and every number is one that floats hold
  H4  it names the node whose key signed it

``serial`` counts a node's profiles of one dataset: a later one replaces an earlier one. Not here: whether the dataset
is the one asked about (the caller compares the digest), and what follows from a profile (``insitu_privacy.fitting``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import get_args

from insitu_privacy.data_profile import DataProfile, Histogram, Measure, MeasureKind
from insitu_privacy.errors import AccessRefused, IntegrityFailed

from insitu_access import payload
from insitu_access.fits_json import read_signed
from insitu_access.jose import Typ, refusing_malformed, sign, verify
from insitu_access.keys import SigningKey, VerifyingKey
from insitu_access.payload import Fields, Malformed, as_integer, as_text

_TYP: Typ = "insitu-profile+jws"
_MOST = 2**53
"""No serial, count or deviation in its parts is as large."""
_LARGEST_EDGE = 10**300
_PARTS = 1000
"""Counts and deviations travel as whole thousandths of a unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProfile:
    """A profile as its node made it."""

    node: str
    serial: int
    epsilon: Fraction
    """What it cost each person at the node."""
    issued_at: datetime
    profile: DataProfile


def seal_data_profile(made: NodeProfile, key: SigningKey) -> str:
    """The profile signed by its node."""
    with refusing_malformed("profile"):
        return sign(write_data_profile(made), key, _TYP)


def write_data_profile(made: NodeProfile) -> bytes:
    """The bytes that are signed, which ``read_data_profile`` reads back."""
    body = {
        "node": made.node,
        "serial": made.serial,
        "epsilon": str(made.epsilon),
        "issued_at": payload.seconds_down(made.issued_at),
        "dataset": made.profile.dataset,
        "dataset_digest": made.profile.dataset_digest,
        "histograms": [_as_json(one) for one in made.profile.histograms],
    }
    return payload.write(body)


def open_data_profile(token: str, node_key: VerifyingKey | Sequence[VerifyingKey], *, node: str) -> NodeProfile:
    """The profile that ``node`` signed with ``node_key``, its key in the manifest, or one of several.

    Raises IntegrityFailed INSITU-VERIFY-RELEASE.
    """
    keys = [node_key] if isinstance(node_key, VerifyingKey) else node_key
    try:
        made = read_data_profile(verify(token, keys, _TYP, "profile"))  # H1, H2, H3
    except AccessRefused as error:
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason=error.text) from error
    if made.node != node:  # H4
        raise IntegrityFailed("INSITU-VERIFY-RELEASE", node=node, reason="it names another node")
    return made


def read_data_profile(data: bytes) -> NodeProfile:
    """H3: the profile that payload bytes say, unverified. Raises AccessRefused INSITU-ACCESS-MALFORMED."""
    with refusing_malformed("profile"), payload.read(data) as fields:
        return NodeProfile(
            node=fields.text("node"),
            serial=fields.item("serial", _read_serial),
            epsilon=fields.item("epsilon", _read_epsilon),
            issued_at=fields.moment("issued_at"),
            profile=DataProfile(
                dataset=fields.text("dataset"),
                dataset_digest=fields.text("dataset_digest"),
                histograms=fields.items("histograms", _read_histogram),
            ),
        )


def _as_json(one: Histogram) -> dict[str, object]:
    measure = one.measure
    return {
        "table": measure.table,
        "kind": measure.kind,
        "column": measure.column,
        "edges": [str(edge) for edge in measure.edges],
        "counts": [round(count * _PARTS) for count in one.counts],
        "deviation": round(one.deviation * _PARTS),
    }


def _read_histogram(value: object, path: str) -> Histogram:
    with Fields(value, path) as fields:
        counts = fields.items("counts", _read_parts)
        deviation = fields.item("deviation", _read_parts)
        measure = Measure(
            table=fields.text("table"),
            kind=fields.item("kind", _read_kind),
            column=fields.optional_text("column"),
            edges=fields.items("edges", _read_edge),
        )
    if len(counts) != measure.bins or any(a >= b for a, b in zip(measure.edges, measure.edges[1:], strict=False)):
        raise Malformed(f"{path} must have ascending edges and a count for each bin")
    if deviation < 0:
        raise Malformed(f"{path} must not have a negative deviation")
    return Histogram(measure=measure, counts=tuple(count / _PARTS for count in counts), deviation=deviation / _PARTS)


def _read_serial(value: object, path: str) -> int:
    serial = _read_parts(value, path)
    if serial < 0:
        raise Malformed(f"{path} must not be negative")
    return serial


def _read_parts(value: object, path: str) -> int:
    number = as_integer(value, path)
    if abs(number) >= _MOST:
        raise Malformed(f"{path} must be smaller")
    return number


def _read_epsilon(value: object, path: str) -> Fraction:
    epsilon = _read_edge(value, path)
    if epsilon < 0:
        raise Malformed(f"{path} must not be negative")
    return epsilon


def _read_kind(value: object, path: str) -> MeasureKind:
    kinds: dict[str, MeasureKind] = {kind: kind for kind in get_args(MeasureKind)}
    kind = kinds.get(as_text(value, path))
    if kind is None:
        raise Malformed(f"{path} must be one of {', '.join(kinds)}")
    return kind


def _read_edge(value: object, path: str) -> Fraction:
    edge = read_signed(value, path)
    if abs(edge) > _LARGEST_EDGE:
        raise Malformed(f"{path} must be smaller")
    return edge
