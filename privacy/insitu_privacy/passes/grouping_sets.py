"""GROUPING SETS, ROLLUP and CUBE: a SELECT for each grouping set, put together by UNION ALL.

Each set is a release of its own (DESIGN.md section 4, Statistics): its groups are counted anew, with their own noise,
so that the total of a cube need not be the sum of its parts. Works on parsed trees, before names are bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, product

from sqlglot import exp

from insitu_privacy.passes.grouping import aggregates_in
from insitu_privacy.passes.nodes import every
from insitu_privacy.passes.spans import forbidden

_SETS_LIMIT = 16
_Set = tuple[exp.Expr, ...]


def without_grouping_sets(tree: exp.Query) -> exp.Query:
    """The query with every SELECT over several grouping sets as a union of SELECTs over one each.

    Raises SqlRefused where there are more than 16 sets, or rows are ordered by what is not selected.
    """
    for select in [node for node in every(tree, exp.Select) if _has_sets(node)]:
        united = _united(select)
        if select is tree:
            return united
        select.replace(united)
    return tree


def _has_sets(select: exp.Select) -> bool:
    group = select.args.get("group")
    if group is None:
        return False
    nested = any(isinstance(item, (exp.Cube, exp.Rollup, exp.GroupingSets)) for item in group.expressions)
    return nested or any(group.args.get(name) for name in ("cube", "rollup", "grouping_sets"))


def _united(select: exp.Select) -> exp.Query:
    cut = select.parent is not None and any(select.args.get(name) for name in ("order", "limit", "offset"))
    if cut or select.args.get("distinct") or any(item.find(exp.Window) for item in select.expressions):
        return _above(select)
    group = select.args["group"]
    outputs = _outputs(select)
    sets = [_resolved(one, outputs, select) for one in _sets(group)]
    if len(sets) > _SETS_LIMIT:
        raise forbidden(group, f"more than {_SETS_LIMIT} grouping sets", "Ask for fewer of them.")
    every = list(dict.fromkeys(key for one in sets for key in one))
    order, limit, offset, with_ = (select.args.get(name) for name in ("order", "limit", "offset", "with_"))
    branches = [_branch(select, one, every) for one in sets]
    united: exp.Query = branches[0]
    for branch in branches[1:]:
        united = exp.Union(this=united, expression=branch, distinct=False)
    united.set("with_", with_)
    if order is not None:
        united.set("order", exp.Order(expressions=[_ordered(item, select) for item in order.expressions]))
    united.set("limit", limit)
    united.set("offset", offset)
    return united


def _outputs(select: exp.Select) -> dict[str, exp.Expr]:
    return {item.alias_or_name.lower(): item.unalias() for item in select.expressions if item.alias_or_name}


def _above(select: exp.Select) -> exp.Select:
    """DISTINCT and window functions look at the groups of all sets: a SELECT above a derived table of them."""
    group = select.args["group"]
    outputs = _outputs(select)
    sets = [_resolved(one, outputs, select) for one in _sets(group)]
    order = select.args.get("order")
    shown = [*select.expressions, *(order.expressions if order is not None else [])]
    read = list(
        dict.fromkeys(
            [*(key for one in sets for key in one), *(found for item in shown for found in aggregates_in(item))]
        )
    )
    names = {node: f"_g{place}" for place, node in enumerate(read)}
    below = select.copy()
    for clause in ("order", "limit", "offset", "with_", "distinct"):
        below.set(clause, None)
    tuples = [exp.Tuple(expressions=[key.copy() for key in one]) for one in sets]
    below.set("group", exp.Group(expressions=[exp.GroupingSets(expressions=tuples)]))
    below.set(
        "expressions", [exp.Alias(this=node.copy(), alias=exp.to_identifier(name)) for node, name in names.items()]
    )
    above = exp.Select(expressions=[_labelled(item, _reading(item.unalias(), names)) for item in select.expressions])
    above.set(
        "from_", exp.From(this=exp.Subquery(this=_united(below), alias=exp.TableAlias(this=exp.to_identifier("_sets"))))
    )
    for clause in ("distinct", "limit", "offset", "with_"):
        above.set(clause, select.args.get(clause))
    if order is not None:
        above.set("order", exp.Order(expressions=[_reading(item, names) for item in order.expressions]))
    return above


def _reading(node: exp.Expr, names: Mapping[exp.Expr, str]) -> exp.Expr:
    """An expression over groups, with the columns that hold its keys and aggregates."""

    def change(part: exp.Expr) -> exp.Expr:
        name = next((name for one, name in names.items() if _same(_bare(part), one)), None)
        return part if name is None else exp.column(exp.to_identifier(name))

    return node.copy().transform(change)


def _branch(select: exp.Select, keys: _Set, every: Sequence[exp.Expr]) -> exp.Select:
    """The SELECT of one grouping set: other keys are NULL in it."""
    branch = select.copy()
    for clause in ("order", "limit", "offset", "with_"):
        branch.set(clause, None)
    gone = [key for key in every if not any(_same(key, one) for one in keys)]
    branch.set("expressions", [_labelled(item, _without(item.unalias(), keys, gone)) for item in branch.expressions])
    having = branch.args.get("having")
    if having is not None:
        having.set("this", _without(having.this, keys, gone))
    branch.set("group", exp.Group(expressions=[key.copy() for key in keys]) if keys else None)
    return branch


def _labelled(item: exp.Expr, value: exp.Expr) -> exp.Alias:
    """A selected item under its own name, with another value."""
    name = item.args.get("alias") if isinstance(item, exp.Alias) else None
    plain = item.name if isinstance(item, exp.Column) else item.sql().lower()
    label = name if isinstance(name, exp.Identifier) else exp.to_identifier(plain)
    return exp.Alias(this=value, alias=label.copy())


def _without(node: exp.Expr, keys: _Set, gone: Sequence[exp.Expr]) -> exp.Expr:
    """An expression where the keys of other sets are NULL, and GROUPING says which are.

    What is a key of this set stays as it is, whatever it is made of; an aggregate reads rows, where no key is gone.
    """
    if isinstance(node, exp.Grouping):
        bits = "".join("1" if any(_same(_bare(one), key) for key in gone) else "0" for one in node.expressions)
        return exp.Literal.number(int(bits or "0", 2))
    if isinstance(node, (exp.AggFunc, exp.Filter, exp.WithinGroup)) or any(_same(node, key) for key in keys):
        return node
    if any(_same(node, key) for key in gone):
        return exp.Null()
    return _parts_without(node, keys, gone)


def _parts_without(node: exp.Expr, keys: _Set, gone: Sequence[exp.Expr]) -> exp.Expr:
    for name, value in list(node.args.items()):
        if isinstance(node, exp.Window) and name == "this":  # it reads groups, not rows
            _parts_without(value, keys, gone)
        elif isinstance(value, exp.Expr):
            node.set(name, _without(value, keys, gone))
        elif isinstance(value, list):
            node.set(name, [_without(one, keys, gone) if isinstance(one, exp.Expr) else one for one in value])
    return node


def _bare(node: exp.Expr) -> exp.Expr:
    return _bare(node.this) if isinstance(node, exp.Paren) else node


def _ordered(item: exp.Expr, select: exp.Select) -> exp.Expr:
    """An item of ORDER BY by the name of the column that it is."""
    target = item.this
    if isinstance(target, exp.Literal):
        return item
    for column in select.expressions:
        name = column.alias_or_name
        if name and (_same(target, column.unalias()) or (isinstance(target, exp.Column) and target.name == name)):
            copy = item.copy()
            copy.set("this", exp.column(exp.to_identifier(name)))
            return copy
    raise forbidden(item, "ORDER BY beside grouping sets by what is not selected", "Select it too.")


# -- the sets ----------------------------------------------------------------------------------------------------------


def _sets(group: exp.Group) -> list[_Set]:
    """The grouping sets: the product of what each item of GROUP BY stands for."""
    parts: list[list[_Set]] = []
    plain: list[exp.Expr] = []
    for item in group.expressions:
        if isinstance(item, (exp.Cube, exp.Rollup, exp.GroupingSets)):
            parts.append(_sets_of(item))
        else:
            plain.append(item)
    for name, kind in (("cube", exp.Cube), ("rollup", exp.Rollup), ("grouping_sets", exp.GroupingSets)):
        for item in group.args.get(name) or []:
            if isinstance(item, exp.Expr) and item.expressions:
                parts.append(_sets_of(item))
            else:  # GROUP BY a, b WITH CUBE
                parts.append(_sets_of(kind(expressions=plain)))
                plain = []
    return [tuple(dict.fromkeys([*plain, *(key for one in chosen for key in one)])) for chosen in product(*parts)]


def _sets_of(item: exp.Expr) -> list[_Set]:
    keys = [_keys(one) for one in item.expressions]
    if isinstance(item, exp.Rollup):
        return [_flat(keys[:count]) for count in range(len(keys), -1, -1)]
    if isinstance(item, exp.Cube):
        if len(keys) > _SETS_LIMIT.bit_length():
            raise forbidden(item, f"more than {_SETS_LIMIT} grouping sets", "Ask for fewer of them.")
        return [_flat(chosen) for count in range(len(keys), -1, -1) for chosen in combinations(keys, count)]
    found: list[_Set] = []
    for one in item.expressions:
        found += _sets_of(one) if isinstance(one, (exp.Cube, exp.Rollup, exp.GroupingSets)) else [_keys(one)]
    return found


def _keys(node: exp.Expr) -> _Set:
    if isinstance(node, exp.Tuple):
        return tuple(node.expressions)
    return _keys(node.this) if isinstance(node, exp.Paren) else (node,)


def _flat(keys: Sequence[_Set]) -> _Set:
    return tuple(key for one in keys for key in one)


def _resolved(keys: _Set, outputs: dict[str, exp.Expr], select: exp.Select) -> _Set:
    """Keys that are written as positions, or as names of selected expressions, written out."""

    def written_out(key: exp.Expr) -> exp.Expr:
        if isinstance(key, exp.Literal) and key.name.isdigit() and 0 < int(key.name) <= len(select.expressions):
            item: exp.Expr = select.expressions[int(key.name) - 1].unalias()
            return item
        return outputs.get(key.name.lower(), key) if isinstance(key, exp.Column) and not key.table else key

    return tuple(map(written_out, keys))


def _same(one: exp.Expr, other: exp.Expr) -> bool:
    """Whether two expressions are the same; a column without its table is one with it."""
    if isinstance(one, exp.Column) and isinstance(other, exp.Column):
        tables = {one.table.lower(), other.table.lower()} - {""}
        return one.name.lower() == other.name.lower() and len(tables) < 2
    return one == other
