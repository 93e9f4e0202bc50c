"""What an expression is made of: columns of tables, and how finely each is used. Pure; one walk, no facts.

A date by its year is not the date. The operations that take a period of a date are functions of the date cut to that
period, and so is whatever is computed of them: no number of such uses holds more than the finest of them (``rules``
FINENESS). The same holds of a comparison with a literal that stands at the border of two periods: a range of whole
years asks for the year alone. All else that touches a date uses it exactly; so does what is not thought of here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Self

from insitu_privacy.expressions import Call, ColumnRef, Exists, Expression, Literal, Op, conjuncts
from insitu_privacy.rules import ColumnName, Precision, Read

PERIODS: dict[Op, Precision] = {
    Op.YEAR: "year",
    Op.TRUNC_YEAR: "year",
    Op.QUARTER: "quarter",
    Op.TRUNC_QUARTER: "quarter",
    Op.MONTH: "month",
    Op.TRUNC_MONTH: "month",
}
"""Days, weeks, days of the week and seconds are not among them: none is a function of the month."""
_CHOICES = frozenset({Op.COALESCE, Op.LEAST, Op.GREATEST, Op.TO_DATE, Op.TO_TIMESTAMP})
"""Operations that keep the order of dates, or pass one on: a period of the result is the result on the periods."""
_ORDERS = {Op.LT: Op.GT, Op.LE: Op.GE, Op.GT: Op.LT, Op.GE: Op.LE}
"""Each comparison, and the same one with its sides exchanged."""
CONDITIONS = frozenset({*_ORDERS, Op.EQ, Op.NE, Op.IN, Op.IS_NULL, Op.LIKE, Op.ILIKE, Op.AND, Op.OR, Op.NOT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What a value may hold."""

    whole: frozenset[ColumnName] = frozenset()
    """Columns whose value it may be as it stands: a period of it is then a period of that."""
    made: frozenset[Read] = frozenset()
    """What it is computed from."""
    chosen: frozenset[Read] = frozenset()
    """What decides which value it is, by a condition or an order, and is not in it."""
    ties: frozenset[frozenset[ColumnName]] = frozenset()
    """Of each condition that decides: the columns that stand in it together, where there are several."""

    @property
    def held(self) -> frozenset[Read]:
        """What is in it."""
        return self.made | {Read(*name, "exact") for name in self.whole}

    @property
    def reads(self) -> frozenset[Read]:
        """All that it depends on."""
        return self.held | self.chosen

    def by(self, precision: Precision) -> Self:
        """A function of the value cut to a period."""
        return replace(self, whole=frozenset(), made=self.made | {Read(*name, precision) for name in self.whole})

    def whether(self) -> Self:
        """Whether there is a value at all: of a date, that is known by its year."""
        return self.by("year").only_chosen()

    def computed(self) -> Self:
        """Any other function of the value."""
        return self.by("exact")

    def only_chosen(self) -> Self:
        """A yes or no about it: nothing of it is in that."""
        return replace(self, whole=frozenset(), made=frozenset(), chosen=self.reads)


NOTHING = Flow()


def merged(flows: Iterable[Flow]) -> Flow:
    """A value that may be one or another, or is made of all."""
    found = list(flows)
    return Flow(
        whole=frozenset().union(*(one.whole for one in found)),
        made=frozenset().union(*(one.made for one in found)),
        chosen=frozenset().union(*(one.chosen for one in found)),
        ties=frozenset().union(*(one.ties for one in found)),
    )


def flow(expression: Expression, columns: dict[ColumnRef, Flow]) -> Flow:
    """What an expression may hold, given what the columns in its reach do."""
    if isinstance(expression, ColumnRef):
        return columns[expression]
    if isinstance(expression, Literal):
        return NOTHING
    if isinstance(expression, Exists):
        return merged(flow(term, columns) for term in expression.on).only_chosen()
    if expression.op in CONDITIONS:
        return _condition(expression, columns)
    if expression.op is Op.CASE:
        return _case(expression.args, columns)
    together = merged(flow(argument, columns) for argument in expression.args)
    if expression.op in PERIODS:
        return together.by(PERIODS[expression.op])
    return together if expression.op in _CHOICES else together.computed()


def _case(arguments: tuple[Expression, ...], columns: dict[ColumnRef, Flow]) -> Flow:
    """Condition, value, condition, value, ..., default."""
    terms = [flow(term, columns) for condition in arguments[:-1:2] for term in conjuncts(condition)]
    together = (frozenset(read.name for read in term.reads) for term in terms)
    ties = Flow(ties=frozenset(names for names in together if len(names) > 1))
    values = (flow(value, columns) for value in (*arguments[1::2], arguments[-1]))
    return merged([merged(terms).only_chosen(), ties, *values])


def _condition(condition: Call, columns: dict[ColumnRef, Flow]) -> Flow:
    arguments = [flow(argument, columns) for argument in condition.args]
    if condition.op is Op.IS_NULL:
        return arguments[0].whether()
    precision = _border(condition)
    together = merged(arguments)
    return (together if precision is None else together.by(precision)).only_chosen()


def _border(condition: Call) -> Precision | None:
    """The period that decides a comparison with a literal; None where it takes more."""
    if condition.op not in _ORDERS:
        return None
    value, literal = condition.args
    op = condition.op
    if isinstance(value, Literal):
        literal, op = value, _ORDERS[op]
    return _period_from(op, literal.value) if isinstance(literal, Literal) else None


def _period_from(op: Op, value: object) -> Precision | None:
    """The longest period that begins where a comparison changes from no to yes, or from yes to no."""
    after = op in (Op.LE, Op.GT)  # the literal itself belongs to what lies before the border
    if isinstance(value, datetime):
        first = value.date() if not after and value == datetime.combine(value, datetime.min.time()) else None
    else:
        first = value if isinstance(value, date) else None
        if first is not None and after:
            first = first + timedelta(days=1) if first < date.max else None
    if first is None or first.day != 1:
        return None
    return "year" if first.month == 1 else "quarter" if first.month % 3 == 1 else "month"
