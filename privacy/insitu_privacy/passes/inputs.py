"""What is known of one source of a relation: its columns' facts, its unit, its entity keys, its contribution bounds.

A scan's come from the dataset's contract; a derived source's follow from its body. A value of an entity key belongs to
one person, so that two sources which are equal on one may be joined when equality of the unit is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from sqlglot import exp

from insitu_privacy.dataset import Column, ContributionBounds, Dataset, Table
from insitu_privacy.domains import column_facts
from insitu_privacy.expressions import Call, ColumnRef, Expression, Op, call
from insitu_privacy.facts import Facts
from insitu_privacy.passes.nodes import children
from insitu_privacy.relations import PathStep, Scan, Source

EntityKey = tuple[str, tuple[str, ...]]
"""The table and columns that an entity key is declared with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A source and what is known of it."""

    source: Source
    facts: Mapping[str, Facts]
    """By column of the source."""
    sure: Mapping[str, Facts]
    """What holds of them in whatever order a database evaluates conditions: what overflow is ruled out by."""
    unit: tuple[frozenset[str], ...] = ()
    """For each column of the unit, the columns of the source that hold it; empty for public sources."""
    entities: Mapping[EntityKey, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    bounds: ContributionBounds | None = None
    names: Mapping[str, str] | None = None
    """Columns of the source by their names in the query; None where they are the same."""
    name: str = ""
    """What errors call it."""
    unique: tuple[str, ...] = ()
    """The unique key of a public table."""
    tainted: frozenset[str] = frozenset()
    """Columns that were computed from identifying ones."""
    loose: int = 0
    """How many public tables below are joined on no equality."""

    @property
    def alias(self) -> str:
        """Its alias in the plan."""
        return self.source.alias

    @property
    def identifying(self) -> frozenset[str]:
        """Columns of the unit and of entity keys, and what was computed from them."""
        keys = frozenset(name for ways in self.entities.values() for way in ways for name in way)
        return self.tainted.union(keys, *self.unit)

    def column(self, name: str) -> ColumnRef:
        """A column by its name in the query."""
        return ColumnRef(self.alias, name if self.names is None else self.names[name])


# -- scans -----------------------------------------------------------------------------------------------------------


def scanned(alias: str, table: Table, used: set[str], dataset: Dataset) -> Input:
    """The input that reads the columns ``used`` of a table."""
    path, unit = _unit_path(table, dataset)
    named = sorted(used | set(table.unit) | set(table.unit_path.on if table.unit_path else ()))
    scan = Scan(
        alias=alias,
        table=table.name,
        public=table.public,
        columns=tuple(table.columns[name] for name in named) + tuple(unit),
        unit=table.unit or tuple(column.name for column in unit),
        unit_path=path,
        one_row_per_unit=table.one_row_per_unit,
    )
    facts = {column.name: column_facts(column) for column in scan.columns}
    if table.public:
        facts = {name: replace(known, constant=False) for name, known in facts.items()}
    return Input(
        source=scan,
        facts=facts,
        sure=facts,
        unit=tuple(frozenset({name}) for name in scan.unit),
        entities={} if table.public else _entity_columns(table),
        bounds=table.bounds,
        name=table.name,
        unique=table.key,
    )


def _unit_path(table: Table, dataset: Dataset) -> tuple[tuple[PathStep, ...], list[Column]]:
    """The steps to the table that has the unit, and the unit's columns under names no dataset can have."""
    steps: list[PathStep] = []
    at = table
    while at.unit_path is not None:
        reached = dataset.tables[at.unit_path.through]
        types = tuple(at.columns[name].type for name in at.unit_path.on)
        steps.append(PathStep(path=at.unit_path, unit=reached.unit, types=types))
        at = reached
    if not steps:
        return (), []
    columns = [replace(at.columns[name], name=f"_unit_{index}") for index, name in enumerate(at.unit)]
    return tuple(steps), columns


def _entity_columns(table: Table) -> dict[EntityKey, tuple[tuple[str, ...], ...]]:
    """The entity keys a table holds, its own and those of others, and under which columns."""
    found: dict[EntityKey, list[tuple[str, ...]]] = {}
    for key in table.entity_keys:
        found.setdefault((table.name, key), []).append(key)
    for column in table.columns.values():
        for owner, name in column.references:
            found.setdefault((owner, (name,)), []).append((column.name,))
    if table.unit_path is not None:
        found.setdefault((table.unit_path.through, table.unit_path.on), []).append(table.unit_path.on)
    return {key: tuple(ways) for key, ways in found.items()}


def columns_used(tree: exp.Select) -> dict[str, set[str]]:
    """The columns that a query names of each source; a subquery with a source of the same name means its own.

    What it reads from cannot name its sources: derived tables and WITH queries are not looked through.
    """
    found: dict[str, set[str]] = {}
    apart = {id(item) for item in sources_of(tree)} | {id(tree.args.get("with_"))}
    stack: list[tuple[exp.Expr, frozenset[str]]] = [(tree, frozenset())]
    while stack:
        node, hidden = stack.pop()
        if id(node) in apart:
            continue
        if isinstance(node, exp.Column):
            if node.table not in hidden:
                found.setdefault(node.table, set()).add(node.name)
            continue
        if isinstance(node, exp.Select) and node is not tree:
            hidden |= _aliases(node)
        stack += [(child, hidden) for child in children(node)]
    return found


def sources_of(tree: exp.Select) -> list[exp.Expr]:
    """What stands in FROM and JOIN, in order."""
    source = tree.args.get("from_")
    return [*([source.this] if source else []), *(join.this for join in tree.args.get("joins") or ())]


def _aliases(tree: exp.Select) -> set[str]:
    return {source.alias_or_name for source in sources_of(tree)}


# -- the unit --------------------------------------------------------------------------------------------------------

Equalities = frozenset[frozenset[Expression]]


def equalities(terms: tuple[Expression, ...]) -> Equalities:
    """The pairs that conditions hold equal."""
    return frozenset(frozenset(term.args) for term in terms if isinstance(term, Call) and term.op is Op.EQ)


def unit_of(item: Input) -> tuple[ColumnRef, ...]:
    """The unit as the source gives it."""
    return tuple(ColumnRef(item.alias, name) for name in item.source.unit)


def unit_equality(a: Input, b: Input) -> list[Call]:
    """Equality of two sources' units."""
    return [call(Op.EQ, x, y) for x, y in zip(unit_of(a), unit_of(b), strict=True)]


def linked(a: Input, b: Input, equal: Equalities) -> bool:
    """Whether two protected sources are equal on the whole unit, or on an entity key that both hold."""
    if len(a.unit) != len(b.unit):
        return False
    if all(_same(a, mine, b, theirs, equal) for mine, theirs in zip(a.unit, b.unit, strict=True)):
        return True
    return any(
        all(frozenset((ColumnRef(a.alias, x), ColumnRef(b.alias, y))) in equal for x, y in zip(way, other, strict=True))
        for key in a.entities.keys() & b.entities.keys()
        for way in a.entities[key]
        for other in b.entities[key]
    )


def _same(a: Input, mine: frozenset[str], b: Input, theirs: frozenset[str], equal: Equalities) -> bool:
    return any(frozenset((ColumnRef(a.alias, x), ColumnRef(b.alias, y))) in equal for x in mine for y in theirs)
