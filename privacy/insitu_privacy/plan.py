"""The privacy plan: what a query releases, at which sensitivity, with which noise. Frozen values.

A plan is made by ``planner.plan_query`` from SQL text, a dataset and parameters, and by nothing else. The researcher
signs its ``digest``; every node plans again and refuses where its own digest differs (DESIGN.md section 2), for only
numbers that were made by the same plan can be added up. The digest covers all that a node does with private data and
leaves out the post-processing, which never reaches it: two queries that differ only there are one charge.

Losses, scales and bounds are exact (``int``, ``Fraction``). What is not here: the proof that a scale pays for a loss,
which ``mechanisms`` recomputes with OpenDP before any noise is drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal

from insitu_privacy.dataset import ColumnType, ContributionBounds, Scalar
from insitu_privacy.expressions import Expression
from insitu_privacy.fits import ReleaseFit
from insitu_privacy.relations import Relation

NODE_ID = "node_id"
"""The pseudo-column that keeps the nodes of a release apart."""
Accounting = Literal["zcdp", "pure"]
Mechanism = Literal["laplace", "gaussian"]
MechanismChoice = Literal["auto", "laplace", "gaussian"]
KeyValue = Scalar | None
StatisticKind = Literal["rows", "units", "entities", "sum", "leaves"]
QuantileKind = Literal["continuous", "discrete", "discrete from above", "least", "greatest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameters:
    """What a researcher sets beside the SQL. ``None`` bounds mean the dataset's own."""

    epsilon: Fraction
    delta: Fraction
    mechanism: MechanismChoice = "auto"
    max_rows_per_group: int | None = None
    max_groups: int | None = None
    fits: tuple[ReleaseFit, ...] = ()
    """One for each release of the plan, or none. They go before the two above, which their maker has heeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What the grant lets a query use: tables, and of each the columns (``None`` for all); and how it is accounted."""

    accounting: Accounting
    tables: Mapping[str, frozenset[str] | None] | None = None
    """``None`` for every table of the dataset."""
    min_units: int = 0
    """Cells below this by their noisy count are suppressed, also where the dataset asks for less."""
    results: frozenset[str] | None = None
    """The kinds of results (``result_kinds``) that may be released; ``None`` for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Privacy loss of one run at one node, for one privacy unit.

    ``epsilon`` and ``delta`` are what the researcher is told. ``rho`` is the zCDP loss (Bun and Steinke 2016), and
    ``threshold_delta`` the part of delta that key selection spends; the ledger's filters add these up.
    ``pure`` is the epsilon under which the run is (epsilon, threshold_delta)-DP, or None where it is Gaussian.
    """

    epsilon: Fraction
    delta: Fraction
    rho: Fraction
    threshold_delta: Fraction
    pure: Fraction | None


def composed(losses: Sequence[Loss]) -> Loss:
    """The loss of several runs on the same data: each of its measures adds up (basic composition)."""
    pure = [loss.pure for loss in losses]
    return Loss(
        epsilon=sum((loss.epsilon for loss in losses), Fraction(0)),
        delta=sum((loss.delta for loss in losses), Fraction(0)),
        rho=sum((loss.rho for loss in losses), Fraction(0)),
        threshold_delta=sum((loss.threshold_delta for loss in losses), Fraction(0)),
        pure=None if None in pure else sum((one for one in pure if one is not None), Fraction(0)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """An additive integer statistic: a sum over privacy units of bounded integers.

    ``linf`` bounds what one unit adds to one group; ``l0`` is ``ContributionBounds.max_groups`` of the release.
    A value column counts in multiples of ``granularity`` from ``center``: x is about center + granularity * v, and one
    row adds at most ``most`` to it; a unit's sum is cut at ``linf`` where its rows may add up to more.
    """

    kind: StatisticKind
    value: int | None
    """Index into the release's value expressions; None for rows and units of the whole group.

    ``rows`` counts rows where the value is not NULL, ``units`` privacy units with such a row, ``entities`` the values
    of an entity key, each once for each unit, ``sum`` adds values, ``leaves`` counts the rows of each leaf of a tree.
    """
    granularity: Fraction
    center: Fraction
    most: int
    linf: int
    epsilon: Fraction
    """The share of the release's epsilon (Laplace) this statistic spends; 0 under Gaussian."""
    rho: Fraction
    """The share of zCDP loss this statistic spends."""
    scale: Fraction
    """Noise scale: b of discrete Laplace, sigma of discrete Gaussian; exact, rounded up."""
    levels: int = 1
    """How many times a unit's part is counted: once for each level of a tree of counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree of counts over the values of an expression (Hay, Rastogi, Miklau, Suciu 2010): what quantiles are read of.

    Leaf i holds the values that are nearest to ``center + granularity * i`` of its statistic, the first and last also
    those beyond. A unit adds to the leaves of a group at most ``weight`` for each row that is counted.
    """

    leaves: int
    weight: int
    beyond: tuple[Fraction | None, Fraction | None] = field(default=(None, None), metadata={"digest": False})
    """How far values may lie below the first leaf and above the last; None where none do. Of no account to nodes."""
    keys_of: str | None
    """Name of the release whose selected keys this one has too; None where keys are public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyColumn:
    """A group key: its name in the released relation, its type, and its public domain if it has one."""

    name: str
    type: ColumnType
    expression: Expression
    constant: bool
    """Whether each unit has one value of it: then only one is ever read, its least."""
    domain: tuple[KeyValue, ...] | None
    """Sorted, NULL first where it is a value; None where the domain is private."""
    reason: str = field(metadata={"digest": False})
    """Why the domain is public or private, for people: no part of what nodes do."""


def cell_count(columns: Sequence[KeyColumn]) -> int | None:
    """Cells of the cross product; None where some key is private."""
    total = 1
    for column in columns:
        if column.domain is None:
            return None
        total *= len(column.domain)
    return total


def key_order(key: Sequence[KeyValue]) -> tuple[tuple[bool, Any], ...]:
    """What sorts group keys: column by column, NULL first."""
    return tuple((value is not None, value if value is not None else 0) for value in key)


_BRANCHES = 16
_LEAST_LEVEL = 32


def tree_levels(leaves: int) -> tuple[int, ...]:
    """Nodes of each level of a tree of counts, the top first. Every node stands above 16 of the level below."""
    levels = [leaves]
    while levels[0] > _LEAST_LEVEL:
        levels.insert(0, -(-levels[0] // _BRANCHES))
    return tuple(levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A column of a released relation that is read from a tree of counts."""

    relation: str
    """The released relation's table name."""
    column: str
    tree: str
    """Name of the release that is the tree."""
    kind: QuantileKind
    level: Fraction
    """Share of the rows below; no part of a least or greatest value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Key selection by a noisy number of units (DESIGN.md section 4, Group keys)."""

    statistic: int
    """Index of the ``units`` statistic."""
    tau: int
    """A group is released when its noisy number of units is above tau; delta is computed at tau."""
    delta: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One aggregation of one protected relation: the unit of measurement."""

    name: str
    """The released relation's table name in the post-processing SQL."""
    relation: Relation
    values: tuple[Expression, ...]
    """What statistics are made of, one expression over the relation's rows each."""
    value_types: tuple[ColumnType, ...]
    keys: tuple[KeyColumn, ...]
    statistics: tuple[Statistic, ...]
    bounds: ContributionBounds
    """As they bind here: max_groups is 1 where each unit has one group."""
    mechanism: Mechanism
    threshold: Threshold | None
    tree: Tree | None = None
    """Where it is a tree of counts: its one statistic then stands for a vector over the nodes of the tree."""
    suppress_below: int
    """Cells whose noisy count is below this are suppressed after merging; 0 for none."""
    one_row_per_unit: bool = field(default=False, metadata={"digest": False})
    """Whether each unit has one row of the relation: bounds then cut none. It follows from what is in the digest."""

    @property
    def cells(self) -> int | None:
        """Number of cells of a public key set; None where keys are private."""
        return cell_count(self.keys)

    @property
    def width(self) -> int:
        """Number of integers of each cell."""
        return len(self.statistics) if self.tree is None else sum(tree_levels(self.tree.leaves))


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicTable:
    """A public table that the post-processing reads, from a file that comes with the dataset."""

    name: str
    """Its table name in the post-processing SQL."""
    columns: tuple[tuple[str, ColumnType], ...]
    source: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedColumn:
    """A column of the answer. ``noisy`` columns carry intervals; types are known when the outer SQL has run."""

    name: str
    noisy: bool


@dataclass(frozen=True)
class PrivacyPlan:
    """All that nodes do for one query, and the SQL that is run on what they release."""

    dataset: str
    dataset_digest: str
    releases: tuple[Release, ...]
    loss: Loss
    nodes_per_unit: int
    postprocessing: str
    """DuckDB SQL over the released relations; where its rows are cells, its first column numbers them."""
    rows_are_cells: bool
    """Whether each row of the answer is made of one cell of the one release."""
    copies_sql: str
    """What perturbed copies are run through: the post-processing with ratios that have a value only over a positive
    denominator. Where rows are cells, the noisy columns alone, for every cell in order, without HAVING, ORDER BY and
    LIMIT; empty where there are none."""
    output: tuple[PlannedColumn, ...]
    quantiles: tuple[Quantile, ...] = ()
    public: tuple[PublicTable, ...] = ()
    by_node: tuple[str, ...] = ()
    """Names of the releases whose nodes are kept apart: each node's values are cells of their own."""

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of what nodes do: dataset, releases and loss, without the post-processing."""
        seen = {"dataset": self.dataset_digest, "releases": self.releases, "loss": self.loss}
        text = json.dumps(canonical(seen), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(b"insitu-plan-v1\0" + text.encode()).hexdigest()


def canonical(value: object) -> object:
    """A JSON value that is equal for equal plans, with exact numbers as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"": type(value).__name__} | {
            item.name: canonical(getattr(value, item.name))
            for item in fields(value)
            if item.metadata.get("digest", True)
        }
    if isinstance(value, Mapping):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [canonical(item) for item in value]
    if value is None or (isinstance(value, (str, bool, int)) and not isinstance(value, StrEnum)):
        return value
    return f"{type(value).__name__}:{value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedValues:
    """What one node releases for one ``Release``: noisy integers only.

    ``keys`` is None for public keys: the cells then stand in the order of the cross product of the key domains,
    last key fastest. Otherwise it holds the released keys, sorted, as JSON scalars (dates in ISO 8601).
    ``statistics[j][i]`` is statistic j in cell i.
    """

    keys: tuple[tuple[int | float | str | bool | None, ...], ...] | None
    statistics: tuple[tuple[int, ...], ...]
