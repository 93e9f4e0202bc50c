"""Pass 5: the release frontier of a whole query. Its parts below are releases; all above them is post-processing.

Walks the query from the outside in. A SELECT is public, protected (rows of persons), a release (aggregates or keys
of a protected relation without the unit), or above releases: then it runs on noisy values, where no raw data is, and
costs nothing. A release that is named once, in WITH, is made once, however often it is read.

A query over public tables alone has no release. What is not here: a SELECT that reads noisy values and persons' rows
together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from sqlglot import exp

from insitu_privacy.dataset import Dataset
from insitu_privacy.passes import outer
from insitu_privacy.passes.axes import is_axis, read_axis
from insitu_privacy.passes.frontier import Frontier, frontier, is_node_id
from insitu_privacy.passes.grouping import is_grouped
from insitu_privacy.passes.inputs import sources_of
from insitu_privacy.passes.nodes import children, copied_without, every, has
from insitu_privacy.passes.outer_joins import is_full_join, without_full_join
from insitu_privacy.passes.single_rows import is_single_row, moved_above
from insitu_privacy.passes.spans import forbidden
from insitu_privacy.passes.track import Tracker
from insitu_privacy.passes.tracked import Environment, Tracked

RELEASES_LIMIT = 16
Kind = Literal["public", "protected", "noisy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One release: the rows it is made of, and its keys and aggregates."""

    tracked: Tracked
    front: Frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifted:
    """A query as releases and the SQL above them."""

    parts: tuple[Part, ...]
    outer: exp.Query
    noisy: tuple[bool, ...]
    """For each column of the answer, whether noise stands in it."""
    public: tuple[str, ...]
    """The public tables that it reads beside them, by their names in the dataset."""
    by_cell: bool
    """Whether the outermost SELECT is the one release itself: each of its rows is then a cell."""


@dataclass(frozen=True, slots=True)
class _Scope:
    """The WITH queries around: of persons' rows and public ones as they were written, noisy ones by their columns."""

    rows: Environment = field(default_factory=dict)
    noisy: Mapping[str, frozenset[str]] = field(default_factory=dict)


def lift(tree: exp.Select, *, dataset: Dataset) -> Lifted:
    """The releases of a qualified query. Raises SqlRefused where rows of persons would be returned."""
    walk = _Lift(dataset, _free_prefix(tree))
    walk.settled(tree, _Scope())
    scope, with_ = walk.scoped(tree, _Scope())
    if walk.is_above(tree, scope):
        above, noisy = walk.above(tree, scope, with_)
        names = [item.alias_or_name for item in above.expressions]
        flags = tuple(name in noisy for name in names)
        return Lifted(parts=walk.parts, outer=above, noisy=flags, public=walk.public, by_cell=False)
    above, noisy = walk.release(tree, scope, with_)
    names = [item.alias_or_name for item in above.expressions]
    by_cell = not has(above, exp.Window) and len(walk.parts) == 1
    flags = tuple(name in noisy for name in names)
    return Lifted(parts=walk.parts, outer=above, noisy=flags, public=walk.public, by_cell=by_cell)


def published(name: str) -> str:
    """What a public table is called in the post-processing."""
    return f"insitu_public_{name}"


class _Lift:
    def __init__(self, dataset: Dataset, prefix: str) -> None:
        self._dataset = dataset
        self._prefix = prefix
        self._tracker, self._peeking = Tracker(dataset), Tracker(dataset)
        self._kinds: dict[int, tuple[exp.Expr, Kind]] = {}
        self._numbers = count()
        self._made: dict[int, Part] = {}
        self._public: set[str] = set()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The releases, in the order of their names."""
        return tuple(part for _, part in sorted(self._made.items()))

    @property
    def public(self) -> tuple[str, ...]:
        """The public tables that are read above releases."""
        return tuple(sorted(self._public))

    # -- what a query is ---------------------------------------------------------------------------------------------

    def kind(self, query: exp.Expr, scope: _Scope) -> Kind:
        """What rows a query has, without planning it."""
        query = _bare(query)
        if id(query) not in self._kinds:
            self._kinds[id(query)] = (query, self._kind(query, scope))
        return self._kinds[id(query)][1]

    def _kind(self, query: exp.Expr, scope: _Scope) -> Kind:
        if isinstance(query, exp.SetOperation):
            return _highest([self.kind(query.left, scope), self.kind(query.right, scope)])
        if not isinstance(query, exp.Select):
            raise forbidden(query, query.key.upper(), "Write a SELECT.")
        scope = self.settled(query, scope)
        self._read_axis(query, scope)
        found = _highest([self._source_kind(item, scope) for item in sources_of(query)])
        if found == "protected":
            return "noisy" if self._is_release(query, scope) else "protected"
        if found == "public":
            inner = [self.kind(one, scope) for one in _subqueries(query)]
            return "noisy" if "noisy" in inner else "public"
        return found

    def _read_axis(self, query: exp.Select, scope: _Scope) -> None:
        """Makes a DISTINCT of public keys, below another SELECT, a list of them."""
        kinds = [self._source_kind(item, scope) for item in sources_of(query)]
        if query.parent is not None and is_axis(query) and kinds == ["protected"]:
            read_axis(query, self._tracked(query, scope))

    def _source_kind(self, item: exp.Expr, scope: _Scope) -> Kind:
        if isinstance(item, exp.Table):
            if item.name in scope.noisy:
                return "noisy"
            if item.name in scope.rows:
                query, around = scope.rows[item.name]
                return self.kind(query, _Scope(around, scope.noisy))
            return "public" if self._dataset.tables[item.name].public else "protected"
        return self.kind(item, scope)

    def _is_release(self, query: exp.Select, scope: _Scope) -> bool:
        """Whether a SELECT over persons' rows has one row for several of them."""
        distinct = query.args.get("distinct") is not None
        if not distinct and not is_grouped(query):
            return False
        tracked = self._tracked(query, scope)
        group = query.args.get("group")
        nodes = group.expressions if is_grouped(query) and group else query.expressions if distinct else []
        keys = tuple(
            tracked.allow.expression(node.unalias())
            for node in nodes
            if not isinstance(node, exp.Literal) and not is_node_id(node.unalias())
        )
        return tracked.unit_among(keys) is None and not tracked.entity_among(keys)

    def _tracked(self, query: exp.Select, scope: _Scope) -> Tracked:
        return self._peeking.select(query, scope.rows, None)

    def settled(self, query: exp.Select, scope: _Scope) -> _Scope:
        """The scope inside a SELECT, once results of one row that it reads beside persons' rows are moved above."""
        inside = self._peeked(query, scope)
        kinds = {item.alias_or_name: self._source_kind(item, inside) for item in sources_of(query)}
        if set(kinds.values()) == {"protected"} and is_full_join(query):
            without_full_join(query)
            return inside
        singles = {item.alias_or_name for item in sources_of(query) if is_single_row(_definition(item))}
        singles = {name for name in singles if kinds[name] == "noisy"}
        mixed = "protected" in kinds.values() and singles == {name for name, kind in kinds.items() if kind == "noisy"}
        if mixed and singles and is_grouped(query) and moved_above(query, singles):
            return self._peeked(query, scope)
        return inside

    def _peeked(self, query: exp.Expr, scope: _Scope) -> _Scope:
        """The scope inside a query, its WITH queries looked at and not planned."""
        rows, noisy = dict(scope.rows), dict(scope.noisy)
        with_ = query.args.get("with_")
        for one in with_.expressions if with_ is not None else ():
            if self.kind(one.this, _Scope(rows, noisy)) == "noisy":
                noisy[one.alias] = frozenset()
                rows.pop(one.alias, None)
            else:
                rows = {**rows, one.alias: (one.this, dict(rows))}
                noisy.pop(one.alias, None)
        return _Scope(rows, noisy)

    # -- what is made of it ------------------------------------------------------------------------------------------

    def scoped(self, query: exp.Expr, scope: _Scope) -> tuple[_Scope, list[exp.CTE]]:
        """The scope inside a query, and its noisy WITH queries lifted."""
        rows, noisy, made = dict(scope.rows), dict(scope.noisy), list[exp.CTE]()
        with_ = query.args.get("with_")
        for one in with_.expressions if with_ is not None else ():
            inside = _Scope(rows, noisy)
            if self.kind(one.this, inside) == "noisy":
                above, columns = self.lifted(one.this, inside)
                made.append(exp.CTE(this=above, alias=exp.TableAlias(this=exp.to_identifier(one.alias))))
                noisy = {**noisy, one.alias: columns}
                rows.pop(one.alias, None)
            else:
                rows = {**rows, one.alias: (one.this, dict(rows))}
                noisy = {name: columns for name, columns in noisy.items() if name != one.alias}
        return _Scope(rows, noisy), made

    def is_above(self, query: exp.Select, scope: _Scope) -> bool:
        """Whether a SELECT reads noisy values or public rows, and not persons'."""
        kinds = [self._source_kind(item, scope) for item in sources_of(query)]
        return "noisy" in kinds or "protected" not in kinds

    def lifted(self, query: exp.Expr, scope: _Scope) -> tuple[exp.Query, frozenset[str]]:
        """A noisy or public query as SQL over released relations and public tables, and its noisy columns."""
        query = _bare(query)
        if isinstance(query, exp.SetOperation):
            left, one = self._side(query.left, scope)
            right, other = self._side(query.right, scope)
            copy = query.copy()
            copy.set("this", left if left.args.get("limit") is None else exp.Subquery(this=left))
            copy.set("expression", right if right.args.get("limit") is None else exp.Subquery(this=right))
            copy.set("with_", None)
            places = dict(zip(right.named_selects, left.named_selects, strict=False))
            return copy, one | {places[name] for name in other if name in places}
        assert isinstance(query, exp.Select)
        inside, with_ = self.scoped(query, scope)
        if self.is_above(query, inside):
            return self.above(query, inside, with_)
        above, noisy = self.release(query, inside, with_)
        if not (above.args.get("limit") or above.args.get("offset")):
            above.set("order", None)  # rows of a part have no order
        return above, noisy

    def _side(self, query: exp.Expr, scope: _Scope) -> tuple[exp.Query, frozenset[str]]:
        if self.kind(query, scope) == "protected":
            hint = "Ask the sides as queries of their own."
            raise forbidden(query, "a set operation of noisy results with other rows", hint)
        return self.lifted(query, scope)

    def release(self, query: exp.Select, scope: _Scope, with_: list[exp.CTE]) -> tuple[exp.Select, frozenset[str]]:
        """A SELECT over persons' rows whose aggregates and keys are released; subqueries above may read ``with_``."""
        number = next(self._numbers)
        if number >= RELEASES_LIMIT:
            raise forbidden(query, f"more than {RELEASES_LIMIT} releases", "Ask several queries.")
        if query.args.get("distinct") is not None and not is_grouped(query):
            query = query.copy()
            query.set("group", exp.Group(expressions=[item.unalias().copy() for item in query.expressions]))
            query.set("distinct", None)
        tracked = self._tracker.select(query, scope.rows, None)
        front = frontier(query, tracked, f"{self._prefix}{number}", lambda node: self._side(node, scope)[0])
        self._made[number] = Part(tracked=tracked, front=front)
        noisy = frozenset(
            item.alias
            for item in front.outer.expressions
            if has(item, exp.Query) or any(column.name.startswith("a") for column in every(item, exp.Column))
        )
        outer = front.outer.copy()
        outer.set("with_", exp.With(expressions=with_) if with_ else None)
        return outer, noisy

    def above(self, query: exp.Select, scope: _Scope, with_: list[exp.CTE]) -> tuple[exp.Select, frozenset[str]]:
        """A SELECT over noisy values and public rows: its sources lifted, the rest as it stands."""
        copy = copied_without(query, "with_")
        copy.set("with_", exp.With(expressions=with_) if with_ else None)
        noisy: dict[str, frozenset[str]] = {}
        for item, target in zip(sources_of(query), sources_of(copy), strict=True):
            noisy[item.alias_or_name] = self._source(item, target, scope)
        for item, target in zip(_subqueries(query), _subqueries(copy), strict=True):
            above, _ = self._side(item, scope)
            plain = isinstance(target, exp.Query) and not isinstance(target, exp.Subquery)
            target.replace(above if plain else above.subquery())
        _totalised(copy)
        outer.check(copy)
        names = frozenset(item.alias_or_name for item in copy.expressions if _is_noisy(item, noisy))
        return copy, names

    def _source(self, item: exp.Expr, target: exp.Expr, scope: _Scope) -> frozenset[str]:
        if self._source_kind(item, scope) == "protected":
            hint = "Join the rows first and aggregate then, or ask two queries."
            raise forbidden(item, "persons' rows beside noisy results", hint)
        if isinstance(item, exp.Table):
            return self._named(item, target, scope)
        above, columns = self.lifted(item, scope)
        assert isinstance(target, exp.Subquery)
        target.set("this", above)
        return columns

    def _named(self, item: exp.Table, target: exp.Expr, scope: _Scope) -> frozenset[str]:
        """A noisy WITH query, a public one, written out, or a public table."""
        if item.name in scope.noisy:
            return scope.noisy[item.name]
        alias = exp.TableAlias(this=exp.to_identifier(item.alias_or_name))
        if item.name in scope.rows:
            query, around = scope.rows[item.name]
            above, columns = self.lifted(query, _Scope(around, scope.noisy))
            target.replace(exp.Subquery(this=above, alias=alias))
            return columns
        if self._dataset.tables[item.name].source is None:
            hint = "The dataset does not carry its rows: join it to persons' rows below the aggregate."
            raise forbidden(item, f"the public table {item.name} beside results", hint)
        self._public.add(item.name)
        target.replace(exp.Table(this=exp.to_identifier(published(item.name)), alias=alias))
        return frozenset()


def _free_prefix(tree: exp.Expr) -> str:
    """What the names of released relations begin with, so that no WITH query or alias has one of them."""
    taken = {node.name.lower() for node in every(tree, exp.Identifier)}
    prefix = "r"
    while any(name.startswith(prefix) and name[len(prefix) :].partition("_")[0].isdigit() for name in taken):
        prefix += "r"
    return prefix


def _definition(item: exp.Expr) -> exp.Expr:
    """The query of a derived table or of a WITH query; a table of the dataset itself."""
    node: exp.Expr | None = item
    while isinstance(item, exp.Table) and node is not None:
        with_ = node.args.get("with_")
        for one in with_.expressions if with_ is not None else ():
            if one.alias == item.name and one.this is not node:
                return _bare(one.this)
        node = node.parent
    return _bare(item)


def _bare(query: exp.Expr) -> exp.Expr:
    while isinstance(query, exp.Subquery):
        query = query.this
    return query


def _highest(kinds: list[Kind]) -> Kind:
    return "noisy" if "noisy" in kinds else "protected" if "protected" in kinds else "public"


def _subqueries(query: exp.Expr) -> list[exp.Expr]:
    """The queries in a SELECT's expressions, outermost ones only; those it reads from are not among them."""
    found: list[exp.Expr] = []
    apart = {id(item) for item in sources_of(query)} if isinstance(query, exp.Select) else set()
    stack = [child for child in children(query) if not isinstance(child, exp.With)]
    while stack:
        node = stack.pop(0)
        if id(node) in apart:
            continue
        if isinstance(node, (exp.Subquery, exp.Query)):
            found.append(node)
        else:
            stack = [*children(node), *stack]
    return found


def _is_noisy(item: exp.Expr, noisy: Mapping[str, frozenset[str]]) -> bool:
    """Whether noise stands in a column: it reads a noisy one, counts rows, or looks into a subquery."""
    if has(item, exp.AggFunc, exp.Window, exp.Query):
        return True
    return any(column.name in noisy.get(column.table, frozenset()) for column in every(item, exp.Column))


def _totalised(tree: exp.Expr) -> None:
    """Casts that fail give NULL above releases too."""
    for node in every(tree, exp.Cast):
        if not isinstance(node, exp.TryCast):
            node.replace(exp.TryCast(this=node.this, to=node.args["to"]))
