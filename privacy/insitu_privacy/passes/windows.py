"""Window functions over persons' rows: each unit's rows apart from all others' ("first stay of each person").

A window must be partitioned by the unit or an entity key, and the unit is a part of the partition in any case. What a
window gives may not depend on the order in which the database happens to read rows, for that depends on other persons'
rows: so ROW_NUMBER, LAG and their like have every column of the row as a last resort in their ORDER BY, and rows that
are equal in all of them are the same to whoever reads on. Sums over a window are of integers alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from insitu_privacy.domains import INTEGER_LIMIT, Inference, is_bounded
from insitu_privacy.expressions import ColumnRef, Expression
from insitu_privacy.facts import Facts, Interval
from insitu_privacy.passes.made import Made, bounds_of, entities_of, unit_places
from insitu_privacy.passes.spans import forbidden
from insitu_privacy.relations import Relation, Window, WindowFunction, Windowing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from insitu_privacy.passes.track import Tracker
    from insitu_privacy.passes.tracked import Tracked

_RANKS: Mapping[type[exp.Expr], WindowFunction] = {
    exp.RowNumber: "row_number",
    exp.Rank: "rank",
    exp.DenseRank: "dense_rank",
}
_VALUES: Mapping[type[exp.Expr], WindowFunction] = {
    exp.Lag: "lag",
    exp.Lead: "lead",
    exp.FirstValue: "first",
    exp.LastValue: "last",
}
_AGGREGATES: Mapping[type[exp.Expr], WindowFunction] = {
    exp.Min: "least",
    exp.Max: "greatest",
    exp.Count: "count",
    exp.Sum: "sum",
}
_BROKEN_TIES = ("row_number", "lag", "lead", "first", "last")
_FRAMED = ("least", "greatest", "count", "sum")
_CHOOSING = (exp.RowNumber, *_VALUES)
_OFFSET_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a window's values: as bounds that are enforced by clipping, and in any case."""

    facts: Facts
    sure: Facts


def windows_in(item: exp.Expr) -> list[exp.Window]:
    """The window calls in an expression; those of subqueries are not among them."""
    found: list[exp.Window] = []
    stack = [item]
    while stack:
        node = stack.pop()
        if isinstance(node, (exp.Subquery, exp.Select)):
            continue
        if isinstance(node, exp.Window):
            found.append(node)
        else:
            stack.extend(node.iter_expressions())
    return found


def windowed(tracker: Tracker, items: Sequence[exp.Expr], tracked: Tracked) -> Tracked:
    """The relation with the window calls of ``items`` as columns of its rows; itself where there are none."""
    nodes: dict[exp.Window, str] = {}
    for item in items:
        for node in windows_in(item):
            nodes.setdefault(node, f"x{len(nodes)}")
    if not nodes:
        return tracked
    tracked, ties = _with_ties(tracker, nodes, tracked)
    made = {name: _lowered(node, tracked, ties) for node, name in nodes.items()}
    return _layer(tracker, tracked, made, nodes)


def _with_ties(
    tracker: Tracker, nodes: Mapping[exp.Window, str], tracked: Tracked
) -> tuple[Tracked, tuple[ColumnRef, ...]]:
    """The columns that break ties. Several orders are broken by one number for each row, given out beforehand.

    Rows that are equal in all columns may change places without anybody seeing it, but only if they do so in every
    window at once.
    """
    every = tuple(ColumnRef(item.alias, name) for item, name in _columns(tracked))
    choosing = {
        (str(n.args.get("partition_by")), str(n.args.get("order")))
        for n in nodes
        if type(n.this) in _CHOOSING or n.args.get("spec") is not None
    }
    if len(choosing) < 2:
        return tracked, every
    order = tuple((column, False, True) for column in every)
    number = Window(function="row_number", value=None, type="integer", offset=0, partition=(), order=order)
    facts = Facts(type="integer", nullable=False, interval=(Fraction(0), INTEGER_LIMIT))
    numbered = _layer(tracker, tracked, {"z": (number, _Known(facts, facts))}, {})
    (alias,) = numbered.inputs
    return numbered, (ColumnRef(alias, "z"),)


def _layer(
    tracker: Tracker,
    tracked: Tracked,
    made: Mapping[str, tuple[Window, _Known]],
    nodes: Mapping[exp.Window, str],
) -> Tracked:
    """The relation with windows as further columns."""
    columns = {ColumnRef(item.alias, name): f"w{index}" for index, (item, name) in enumerate(_columns(tracked))}
    alias = tracker.alias()
    places: dict[Expression, list[str]] = {column: [name] for column, name in columns.items()}
    item_ = Made(
        body=Windowing(
            relation=tracked.relation,
            columns=tuple((name, column) for column, name in columns.items()),
            windows=tuple((name, window) for name, (window, _) in made.items()),
        ),
        columns={name: tracked.facts.facts(column) for column, name in columns.items()}
        | {name: known.facts for name, (_, known) in made.items()},
        sure={name: tracked.allow.facts_of(column) for column, name in columns.items()}
        | {name: known.sure for name, (_, known) in made.items()},
        names={},
        width=len(tracked.relation.unit),
        unit=unit_places(tracked, places),
        entities=entities_of(tracked, places),
        bounds=bounds_of(tracked),
        one_row_per_unit=not tracked.public and tracked.one_row_per_unit,
        loose=tracked.loose,
        tainted=frozenset(
            [name for column, name in columns.items() if tracked.is_identifying(column)]
            + [name for name, (one, _) in made.items() if one.value is not None and tracked.is_identifying(one.value)]
        ),
    ).as_input(alias, "the windows")
    known: dict[exp.Expr, Expression] = {node: ColumnRef(alias, name) for node, name in nodes.items()}
    inference = Inference({ColumnRef(alias, name): one for name, one in item_.facts.items()})
    moved = {column: ColumnRef(alias, name) for column, name in columns.items()}
    sure = Inference({ColumnRef(alias, name): one for name, one in item_.sure.items()})
    allow = tracked.allow.moved(sure, moved, known)
    unit = tuple(ColumnRef(alias, name) for name in item_.source.unit)
    relation = Relation(first=item_.source, joins=(), where=(), unit=unit)
    return replace(tracked, relation=relation, allow=allow, facts=inference, inputs={alias: item_})


def _columns(tracked: Tracked) -> list[tuple[Any, str]]:
    return [
        (item, name)
        for item in tracked.inputs.values()
        for name in item.facts
        if not (name.startswith("_unit_") and name in item.source.unit)
    ]


def _lowered(node: exp.Window, tracked: Tracked, every: tuple[ColumnRef, ...]) -> tuple[Window, _Known]:
    function = node.this
    partition = tuple(tracked.allow.expression(one) for one in node.args.get("partition_by") or ())
    if not tracked.public and tracked.unit_among(partition) is None and not tracked.entity_among(partition):
        hint = "Write PARTITION BY the privacy unit in it."
        raise forbidden(node, "a window over several persons' rows", hint)
    if node.args.get("alias") is not None or function is None:
        raise forbidden(node, "this window", "Write it where it is used.")
    name = {**_RANKS, **_VALUES, **_AGGREGATES}.get(type(function))
    if name is None:
        hint = "Use ROW_NUMBER, RANK, DENSE_RANK, LAG, LEAD, FIRST_VALUE, LAST_VALUE, MIN, MAX, COUNT or SUM."
        raise forbidden(node, "this window function", hint)
    value, known, offset = _value(function, name, tracked)
    asked = node.args["order"].expressions if node.args.get("order") else []
    order = [
        (tracked.allow.expression(one.this), bool(one.args.get("desc")), bool(one.args.get("nulls_first")))
        for one in asked
    ]
    frame = _frame(node, name)
    if name in _BROKEN_TIES or frame:  # rows are counted one by one
        asked_for = {expression for expression, _, _ in order}
        order += [(column, False, True) for column in every if column not in asked_for]
    window = Window(
        function=name,
        value=value,
        type=known.facts.type,
        offset=offset,
        partition=partition,
        order=tuple(order),
        frame=frame,
    )
    return window, known


_WHOLE = "ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"


def _frame(node: exp.Window, name: WindowFunction) -> str:
    """The frame in one way of writing it; empty for the one that a window has anyway."""
    spec = node.args.get("spec")
    if spec is None:  # ties are broken by an order, which must not make a frame of what has none
        return _WHOLE if name in ("first", "last") and not node.args.get("order") else ""
    ends = [_bound(spec, "start"), _bound(spec, "end") or "CURRENT ROW"]
    kind = str(spec.args.get("kind") or "").upper()
    running = ends == ["UNBOUNDED PRECEDING", "CURRENT ROW"]
    if kind == "RANGE" and running and node.args.get("order"):
        return ""
    if kind in ("RANGE", "GROUPS") and ends == ["UNBOUNDED PRECEDING", "UNBOUNDED FOLLOWING"]:
        kind = "ROWS"
    never_empty = name in ("first", "last") and set(ends) <= {
        "UNBOUNDED PRECEDING",
        "CURRENT ROW",
        "UNBOUNDED FOLLOWING",
    }
    if kind != "ROWS" or None in ends or spec.args.get("exclude") or not (name in _FRAMED or never_empty):
        hint = "Write ROWS BETWEEN literal numbers, UNBOUNDED or CURRENT ROW, for MIN, MAX, COUNT or SUM."
        raise forbidden(node, "this frame of a window", hint)
    return f"ROWS BETWEEN {ends[0]} AND {ends[1]}"


def _bound(spec: exp.Expr, end: str) -> str | None:
    value, side = spec.args.get(end), str(spec.args.get(f"{end}_side") or "").upper()
    if value is None or (isinstance(value, str) and value.upper() == "CURRENT ROW"):
        return None if value is None else "CURRENT ROW"
    text = value.upper() if isinstance(value, str) else value.name
    if side not in ("PRECEDING", "FOLLOWING"):
        return None
    if text == "UNBOUNDED" or (text.isdigit() and int(text) <= _OFFSET_LIMIT):
        return f"{text} {side}"
    return None


def _value(function: exp.Expr, name: str, tracked: Tracked) -> tuple[Expression | None, _Known, int]:
    counted = _within(tracked, (Fraction(0), Fraction(1)), nullable=False)
    if name in _RANKS.values():
        return None, counted, 0
    if name == "count" and (function.this is None or isinstance(function.this, exp.Star)):
        return None, counted, 0
    if isinstance(function.this, exp.Distinct) or function.args.get("default") is not None:
        raise forbidden(function, "this form of the window function", "Give it one expression.")
    value = tracked.allow.expression(function.this)
    facts = tracked.facts.facts(value)
    if name == "count":
        return value, counted, 0
    if name == "sum":
        value = tracked.allow.require(value, ("integer",), function.this)
        return value, _within(tracked, facts.interval, nullable=True), 0
    sure = tracked.allow.facts_of(value)
    known = _Known(*(replace(one, nullable=True, constant=False) for one in (facts, sure)))
    return value, known, _offset(function)


def _within(tracked: Tracked, interval: Interval | None, *, nullable: bool) -> _Known:
    """A number that adds up, over a unit's rows, what lies in an interval.

    Sums of it are bounded by as many rows as a unit may have; overflow is ruled out by what the database cuts it to.
    """
    wide = (-INTEGER_LIMIT, INTEGER_LIMIT)
    bounds = bounds_of(tracked)
    reach = wide
    if bounds is not None and is_bounded(interval) and interval is not None:
        rows = bounds.max_rows_per_group * bounds.max_groups
        low, high = rows * min(interval[0], Fraction(0)), rows * max(interval[1], Fraction(0))
        reach = (max(low, wide[0]), min(high, wide[1]))
    return _Known(*(Facts(type="integer", nullable=nullable, interval=one) for one in (reach, wide)))


def _offset(function: exp.Expr) -> int:
    offset = function.args.get("offset")
    if offset is None:
        return 1
    if not isinstance(offset, exp.Literal) or not offset.name.isdigit() or int(offset.name) > _OFFSET_LIMIT:
        raise forbidden(function, "this offset", f"Write a whole number up to {_OFFSET_LIMIT}.")
    return int(offset.name)
