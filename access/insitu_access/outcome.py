"""What a node answers to a request, as values: a release, a refusal, or a statement of the budget.

Each names its node and, by SHA-256, the very request it answers. A value of these classes is well formed: integers
are integers below 2^63, every statistic has one value per cell, keys are told apart. Raises ``Malformed`` otherwise,
so that a node cannot sign what nobody would read. Not here: their JSON (``outcome_json``), signatures (``release``).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from insitu_privacy.errors import Span
from insitu_privacy.plan import ReleasedValues

from insitu_access.invariants import (
    check,
    check_delta,
    check_moments,
    check_name,
    check_number,
    check_request_id,
    check_sha256,
    check_text,
    check_unique,
)
from insitu_access.payload import JsonScalar, is_unicode

INTEGER_LIMIT = 2**63
TEXT_LIMIT = 2**14
_CODE = re.compile(r"INSITU(-[A-Z0-9]+){1,8}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRelease:
    """Noisy statistics, one ``ReleasedValues`` per release of the plan, in plan order."""

    node: str
    request_id: str
    request_sha256: str
    grant_id: str
    dataset: str
    dataset_digest: str
    plan_digest: str
    values: tuple[ReleasedValues, ...]
    spent_epsilon: Fraction
    spent_delta: Fraction
    replayed: bool
    """Whether this is a stored release again, which was charged before."""
    issued_at: datetime

    def __post_init__(self) -> None:
        _check_common(self)
        check_name(self.grant_id, "grant_id")
        check_name(self.dataset, "dataset")
        check_sha256(self.dataset_digest, "dataset_digest")
        check_sha256(self.plan_digest, "plan_digest")
        check_number(self.spent_epsilon, "spent_epsilon")
        check_delta(self.spent_delta, "spent_delta")
        for released in self.values:
            check_values(released)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a node did not answer: a stable code and its public texts."""

    node: str
    request_id: str
    request_sha256: str
    code: str
    text: str
    remedy: str
    span: Span | None
    """Where in the researcher's SQL it lies."""
    issued_at: datetime

    def __post_init__(self) -> None:
        _check_common(self)
        check(_CODE.fullmatch(self.code) is not None and len(self.code) <= 64, "code must be a code of insitu")
        check_text(self.text, "text", TEXT_LIMIT)
        check_text(self.remedy, "remedy", TEXT_LIMIT)
        check(self.span is None or 0 <= self.span.start <= self.span.end < INTEGER_LIMIT, "span must be a range")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRow:
    """What a grant has spent of its budget on one dataset at one node, and what is left."""

    dataset: str
    epsilon_spent: Fraction
    epsilon_left: Fraction
    delta_spent: Fraction
    delta_left: Fraction

    def __post_init__(self) -> None:
        check_name(self.dataset, "dataset")
        for name in ("epsilon_spent", "epsilon_left", "delta_spent", "delta_left"):
            check_number(getattr(self, name), name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetStatement:
    """A node's own statement of a grant's budget."""

    node: str
    request_id: str
    request_sha256: str
    grant_id: str
    rows: tuple[BudgetRow, ...]
    issued_at: datetime

    def __post_init__(self) -> None:
        _check_common(self)
        check_name(self.grant_id, "grant_id")
        check_unique([row.dataset for row in self.rows], "datasets of a statement")


Outcome = NodeRelease | Refusal | BudgetStatement


def _check_common(outcome: Outcome) -> None:
    check_name(outcome.node, "node")
    check_request_id(outcome.request_id)
    check_sha256(outcome.request_sha256, "request_sha256")
    check_moments((outcome.issued_at,), "issued_at")


def check_values(released: ReleasedValues) -> None:
    """Raise Malformed unless the values are integers and scalars in a rectangle."""
    for statistic in released.statistics:
        # type() rather than isinstance: a bool must not pass as a count
        fits = all(type(value) is int and -INTEGER_LIMIT < value < INTEGER_LIMIT for value in statistic)
        check(fits, "statistics must be integers below 2^63")
    cells = {len(statistic) for statistic in released.statistics}
    if released.keys is not None:
        cells.add(len(released.keys))
        check(len({len(key) for key in released.keys}) <= 1, "keys must all have the same columns")
        check(all(_is_scalar(part) for key in released.keys for part in key), "keys must be JSON scalars")
        check_unique(_typed_keys(released.keys), "keys")
    check(len(cells) <= 1, "every statistic must have one value per cell")


def _typed_keys(keys: tuple[tuple[JsonScalar, ...], ...]) -> list[tuple[tuple[type, JsonScalar], ...]]:
    # 1, 1.0 and True are equal in Python but are different keys
    return [tuple((type(part), part) for part in key) for key in keys]


def _is_scalar(value: object) -> bool:
    if isinstance(value, str):
        return is_unicode(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool) or (type(value) is int and abs(value) < INTEGER_LIMIT)
