"""Grouping sets as sums of the finest one: one release in place of one for each set, where that is more accurate.

The finest set holds the keys of all others. It is released alone, with the whole budget, as a table of WITH; each set
is a SELECT above it that adds its cells up: SUM of counts and of sums, their ratio for averages. So parts add up to
their totals, and nothing but post-processing is done.

It is right where every key is public, so that no cell is missing; where what is counted adds up, distinct persons and
entities over keys that are constant per person alone; and where no cell is suppressed: of a sum without it the total
would be wrong, of a sum with it one could read it from the difference. ``analysis`` asks for it there, and by
``is_more_accurate``. What is not here: quantiles and variances, which stay a release for each set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from insitu_privacy.passes.grouping import aggregates_in

_Keys = Sequence[exp.Expr]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finest:
    """A finest table: the place of its SELECT among those over grouping sets, and of each set the places of its keys
    among the table's."""

    place: int
    sets: tuple[tuple[int, ...], ...]

    @property
    def name(self) -> str:
        """Its name in the query."""
        return f"_finest{self.place}"

    def key(self, place: int) -> str:
        """The name of one of its keys."""
        return f"{self.name}k{place}"


def is_more_accurate(sizes: Sequence[int], sets: Sequence[Sequence[int]], *, summed: int, separate: int) -> bool:
    """Whether the noisiest set is less noisy as a sum of the finest.

    ``sizes`` are the numbers of values of the finest set's keys, ``sets`` the places of each set's keys among them;
    ``summed`` and ``separate`` how many releases the query has in all, either way.

    The releases of a query share its budget in equal parts, and a scale is as one over the share, whatever the
    mechanism. Separate, the finest set is the noisiest, since a person is in as many of its groups as of any other's:
    its standard deviation is ``separate`` * d. Summed, it is ``summed`` * d, and that times the root of c for a set of
    which each cell is a sum of c of the finest's, the noise of cells being independent.
    """
    cells = math.prod(sizes)
    most = max(cells / math.prod(sizes[place] for place in one) for one in sets)
    return summed * math.sqrt(most) < separate


def can_be_summed(branches: Sequence[exp.Select]) -> bool:
    """Whether all aggregates are counts, sums and averages, and no query stands among them."""
    items = [item for branch in branches for item in _read(branch)]
    if any(item.find(exp.Query) is not None for item in items):
        return False
    calls = [call for item in items for call in aggregates_in(item)]
    return bool(calls) and all(_is_additive(call) for call in calls)


def over_finest(
    select: exp.Select, branches: Sequence[exp.Select], every: _Keys, finest: Finest
) -> tuple[exp.Select, exp.CTE]:
    """The sets as one SELECT above the finest table, and that table for its WITH."""
    calls = list(dict.fromkeys(call for branch in branches for item in _read(branch) for call in aggregates_in(item)))
    keys = {key: finest.key(place) for place, key in enumerate(every)}
    parts = list(dict.fromkeys(part for call in calls for part in _parts(call)))
    names = {part: f"{finest.name}a{place}" for place, part in enumerate(parts)}
    below = select.copy()
    for clause in ("order", "limit", "offset", "with_", "having"):
        below.set(clause, None)
    below.set("group", exp.Group(expressions=[key.copy() for key in every]))
    below.set("expressions", [_named(node, name) for node, name in (*keys.items(), *names.items())])
    table = exp.CTE(this=below, alias=exp.TableAlias(this=exp.to_identifier(finest.name)))
    sums = {call: _sum(call, names) for call in calls}
    above = all_of(
        [
            _above(branch, [every[place] for place in one], keys, sums, finest.name)
            for branch, one in zip(branches, finest.sets, strict=True)
        ]
    )
    source = exp.Subquery(this=above, alias=exp.TableAlias(this=exp.to_identifier(f"{finest.name}_sets")))
    return exp.Select(expressions=[exp.Star()]).from_(source), table


def all_of(branches: Sequence[exp.Select]) -> exp.Query:
    """The rows of all of them."""
    united: exp.Query = branches[0]
    for branch in branches[1:]:
        united = exp.Union(this=united, expression=branch, distinct=False)
    return united


def _read(branch: exp.Select) -> list[exp.Expr]:
    having = branch.args.get("having")
    return [*branch.expressions, *([having.this] if having is not None else [])]


def _is_additive(call: exp.Expr) -> bool:
    node = call.this if isinstance(call, exp.Filter) else call
    distinct = isinstance(node.this, exp.Distinct)
    return isinstance(node, exp.Count) or (isinstance(node, (exp.CountIf, exp.Sum, exp.Avg)) and not distinct)


def _parts(call: exp.Expr) -> list[exp.Expr]:
    """What of an aggregate adds up. An average stays among them: its sum is then measured from the middle."""
    node = call.this if isinstance(call, exp.Filter) else call
    if not isinstance(node, exp.Avg):
        return [call]
    return [call, *_sum_and_count(call)]


def _sum_and_count(call: exp.Expr) -> list[exp.Expr]:
    node = call.this if isinstance(call, exp.Filter) else call
    found: list[exp.Expr] = []
    for made in (exp.Sum(this=node.this.copy()), exp.Count(this=node.this.copy(), big_int=True)):
        copy = call.copy()
        if isinstance(copy, exp.Filter):
            copy.set("this", made)
        found.append(copy if isinstance(copy, exp.Filter) else made)
    return found


def _sum(call: exp.Expr, names: Mapping[exp.Expr, str]) -> exp.Expr:
    """An aggregate over rows, read from the finest table."""

    def total(part: exp.Expr) -> exp.Expr:
        return exp.Sum(this=exp.column(exp.to_identifier(names[part])))

    node = call.this if isinstance(call, exp.Filter) else call
    if isinstance(node, exp.Avg):
        added, rows = map(total, _sum_and_count(call))
        ratio = exp.Div(this=exp.cast(added, "DOUBLE"), expression=rows.copy(), typed=False, safe=True)
        counted = exp.GT(this=rows, expression=exp.Literal.number(0))
        return exp.Case(ifs=[exp.If(this=counted, true=ratio)])
    if isinstance(node, exp.Sum):
        return total(call)
    none_is_zero = exp.Coalesce(this=total(call), expressions=[exp.Literal.number(0)])  # a total over no cells
    return exp.TryCast(this=none_is_zero, to=exp.DataType.build("BIGINT"))


def _above(
    branch: exp.Select, keys: _Keys, names: Mapping[exp.Expr, str], sums: Mapping[exp.Expr, exp.Expr], table: str
) -> exp.Select:
    """The SELECT of one set over the finest table."""
    columns = {key: exp.column(exp.to_identifier(name)) for key, name in names.items()}
    made = exp.Select(expressions=[replaced(item, {**sums, **columns}) for item in branch.expressions])
    made.set("from_", exp.From(this=exp.to_table(table)))
    if branch.args.get("having"):
        made.set("having", exp.Having(this=replaced(branch.args["having"].this, {**sums, **columns})))
    if keys:
        made.set("group", exp.Group(expressions=[columns[key].copy() for key in keys]))
    return made


def _named(node: exp.Expr, name: str) -> exp.Alias:
    return exp.Alias(this=node.copy(), alias=exp.to_identifier(name))


# -- reading groups ----------------------------------------------------------------------------------------------------


def reading(node: exp.Expr, names: Mapping[exp.Expr, str]) -> exp.Expr:
    """An expression over groups, with the columns that hold its keys and aggregates."""
    return replaced(node, {one: exp.column(exp.to_identifier(name)) for one, name in names.items()})


def replaced(node: exp.Expr, others: Mapping[exp.Expr, exp.Expr]) -> exp.Expr:
    """An expression with others in place of its parts, the outer ones first."""

    def change(part: exp.Expr) -> exp.Expr:
        found = next((other for one, other in others.items() if same(bare(part), one)), None)
        return part if found is None else found.copy()

    return node.copy().transform(change)


def bare(node: exp.Expr) -> exp.Expr:
    """An expression without parentheses around it."""
    return bare(node.this) if isinstance(node, exp.Paren) else node


def same(one: exp.Expr, other: exp.Expr) -> bool:
    """Whether two expressions are the same; a column without its table is one with it."""
    if isinstance(one, exp.Column) and isinstance(other, exp.Column):
        tables = {one.table.lower(), other.table.lower()} - {""}
        return one.name.lower() == other.name.lower() and len(tables) < 2
    return one == other
