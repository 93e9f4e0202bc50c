"""The percentile written by hand, as dialects without PERCENTILE_CONT need it, read as the PERCENTILE_DISC it is.

    SELECT MIN(CASE WHEN place < 0.25 * size THEN 9999 ELSE x END)
    FROM (SELECT x, ROW_NUMBER() OVER (ORDER BY x) AS place, COUNT(*) OVER () AS size FROM t) AS ordered

numbers the rows of all persons in order of x, and takes the first x whose number reaches a quarter of their count. A
window over several persons' rows cannot run below the noise, but the same question is a quantile, which can. Read so:
the number is ROW_NUMBER over the groups of the query, ordered by x; the count is of the same rows, as a window, as a
scalar subquery or as a joined table of counts, or by the unit where the rows are one of each. Where the two do not
count the same rows, the query stays as it is, and its window is refused.

Works on qualified trees, in place. Both forms in use are known: MIN over numbers below a share of the count, and MAX
over a share ``place / (size + 1)`` up to a level, which may differ by one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlglot import exp

from insitu_privacy.dataset import Dataset
from insitu_privacy.passes.inputs import sources_of
from insitu_privacy.passes.nodes import every

_EXTREMES: tuple[type[exp.Expr], ...] = (exp.Min, exp.Max)
_WRAPPERS = (exp.Paren, exp.Cast, exp.TryCast)


def read_percentiles(tree: exp.Expr, dataset: Dataset) -> None:
    """Replaces the idiom by PERCENTILE_DISC(x, level) wherever it stands."""
    if not any(isinstance(_bare(node.this), exp.Case) for node in every(tree, *_EXTREMES)):
        return  # and nothing below need be looked through again and again
    named = {one.alias: one.this for one in every(tree, exp.CTE)}
    for query in every(tree, exp.Select):
        _Idiom(query, named, dataset).read()


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A source whose rows are numbered: the SELECT that makes it, the groups and what they are ordered by."""

    alias: str
    query: exp.Select
    groups: tuple[exp.Expr, ...]
    order: exp.Expr


class _Idiom:
    def __init__(self, query: exp.Select, named: Mapping[str, exp.Expr], dataset: Dataset) -> None:
        self._query = query
        self._named = named
        self._dataset = dataset
        self._sources = {item.alias_or_name: self._select(item) for item in sources_of(query)}

    def read(self) -> None:
        """Replaces what is recognised, and drops a joined table of counts that nothing else reads."""
        used: set[str] = set()
        for node in every(self._query, *_EXTREMES):
            found = None if isinstance(node.parent, exp.Filter) else self._level_of(node)
            if found is None or not self._reads_only(found[0].table, found[2]):
                continue
            value, level, counts = found
            node.replace(exp.PercentileDisc(this=value.copy(), expression=exp.Literal.number(level)))
            used |= counts
        for alias in used:
            self._drop(alias)

    # -- the expression --------------------------------------------------------------------------------------------

    def _level_of(self, node: exp.Expr) -> tuple[exp.Column, str, set[str]] | None:
        case = _bare(node.this)
        if not isinstance(case, exp.Case) or len(case.args["ifs"]) != 1 or case.this is not None:
            return None
        (branch,), default = case.args["ifs"], case.args.get("default")
        condition = _bare(branch.this)
        if isinstance(node, exp.Min) and isinstance(condition, exp.LT) and isinstance(default, exp.Column):
            return self._first_reaching(condition, branch.args["true"], default)
        shown = branch.args["true"]
        if isinstance(node, exp.Max) and isinstance(condition, exp.LTE) and isinstance(shown, exp.Column):
            return self._last_within(condition, shown, default)
        return None

    def _first_reaching(
        self, condition: exp.LT, beyond: exp.Expr, value: exp.Column
    ) -> tuple[exp.Column, str, set[str]] | None:
        """``place < level * size THEN <no value> ELSE x``."""
        place, share = _bare(condition.this), _bare(condition.expression)
        if not isinstance(place, exp.Column) or not isinstance(share, exp.Mul) or not _is_beyond(beyond):
            return None
        one, other = _bare(share.this), _bare(share.expression)
        if isinstance(other, exp.Literal):
            one, other = other, one
        if not isinstance(one, exp.Literal) or one.is_string or not isinstance(other, exp.Column):
            return None
        ranked = self._ranked(place, value)
        counts = None if ranked is None else self._counted(other, ranked)
        return None if counts is None else (value, one.name, counts)

    def _last_within(
        self, condition: exp.LTE, value: exp.Column, default: exp.Expr | None
    ) -> tuple[exp.Column, str, set[str]] | None:
        """``place / (size + 1) <= level THEN x ELSE <no value>``, the share as a column of the source."""
        share, level = _bare(condition.this), _bare(condition.expression)
        plain = default is None or _is_below(default)
        if not isinstance(share, exp.Column) or not isinstance(level, exp.Literal) or level.is_string or not plain:
            return None
        query = self._sources.get(share.table)
        item = None if query is None else _item(query, share.name)
        numbers = None if item is None else _share(item)
        if query is None or numbers is None or not isinstance(numbers[0].this, exp.RowNumber):
            return None
        ranked = self._as_ranked(share.table, query, numbers[0], value)
        return None if ranked is None or not _counts_all(numbers[1], ranked.groups) else (value, level.name, set())

    # -- where its parts come from ---------------------------------------------------------------------------------

    def _ranked(self, place: exp.Column, value: exp.Column) -> _Ranked | None:
        query = self._sources.get(place.table)
        item = None if query is None else _item(query, place.name)
        if query is None or not isinstance(item, exp.Window) or not isinstance(item.this, exp.RowNumber):
            return None
        return self._as_ranked(place.table, query, item, value)

    def _as_ranked(self, alias: str, query: exp.Select, window: exp.Window, value: exp.Column) -> _Ranked | None:
        """The source, where its window goes by the groups of the query and by the value."""
        groups = _partition(window)
        ordered = list(window.args["order"].expressions) if window.args.get("order") else []
        order = [_bare(one.this) for one in ordered if one.this not in groups]
        if value.table != alias or not order or any(one.args.get("desc") for one in ordered):
            return None
        if order[0] != _item(query, value.name) or window.args.get("spec") is not None:
            return None
        asked = {key.name for key in self._keys() if isinstance(key, exp.Column) and key.table == alias}
        mine = {name for item in query.expressions if (name := item.alias_or_name) and item.unalias() in groups}
        if not mine <= asked and not all(self._tied(name, alias) for name in mine - asked):
            return None
        if asked - mine or self._may_be_missing(order[0], query):
            return None
        return _Ranked(alias, query, groups, order[0]) if len(mine) >= len(groups) else None

    def _keys(self) -> list[exp.Expr]:
        group = self._query.args.get("group")
        return list(group.expressions) if group is not None else []

    def _tied(self, name: str, alias: str) -> bool:
        """Whether a group column equals one that the query groups by."""
        asked = {(key.table, key.name) for key in self._keys() if isinstance(key, exp.Column)}
        for equal in self._query.find_all(exp.EQ):
            ends = {(one.table, one.name) for one in (equal.this, equal.expression) if isinstance(one, exp.Column)}
            if (alias, name) in ends and ends & asked:
                return True
        return False

    def _counted(self, size: exp.Column, ranked: _Ranked) -> set[str] | None:
        """The joined sources that the count comes from; None where it is not one of the same rows."""
        query = self._sources.get(size.table)
        item = None if query is None else _item(query, size.name)
        if query is None or item is None:
            return None
        if size.table == ranked.alias:
            if isinstance(item, exp.Window):
                return set() if _counts_all(item, ranked.groups) else None
            inner = _bare(item)
            while isinstance(inner, exp.Subquery):
                inner = inner.this
            return set() if isinstance(inner, exp.Select) and self._counts(inner, ranked, ()) else None
        keys = query.args["group"].expressions if query.args.get("group") else []
        return {size.table} if self._counts(query, ranked, tuple(keys)) else None

    def _counts(self, query: exp.Select, ranked: _Ranked, keys: tuple[exp.Expr, ...]) -> bool:
        """Whether a SELECT counts the rows that are numbered, in the same groups."""
        counts = [node for item in query.expressions for node in item.find_all(exp.Count)]
        if len(counts) != 1 or {_name(key) for key in keys} != {_name(key) for key in ranked.groups}:
            return False
        per_group = ranked.query.args.get("group")
        if isinstance(counts[0].this, exp.Distinct):
            units = {_name(one) for one in counts[0].this.expressions}
            same = per_group is not None and {_name(one) for one in per_group.expressions} == units
        else:
            same = per_group is None and (_is_count(counts[0]) or _name(counts[0].this) in {_name(k) for k in keys})
        return same and self._rows(query) == self._rows(ranked.query) and not ranked.query.args.get("distinct")

    def _rows(self, query: exp.Select) -> tuple[frozenset[str], frozenset[str]]:
        """What a SELECT reads and by which conditions, without tables that only add columns to each row."""
        tables = set()
        for item in sources_of(query):
            text = item.name if isinstance(item, exp.Table) else item.this.sql()
            if not (isinstance(item, exp.Table) and self._adds_columns_only(item.name)):
                tables.add(text)
        conditions = {_name(term) for term in _terms(query) if not _is_join(term)}
        return frozenset(tables), frozenset(conditions)

    def _reads_only(self, ranked: str, counts: set[str]) -> bool:
        """Whether the query reads the numbered rows and their counts alone, and all of them or none of a group."""
        others = [item for item in sources_of(self._query) if item.alias_or_name not in {ranked, *counts}]
        return all(map(_is_join, _terms(self._query))) and all(self._names_groups(item, counts) for item in others)

    def _names_groups(self, item: exp.Expr, counts: set[str]) -> bool:
        """Whether a public table is joined on its unique key to what the query groups by: names of the groups."""
        table = self._dataset.tables.get(item.name) if isinstance(item, exp.Table) else None
        if table is None or item.name in self._named or not table.public or not table.key:
            return False
        grouped = {(key.table, key.name) for key in self._keys() if isinstance(key, exp.Column)}
        tied: set[str] = set()
        for term in _terms(self._query):
            for mine, other in ((term.this, term.expression), (term.expression, term.this)):
                constant = other.table in counts or (other.table, other.name) in grouped
                if mine.table == item.alias_or_name and constant:
                    tied.add(mine.name)
        return set(table.key) <= tied

    def _may_be_missing(self, value: exp.Expr, query: exp.Select) -> bool:
        """Whether a value may be NULL: it would be numbered, last, and counted, and PERCENTILE_DISC leaves it out."""
        value = _bare(value)
        if any(value in term.find_all(type(value)) for term in _terms(query) if _leaves_null_out(term)):
            return False
        if isinstance(value, exp.Column):
            return self._column_may_be_missing(value, query)
        if isinstance(value, exp.Literal):
            return False
        if isinstance(value, exp.Coalesce):
            return all(self._may_be_missing(part, query) for part in [value.this, *value.expressions])
        whole = isinstance(value, (*_WHOLE, exp.Case)) and (
            not isinstance(value, exp.Case) or value.args.get("default")
        )
        return not whole or any(self._may_be_missing(part, query) for part in _values(value))

    def _column_may_be_missing(self, column: exp.Column, query: exp.Select) -> bool:
        for item in sources_of(query):
            if column.table not in ("", item.alias_or_name):
                continue
            join = item.parent
            if isinstance(join, exp.Join) and join.side:
                return True
            table = self._dataset.tables.get(item.name) if isinstance(item, exp.Table) else None
            if table is not None and item.name not in self._named:
                known = table.columns.get(column.name)
                return known is None or known.nullable
            inner = self._select(item)
            shown = None if inner is None else _item(inner, column.name)
            return inner is None or shown is None or self._may_be_missing(shown, inner)
        return True

    def _adds_columns_only(self, name: str) -> bool:
        table = self._dataset.tables.get(name) if name not in self._named else None
        return table is not None and table.one_row_per_unit

    def _drop(self, alias: str) -> None:
        """Removes a joined table of counts, its group columns read from the ranked source that they equal."""
        equal = {}
        for condition in self._query.find_all(exp.EQ):
            ends = [one for one in (condition.this, condition.expression) if isinstance(one, exp.Column)]
            if len(ends) == 2 and {alias} < {one.table for one in ends}:
                mine, other = sorted(ends, key=lambda one: one.table != alias)
                equal[mine.name] = other.copy()
        joins = self._query.args.get("joins") or []
        kept = [join for join in joins if join.this.alias_or_name != alias]
        if len(kept) == len(joins):
            return
        self._query.set("joins", kept)
        for column in list(self._query.find_all(exp.Column)):
            if column.table == alias and column.name in equal:
                column.replace(equal[column.name].copy())

    def _select(self, item: exp.Expr) -> exp.Select | None:
        inner = self._named.get(item.name) if isinstance(item, exp.Table) else item.this
        while isinstance(inner, exp.Subquery):
            inner = inner.this
        return inner if isinstance(inner, exp.Select) else None


_WHOLE = (
    exp.Add, exp.Sub, exp.Mul, exp.Neg, exp.Abs, exp.Floor, exp.Ceil, exp.Round, exp.Greatest, exp.Least, exp.Window,
    exp.Year, exp.Month, exp.Day, exp.Extract, exp.DateDiff, exp.TsOrDsDiff, exp.TimestampDiff, exp.DateTrunc,
    exp.TimestampTrunc, exp.Min, exp.Max, exp.Sum, exp.Avg, exp.Count,
)  # fmt: skip
"""What is NULL only where something in it is; an aggregate of a group, which has a row, among them."""


def _values(node: exp.Expr) -> list[exp.Expr]:
    """The parts of an expression whose values it is made of."""
    if isinstance(node, exp.Count):
        return []
    if isinstance(node, exp.Window):
        return [node.this]
    if isinstance(node, exp.Case):
        return [*(branch.args["true"] for branch in node.args["ifs"]), node.args["default"]]
    return [part for part in node.iter_expressions() if not isinstance(part, (exp.Var, exp.DataType, exp.Interval))]


def _terms(query: exp.Select) -> list[exp.Expr]:
    """The conditions of WHERE and of inner joins; of another join, the join, which nothing equals."""
    found: list[exp.Expr] = [query.args["where"].this] if query.args.get("where") else []
    found += [join.args["on"] for join in query.args.get("joins") or () if join.args.get("on") is not None]
    return [term for one in found for term in (one.flatten() if isinstance(one, exp.And) else [one])]


def _is_join(term: exp.Expr) -> bool:
    """Whether a condition is equality of two tables' columns."""
    ends = [_bare(end) for end in (term.this, term.expression)] if isinstance(term, exp.EQ) else []
    tables = {end.table for end in ends if isinstance(end, exp.Column)}
    return len(tables) == 2


def _leaves_null_out(term: exp.Expr) -> bool:
    if isinstance(term, exp.Not):
        return isinstance(term.this, exp.Is) and isinstance(term.this.expression, exp.Null)
    return isinstance(term, (exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Between, exp.In, exp.NEQ))


def _is_beyond(node: exp.Expr) -> bool:
    """Whether it stands for no value: NULL, a number of nines, a day of the year 9999."""
    if node.find(exp.Column):
        return False
    literals = [one.name for one in node.find_all(exp.Literal)]
    if isinstance(_bare(node), exp.Null):
        return True
    return any(text[:4] == "9999" or (len(text) > 1 and set(text) == {"9"}) for text in literals)


def _is_below(node: exp.Expr) -> bool:
    """Whether it stands for no value beside a MAX: NULL, zero, a negative number of nines."""
    node = _bare(node)
    if isinstance(node, exp.Neg):
        return isinstance(node.this, exp.Literal) and set(node.this.name) == {"9"}
    return isinstance(node, exp.Null) or _is_number(node, "0")


def _is_number(node: exp.Expr, text: str) -> bool:
    node = _bare(node)
    return isinstance(node, exp.Literal) and not node.is_string and node.name == text


def _share(item: exp.Expr) -> tuple[exp.Window, exp.Window] | None:
    """The windows of ``place / size`` and ``place / (size + 1)``, the place times one or not."""
    item = _bare(item)
    if not isinstance(item, exp.Div):
        return None
    place, size = _bare(item.this), _bare(item.expression)
    if isinstance(place, exp.Mul):
        ones = [one for one in (place.this, place.expression) if not (_is_number(one, "1") or _is_number(one, "1.0"))]
        place = _bare(ones[0]) if len(ones) == 1 else place
    if isinstance(size, exp.Add):
        parts = [one for one in (size.this, size.expression) if not _is_number(one, "1")]
        size = _bare(parts[0]) if len(parts) == 1 else size
    return (place, size) if isinstance(place, exp.Window) and isinstance(size, exp.Window) else None


def _counts_all(window: exp.Window, groups: tuple[exp.Expr, ...]) -> bool:
    """Whether a window counts all rows of each group, and not those so far."""
    whole = window.args.get("order") is None and window.args.get("spec") is None
    return whole and _is_count(window.this) and _partition(window) == groups


def _bare(node: exp.Expr) -> exp.Expr:
    while isinstance(node, _WRAPPERS):
        node = node.this
    return node


def _item(query: exp.Select, name: str) -> exp.Expr | None:
    """What a SELECT shows under a name."""
    found = next((item for item in query.expressions if item.alias_or_name == name), None)
    return None if found is None else _bare(found.unalias())


def _partition(window: exp.Window) -> tuple[exp.Expr, ...]:
    return tuple(window.args.get("partition_by") or ())


def _is_count(node: exp.Expr) -> bool:
    """COUNT of rows."""
    return isinstance(node, exp.Count) and (node.this is None or isinstance(node.this, (exp.Star, exp.Literal)))


def _name(node: exp.Expr) -> str:
    """A text of an expression that is the same under other names of its tables."""
    copy = node.copy()
    for column in [copy] if isinstance(copy, exp.Column) else list(copy.find_all(exp.Column)):
        column.set("table", None)
    return str(copy.sql())
