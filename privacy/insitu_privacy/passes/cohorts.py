"""IN, EXISTS and equality with a subquery, as looks into a cohort of the relation.

``x = (SELECT ...)`` has a value where the subquery has one row at most, and is an error elsewhere: here it is ``IN``,
which is the same where it has a value.

A cohort of protected rows is tied to the row outside by equality of the unit, which the query must ask for itself, on
the unit or on an entity key; the unit's equality is then added, so that no row depends on another person's. A cohort
of public rows may be tied on anything.

The rules of SQL for NULL hold: ``x IN (...)`` is NULL where x is NULL and there are rows, or where no row is equal and
one is NULL. Where a condition decides over rows, NULL counts as false, and ``as_condition`` leaves that part out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from typing import TYPE_CHECKING

from sqlglot import exp

from insitu_privacy.expressions import (
    TRUE,
    Call,
    ColumnRef,
    Exists,
    Expression,
    Literal,
    Op,
    call,
    columns_of,
    replace,
    scans_of,
    walk,
)
from insitu_privacy.passes.inputs import Input, equalities, linked, unit_equality
from insitu_privacy.passes.spans import forbidden, refusal
from insitu_privacy.relations import Derived, Projection

if TYPE_CHECKING:
    from insitu_privacy.passes.allow import Allow
    from insitu_privacy.passes.track import Tracker
    from insitu_privacy.passes.tracked import Around, Tracked

_FALSE = Literal("boolean", False)
_UNKNOWN = Literal("boolean", None)


@dataclass(slots=True)
class Cohorts:
    """The subqueries of one SELECT's conditions; what they look into is gathered in ``found``."""

    tracker: Tracker
    around: Around
    lead: Input | None
    """The source whose unit is the relation's."""
    found: list[Derived]

    def lower(self, node: exp.Expr, allow: Allow) -> Expression | None:
        """The condition of an IN, EXISTS or ``=`` over a subquery; None for any other node."""
        if isinstance(node, exp.Exists):
            return self._exists(_query(node.this), node)
        if isinstance(node, exp.In) and node.args.get("query") is not None:
            return self._membership(node.this, _query(node.args["query"]), node, allow)
        if isinstance(node, exp.EQ):
            for one, other in ((node.this, node.expression), (node.expression, node.this)):
                if isinstance(other, exp.Subquery):
                    return self._membership(one, _query(other), node, allow)
        return None

    # -- IN --------------------------------------------------------------------------------------------------------

    def _membership(self, subject: exp.Expr, query: exp.Expr, node: exp.Expr, allow: Allow) -> Expression:
        parts = subject.expressions if isinstance(subject, exp.Tuple) else [subject]
        subjects = [allow.expression(part) for part in parts]
        made = self.tracker.body(query, self.around.environment, None)
        item = made.as_input(self.tracker.alias(), "the subquery")
        outputs = [ColumnRef(item.alias, name) for name in made.columns]
        if len(outputs) != len(subjects):
            raise forbidden(node, "IN over other columns", "Select as many columns as stand before IN.")
        equal = [call(Op.EQ, *pair) for pair in zip(subjects, outputs, strict=True)]
        self._check_types(subjects, [item.facts[name].type for name in made.columns], node, allow)
        tied = self._tied(item, equal, node)
        match = self._look(item, (*equal, *tied))
        if len(subjects) > 1 or isinstance(node, exp.EQ):
            return match
        some = self._look(item, tuple(tied))
        doubts: list[Expression] = []
        if allow.facts_of(subjects[0]).nullable:
            doubts.append(call(Op.AND, call(Op.IS_NULL, subjects[0]), some))
        if item.facts[outputs[0].column].nullable:
            doubts.append(self._look(item, (call(Op.IS_NULL, outputs[0]), *tied)))
        if not doubts:
            return match
        doubt = doubts[0] if len(doubts) == 1 else Call(Op.OR, tuple(doubts))
        return call(Op.CASE, match, TRUE, doubt, _UNKNOWN, _FALSE)

    def _check_types(self, subjects: list[Expression], kinds: Sequence[str], node: exp.Expr, allow: Allow) -> None:
        numbers = {"integer", "decimal"}
        for subject, kind in zip(subjects, kinds, strict=True):
            own = allow.type_of(subject)
            if own != kind and not {own, kind} <= numbers:
                hint = "Compare values of one type; CAST a timestamp to DATE."
                raise refusal("INSITU-SQL-TYPE", node, name="this", type=f"{own} and {kind}", hint=hint)

    # -- EXISTS ----------------------------------------------------------------------------------------------------

    def _exists(self, query: exp.Expr, node: exp.Expr) -> Expression:
        if not isinstance(query, exp.Select):
            raise forbidden(node, "EXISTS over a set operation", "Write an EXISTS for each part.")
        if query.args.get("group") or query.args.get("having") or query.find(exp.AggFunc):
            raise forbidden(node, "EXISTS over aggregates", "Write IN over a SELECT that is grouped by the unit.")
        inner = self.tracker.select(query, self.around.environment, self.around)
        own = frozenset(inner.inputs)
        correlated = tuple(term for term in inner.relation.where if scans_of(term) - own)
        if any(isinstance(part, Exists) for term in correlated for part in walk(term)):
            hint = "Join the inner subquery's tables to those of the subquery around it."
            raise forbidden(node, "a subquery in a subquery that both look at the query around", hint)
        item, renamed = self._opened(inner, correlated)
        tied = [] if inner.public else self._tied_directly(inner, item, correlated, node)
        return self._look(item, (*renamed, *tied))

    def _opened(self, inner: Tracked, correlated: tuple[Expression, ...]) -> tuple[Input, list[Expression]]:
        """The subquery without its correlated conditions, and those over its output."""
        relation = inner.relation
        read = sorted({c for term in correlated for c in columns_of(term) if c.scan in inner.inputs}, key=repr)
        alias = self.tracker.alias()
        names = {column: f"c{index}" for index, column in enumerate(read)}
        rest = tuple(term for term in relation.where if term not in correlated)
        derived = Derived(
            alias=alias,
            body=Projection(
                relation=changed(relation, where=rest),
                columns=tuple((name, column) for column, name in names.items()),
                distinct=False,
            ),
            public=inner.public,
            unit=tuple(f"_unit_{index}" for index in range(len(relation.unit))),
        )
        facts = {name: inner.facts.facts(column) for column, name in names.items()}
        sure = {name: inner.allow.facts_of(column) for column, name in names.items()}
        item = Input(source=derived, facts=facts, sure=sure, name="the subquery")

        def renamed(node: Expression) -> Expression | None:
            return ColumnRef(alias, names[node]) if isinstance(node, ColumnRef) and node in names else None

        return item, [replace(term, renamed) for term in correlated]

    def _tied_directly(
        self, inner: Tracked, item: Input, correlated: tuple[Expression, ...], node: exp.Expr
    ) -> list[Expression]:
        equal = equalities(correlated)
        outside = [one for one in self.around.names.values() if one.unit]
        if not any(linked(a, b, equal) for a in outside for b in inner.inputs.values() if b.unit):
            raise self._untied(node)
        return list(self._unit_tie(item, node))

    # -- ties ------------------------------------------------------------------------------------------------------

    def _tied(self, item: Input, equal: list[Call], node: exp.Expr) -> list[Expression]:
        """Equality of the unit, where the cohort is protected and its members are persons or entities."""
        if not item.unit:
            return []
        pairs = equalities(tuple(equal))
        if not any(linked(one, item, pairs) for one in self.around.names.values() if one.unit):
            raise self._untied(node)
        return [term for term in self._unit_tie(item, node) if frozenset(term.args) not in pairs]

    def _unit_tie(self, item: Input, node: exp.Expr) -> list[Call]:
        if self.lead is None:
            raise self._untied(node)
        if len(self.lead.source.unit) != len(item.source.unit):
            raise self._untied(node)
        return unit_equality(self.lead, item)

    def _untied(self, node: exp.Expr) -> Exception:
        return refusal("INSITU-SQL-JOIN", node, hint="the privacy unit, or on an entity key")

    def _look(self, item: Input, on: tuple[Expression, ...]) -> Exists:
        assert isinstance(item.source, Derived)
        if all(one.alias != item.alias for one in self.found):
            self.found.append(item.source)
        return Exists(item.alias, tuple(sorted(set(on), key=repr)))


def as_condition(term: Expression) -> tuple[Expression, ...]:
    """A term that decides over rows, without the difference between false and NULL that nobody sees there."""
    if isinstance(term, Call) and term.op is Op.CASE and term.args[1:2] == (TRUE,) and len(term.args) == 5:
        match, _, _, unknown, otherwise = term.args
        if isinstance(match, Exists) and unknown == _UNKNOWN and otherwise == _FALSE:
            return (match,)
    if isinstance(term, Call) and term.op is Op.NOT:
        inner = term.args[0]
        if (
            isinstance(inner, Call)
            and inner.op is Op.CASE
            and isinstance(inner.args[0], Exists)
            and len(inner.args) == 5
        ):
            match, _, doubt, unknown, otherwise = inner.args
            if unknown == _UNKNOWN and otherwise == _FALSE:
                doubts = doubt.args if isinstance(doubt, Call) and doubt.op is Op.OR else (doubt,)
                return (call(Op.NOT, match), *(call(Op.NOT, one) for one in doubts))
    return (term,)


def _query(node: exp.Expr) -> exp.Expr:
    while isinstance(node, exp.Subquery):
        node = node.this
    return node
