"""Intervals of answers whose counts were kept from being negative.

An interval of noise around what was released holds the exact value as often as it says, whatever is shown in its
place. So the answer before counts were cut off gives the intervals; the ends of a column that counts are cut off at 0,
below which no exact value lies; and where the value that is shown lies outside, its interval reaches out to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlglot import exp, parse_one

from insitu_privacy.plan import PrivacyPlan
from insitu_privacy.reaches import Interval

_COUNTS = ("rows", "units", "entities")


def stretched(
    rows: Sequence[Sequence[Any]],
    ids: Sequence[Any],
    intervals: Sequence[Sequence[Interval]],
    interval_ids: Sequence[Any],
    counts: Sequence[bool],
) -> tuple[tuple[Interval, ...], ...]:
    """The intervals of ``rows``, by what each row is known by; none where that is not one row on both sides."""
    once = {known for known, times in Counter(ids).items() if times == 1}
    once &= {known for known, times in Counter(interval_ids).items() if times == 1}
    found = dict(zip(interval_ids, intervals, strict=True))
    nothing: tuple[Interval, ...] = (None,) * len(counts)
    return tuple(
        tuple(
            _stretched(interval, value, counts=flag)
            for interval, value, flag in zip(found[known] if known in once else nothing, row, counts, strict=True)
        )
        for known, row in zip(ids, rows, strict=True)
    )


def _stretched(interval: Interval, value: Any, *, counts: bool) -> Interval:
    if interval is None or isinstance(interval[0], str) or isinstance(interval[1], str):
        return interval
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    low, high = (max(0, end) for end in interval) if counts else interval
    return min(low, value), max(high, value)


def count_columns(plan: PrivacyPlan) -> tuple[bool, ...]:
    """Of each column of the answer, whether it is a count, or a sum of counts: then it is never below zero."""
    query = parse_one(plan.postprocessing, read="duckdb")
    kinds = {
        f"{release.name}.s{index}": release.tree is None and one.kind in _COUNTS
        for release in plan.releases
        for index, one in enumerate(release.statistics)
    }
    first = 1 if plan.rows_are_cells else 0
    return tuple(_Reading(kinds).selected(query, place + first, {}) for place in range(len(plan.output)))


class _Reading:
    """Follows a column down to what was released."""

    def __init__(self, kinds: Mapping[str, bool]) -> None:
        self._kinds = kinds

    def selected(self, query: exp.Expr, place: int, around: Mapping[str, exp.Expr]) -> bool:
        """Whether the column at a place of a query is a count; ``around`` are the WITH queries that it may read."""
        if isinstance(query, (exp.Subquery, exp.Paren)):
            return self.selected(query.this, place, around)
        with_ = query.args.get("with_")
        around = {**around, **{one.alias: one.this for one in (with_.expressions if with_ is not None else ())}}
        if isinstance(query, exp.SetOperation):
            return self.selected(query.left, place, around) and self.selected(query.right, place, around)
        if not isinstance(query, exp.Select) or place >= len(query.selects):
            return False
        return self._counts(query.selects[place].unalias(), query, around)

    def _counts(self, node: exp.Expr, query: exp.Select, around: Mapping[str, exp.Expr]) -> bool:
        if isinstance(node, (exp.Paren, exp.Sum, exp.Cast)):
            return self._counts(node.this, query, around)
        if isinstance(node, exp.Add):
            return all(self._counts(side, query, around) for side in (node.left, node.right))
        return isinstance(node, exp.Column) and self._column(node, query, around)

    def _column(self, node: exp.Column, query: exp.Select, around: Mapping[str, exp.Expr]) -> bool:
        source = next((one for one in _sources(query) if one.alias_or_name == node.table), None)
        if isinstance(source, exp.Table):
            inner = around.get(source.name)
            if inner is None:
                return self._kinds.get(f"{source.name}.{node.name}", False)
            others = {name: one for name, one in around.items() if name != source.name}
            return self._named(inner, node.name, others)
        return isinstance(source, exp.Subquery) and self._named(source.this, node.name, around)

    def _named(self, query: exp.Expr, name: str, around: Mapping[str, exp.Expr]) -> bool:
        names = query.named_selects if isinstance(query, exp.Query) else []
        return name in names and self.selected(query, names.index(name), around)


def _sources(query: exp.Select) -> list[exp.Expr]:
    from_ = query.args.get("from_")
    joins = query.args.get("joins") or []
    return [item.this for item in (*([from_] if from_ is not None else []), *joins)]
