"""What a researcher asks for, completed with defaults, checked, and planned: nothing is sent from here.

Defaults: epsilon has none for a query, and 1 for ``explain``; delta is a twentieth of the grant's; nodes are all of
the grant; ``min_nodes`` is all that are asked; the dataset is the profile's, or the only one of the grant.
Contribution bounds are the dataset's unless given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar, get_args

from insitu_privacy.errors import AccessRefused, ParameterRefused
from insitu_privacy.plan import MechanismChoice, QueryParameters

if TYPE_CHECKING:
    from insitu_access.grant import Grant
    from insitu_access.manifest import DatasetEntry, Manifest

Number = int | float | str | Fraction | Decimal
DELTA_SHARE = Fraction(1, 20)
TIMEOUT_S = 60.0
TIMEOUT_LIMIT_S = 3600
_BOUND_LIMIT = 10_000_000
_EXPONENT_LIMIT = 400
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The parameters of a query as a caller gives them; None for what is left to the defaults."""

    dataset: str | None = None
    epsilon: Number | None = None
    accuracy: str | None = None
    """In place of epsilon: ``±50`` or ``±5%`` (``accuracy``)."""
    delta: Number | None = None
    mechanism: str = "auto"
    max_rows_per_group: int | None = None
    max_groups: int | None = None
    nodes: Sequence[str] | None = None
    min_nodes: int | None = None
    timeout: float = TIMEOUT_S
    dialect: str = "duckdb"
    improve: Iterable[str] = ()
    """What is done to the answer beyond adding up (``insitu_privacy.improve``); nothing of what nodes are asked."""
    first_look: bool = True
    """Whether part of epsilon may go to a first look at the query's own rows (``looking``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A query with every parameter settled and in range; hashable, so that its plan can be kept."""

    sql: str
    dialect: str
    dataset: DatasetEntry
    parameters: QueryParameters
    nodes: tuple[str, ...]
    min_nodes: int
    timeout: timedelta
    at: datetime
    """When it was planned, UTC: what the request is dated, and the day that its CURRENT_DATE means."""
    first_look: bool = True


def settle(
    sql: str,
    options: Options,
    *,
    grant: Grant,
    manifest: Manifest,
    default_dataset: str | None = None,
    default_epsilon: Fraction | None = None,
    now: datetime,
) -> Asked:
    """Complete and check ``options``. Raises ParameterRefused, or AccessRefused for what the grant does not cover."""
    from insitu_access.grant import check_nodes

    nodes = choose_nodes(options.nodes, grant)
    asked = Asked(
        sql=sql,
        dialect=options.dialect.strip().lower(),
        dataset=_dataset(options.dataset or default_dataset, grant, manifest),
        parameters=QueryParameters(
            epsilon=_epsilon(options.epsilon, default_epsilon),
            delta=_delta(options.delta, grant),
            mechanism=_mechanism(options.mechanism),
            max_rows_per_group=_bound("--max-rows-per-group", options.max_rows_per_group, _BOUND_LIMIT),
            max_groups=_bound("--max-groups", options.max_groups, _BOUND_LIMIT),
        ),
        nodes=nodes,
        min_nodes=_bound("--min-nodes", options.min_nodes, len(nodes)) or len(nodes),
        timeout=seconds(options.timeout),
        at=now,
        first_look=options.first_look,
    )
    check_nodes(grant, asked)
    return asked


def choose_nodes(wanted: Sequence[str] | None, grant: Grant) -> tuple[str, ...]:
    """The nodes to ask, in the order of the grant: those named, or all of it."""
    if wanted is None:
        return grant.nodes
    names = {wanted} if isinstance(wanted, str) else set(wanted)
    unknown = sorted(names - set(grant.nodes))
    if unknown or not names:
        reason = f"the grant has no node {', '.join(unknown)}" if unknown else "no node was named"
        raise ParameterRefused("INSITU-PARAM-NODES", reason=reason, known=", ".join(grant.nodes))
    return tuple(node for node in grant.nodes if node in names)


def number(value: Number, refuse: Callable[[], Exception]) -> Fraction:
    """An exact finite number; a float is read as the decimal it is written as, so that 0.1 is a tenth."""
    if isinstance(value, bool):
        raise refuse()
    try:
        if isinstance(value, str) and "/" in value:
            return Fraction(value.strip())
        if isinstance(value, (str, float)):
            decimal = Decimal(str(value).strip())
            if not decimal.is_finite() or abs(decimal.adjusted()) > _EXPONENT_LIMIT:
                raise refuse()
            return Fraction(decimal)
        return Fraction(value)
    except (ValueError, InvalidOperation, ArithmeticError, TypeError):
        raise refuse() from None


def seconds(value: float) -> timedelta:
    """How long to wait for an answer."""
    if isinstance(value, bool) or not math.isfinite(value) or not 1 <= value <= TIMEOUT_LIMIT_S:
        raise ParameterRefused("INSITU-PARAM-TIMEOUT", limit=TIMEOUT_LIMIT_S, value=value)
    return timedelta(seconds=value)


def _epsilon(value: Number | None, default: Fraction | None) -> Fraction:
    if value is None and default is not None:
        return default
    shown = "nothing" if value is None else value
    refused = ParameterRefused("INSITU-PARAM-EPSILON", value=shown)
    if value is None:
        raise refused
    epsilon = number(value, lambda: refused)
    if epsilon <= 0:
        raise refused
    return epsilon


def _delta(value: Number | None, grant: Grant) -> Fraction:
    if value is None:
        return grant.delta * DELTA_SHARE
    refused = ParameterRefused("INSITU-PARAM-DELTA", value=value)
    delta = number(value, lambda: refused)
    if not 0 <= delta < 1:
        raise refused
    return delta


def _mechanism(value: str) -> MechanismChoice:
    return _one_of(
        value,
        get_args(MechanismChoice),
        lambda known: ParameterRefused("INSITU-PARAM-MECHANISM", value=value, reason=f"mechanisms are {known}"),
    )


def _one_of(value: str, known: Iterable[_T], refuse: Callable[[str], Exception]) -> _T:
    choices = {str(one): one for one in known}
    chosen = choices.get(value.strip().lower())
    if chosen is None:
        raise refuse(", ".join(choices))
    return chosen


def _bound(name: str, value: int | None, limit: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        raise ParameterRefused("INSITU-PARAM-BOUND", name=name, limit=limit, value=value)
    return value


def _dataset(name: str | None, grant: Grant, manifest: Manifest) -> DatasetEntry:
    known = [dataset.name for dataset in grant.datasets]
    if name is None:
        if len(known) != 1:
            reason = "the grant covers several datasets"
            raise ParameterRefused("INSITU-PARAM-DATASET", reason=reason, known=", ".join(known))
        name = known[0]
    if name not in known:
        reason = f"the grant covers no dataset {name}"
        raise ParameterRefused("INSITU-PARAM-DATASET", reason=reason, known=", ".join(known))
    entry = manifest.dataset(name)
    if entry is None:
        raise AccessRefused("INSITU-ACCESS-MANIFEST", reason=f"it has no dataset {name}")
    return entry
