"""What tracking finds out about a SELECT's rows: the relation, and whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from insitu_privacy.domains import Inference
from insitu_privacy.expressions import Call, ColumnRef, Expression, Literal, Op, scans_of
from insitu_privacy.facts import Facts
from insitu_privacy.passes.allow import Allow
from insitu_privacy.passes.inputs import Input
from insitu_privacy.relations import Derived, Relation, Scan, scans_in

Environment = Mapping[str, tuple[exp.Expr, "Environment"]]
"""The WITH queries around a SELECT, each with those around itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """A relation, and what is known of expressions over its rows."""

    relation: Relation
    allow: Allow
    facts: Inference
    """Facts that hold on rows which satisfy the relation's conditions."""
    inputs: Mapping[str, Input]
    """By alias."""

    @property
    def one_row_per_unit(self) -> bool:
        """Whether sources with one row per unit are joined on it, and public ones on their unique key."""
        return all(
            item.source.one_row_per_unit if isinstance(item.source, Derived) or item.unit else self._looked_up(item)
            for item in self.inputs.values()
        )

    def _looked_up(self, item: Input) -> bool:
        """Whether a public table is joined on its unique key, so that it multiplies no rows."""
        terms = next(
            (join.on for join in self.relation.joins if join.source.alias == item.alias and join.kind == "left"),
            self.relation.where,
        )
        return bool(item.unique) and all(_is_fixed(ColumnRef(item.alias, name), terms) for name in item.unique)

    @property
    def loose(self) -> int:
        """How many public tables are joined on no equality, here and below: each multiplies rows by its own."""
        own = [item for item in self.inputs.values() if not item.unit and len(self.inputs) > 1 and _has_rows(item)]
        return sum(item.loose for item in self.inputs.values()) + sum(not self._is_equal(item) for item in own)

    def _is_equal(self, item: Input) -> bool:
        """Whether a column of a source equals something of another one."""
        terms = [*self.relation.where, *(term for join in self.relation.joins for term in join.on)]
        for term in terms:
            if isinstance(term, Call) and term.op is Op.EQ:
                sides = [scans_of(side) for side in term.args]
                if any(item.alias in one and other - {item.alias} for one, other in (sides, sides[::-1])):
                    return True
        return False

    @property
    def public(self) -> bool:
        """Whether no row of any person stands in it."""
        return not self.relation.unit

    def counting_units(self) -> str:
        """How a query counts persons, for hints."""
        names = [column.column for column in self.relation.unit]
        if any(name.startswith("_unit_") for name in names):
            return "COUNT(DISTINCT ...) over the privacy unit"
        return f"COUNT(DISTINCT {names[0] if len(names) == 1 else '(' + ', '.join(names) + ')'})"

    def is_identifying(self, expression: Expression) -> bool:
        """Whether it may hold what a column of the privacy unit or of an entity key does; a condition never does."""
        stack = [expression]
        while stack:
            node = stack.pop()
            if isinstance(node, ColumnRef) and node.scan in self.inputs:
                if node.column in self.inputs[node.scan].identifying:
                    return True
            elif isinstance(node, Call) and self.facts.facts(node).type != "boolean":
                stack.extend(node.args)
        return False

    def unit_among(self, expressions: tuple[Expression, ...]) -> Input | None:
        """The protected source whose whole unit stands among the expressions."""
        found = set(expressions)
        return next(
            (
                item
                for item in self.inputs.values()
                if item.unit and all(any(ColumnRef(item.alias, name) in found for name in names) for names in item.unit)
            ),
            None,
        )

    def is_unit(self, expressions: tuple[Expression, ...]) -> bool:
        """Whether the expressions are the whole unit of one of the protected sources, and nothing else."""
        item = self.unit_among(expressions)
        return item is not None and len(set(expressions)) == len(item.unit)

    def is_part_of_unit(self, expression: Expression) -> bool:
        """Whether it is a column of the unit of a protected source."""
        return any(
            expression == ColumnRef(item.alias, name)
            for item in self.inputs.values()
            for names in item.unit
            for name in names
        )

    def entity_among(self, expressions: tuple[Expression, ...]) -> bool:
        """Whether a whole entity key of a protected source stands among the expressions."""
        found = set(expressions)
        return any(
            all(ColumnRef(item.alias, name) in found for name in way)
            for item in self.inputs.values()
            for ways in item.entities.values()
            for way in ways
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """The SELECT around a subquery: what its conditions may name."""

    names: Mapping[str, Input]
    """By alias in the query."""
    environment: Environment

    @property
    def facts(self) -> dict[ColumnRef, Facts]:
        """Facts of all columns in reach."""
        return {
            ColumnRef(item.alias, name): known for item in self.names.values() for name, known in item.facts.items()
        }

    @property
    def sure(self) -> dict[ColumnRef, Facts]:
        """Those that hold in whatever order conditions are evaluated."""
        return {ColumnRef(item.alias, name): known for item in self.names.values() for name, known in item.sure.items()}


def _has_rows(item: Input) -> bool:
    """Whether a table is read below it: what is written out in the query has few rows."""
    return isinstance(item.source, Scan) or any(True for _ in scans_in(item.source.body))


def _is_fixed(column: ColumnRef, terms: tuple[Expression, ...]) -> bool:
    """Whether some equality ties the column to a literal or to a value of other sources."""
    for term in terms:
        if not isinstance(term, Call) or column not in term.args:
            continue
        if term.op is Op.EQ:
            other = term.args[1] if term.args[0] == column else term.args[0]
            if column.scan not in scans_of(other):
                return True
        if term.op is Op.IN and term.args[0] == column and len(term.args) == 2 and isinstance(term.args[1], Literal):
            return True
    return False
