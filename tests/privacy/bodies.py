"""Rows of persons, as SQL: hypothesis writes relations that a query may aggregate, out of tables of ``care``.

A body is rows that carry the person (or, of acts and lines alone, an entity key): a table, or a SELECT made of smaller
bodies by joins, cohorts, windows, sets, DISTINCT and GROUP BY of the unit. Where the language means something else than
plain SQL does, the generator stays out of the way, and says so. What is asked of them stands in ``generated``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

NUMBER, WHOLE, KEY, TEXT, DATE, FLAG, FREE = "number", "whole", "key", "text", "date", "flag", "free"


@dataclass(frozen=True)
class Column:
    """A column of a body: what it may be used for."""

    name: str
    traits: frozenset[str]

    def has(self, *traits: str) -> bool:
        return self.traits.issuperset(traits)


def column(name: str, *traits: str) -> Column:
    return Column(name, frozenset(traits))


@dataclass(frozen=True)
class Body:
    """Rows of persons. ``sql`` is a table's name or a SELECT; ids are the columns that say whose rows they are."""

    sql: str
    columns: tuple[Column, ...]
    ids: tuple[str, ...]
    fan: int = 1
    """About how many rows a person may have, so that joins stay small."""

    @property
    def is_table(self) -> bool:
        return " " not in self.sql


COUNTED = (WHOLE, NUMBER)
TABLES = (
    Body(
        "person",
        (
            column("sex", KEY, TEXT),
            column("birth_year", KEY, *COUNTED),
            column("region", KEY, TEXT),
            column("active", KEY, FLAG),
            column("score", NUMBER),
        ),
        ("person_id",),
    ),
    Body(
        "visit",
        (
            column("kind", KEY, TEXT),
            column("start", DATE),
            column("finish", DATE),
            column("cost", NUMBER),
            column("stage", KEY, *COUNTED),
            column("blood", KEY, TEXT),
            column("diagnosis", TEXT, FREE),
            column("ward", WHOLE, FREE),
        ),
        ("person_id", "visit_id"),
        3,
    ),
    Body(
        "act",
        (column("code", KEY, TEXT), column("amount", *COUNTED), column("points", NUMBER)),
        ("visit_id", "act_id"),
        6,
    ),
    Body("line", (column("item", TEXT, FREE), column("price", NUMBER)), ("act_id",), 12),
)
FREE_VALUES = {"diagnosis": "('x', 'y')", "ward": "(1, 3)", "item": "('bed', 'drug')"}
_WIDEST = 24


@dataclass(frozen=True)
class Joined:
    """What stands behind FROM: its columns by qualified name."""

    sql: str
    columns: tuple[Column, ...]
    ids: dict[str, str]
    fan: int
    counted: tuple[str, ...]
    """Qualified entity keys that may be counted."""


@dataclass
class BodyMaker:
    """Draws bodies for one query. Names are counted, so that no two things share one."""

    random: Random
    neighbours: bool
    ctes: list[str] = field(default_factory=list)
    features: set[str] = field(default_factory=set)
    number: int = 0

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def some(self, least: int, most: int) -> range:
        return range(self.random.randint(least, most))

    def name(self, stem: str) -> str:
        self.number += 1
        return f"{stem}_{self.number}"

    # -- bodies --------------------------------------------------------------------------------------------------------

    def body(self, depth: int) -> Body:
        if depth == 0:
            return self.pick(*TABLES, TABLES[0], TABLES[1], TABLES[1])
        make = self.pick(
            self.selected, self.per_unit, self.windowed, self.windowed, self.united, self.distinct, self.per_stay
        )
        return make(depth)

    def source(self, body: Body) -> Joined:
        """A body behind FROM: a table, a derived table, or a CTE."""
        alias = self.name(body.sql[0] if body.is_table else "d")
        text = f"{body.sql} {alias}"
        if not body.is_table:
            if self.pick(True, False):
                self.features.add("derived table")
                text = f"({body.sql}) {alias}"
            else:
                self.features.add("with")
                name = self.name("w")
                self.ctes.append(f"{name} AS ({body.sql})")
                text = f"{name} {alias}"
        ids = {one: f"{alias}.{one}" for one in body.ids}
        columns = tuple(replace(one, name=f"{alias}.{one.name}") for one in body.columns)
        counted = tuple(name for one, name in ids.items() if one != "person_id")
        return Joined(text, columns, ids, body.fan, counted)

    def joined(self, depth: int) -> Joined:
        """One body, or two joined on the unit or an entity key, and a public table."""
        left = self.source(self.body(max(0, depth - 1)))
        if self.pick(True, True, False):
            left = self.second(left, depth)
        if any(one.name.endswith(".code") for one in left.columns) and self.pick(True, False):
            left = self.public(left)
        return left

    def second(self, left: Joined, depth: int) -> Joined:
        body = self.pick(*TABLES) if self.pick(True, False) else self.body(max(0, depth - 1))
        common = [one for one in body.ids if one in left.ids]
        if not common or left.fan * body.fan > _WIDEST:
            return left
        right = self.source(body)
        on = self.pick(*common)
        kind = self.pick("JOIN", "JOIN", "LEFT JOIN")
        self.features.add(f"{kind.lower()} on {'the unit' if on == 'person_id' else 'an entity key'}")
        extra = f" AND {self.condition(right.columns)}" if kind == "LEFT JOIN" and self.pick(True, False) else ""
        if kind == "JOIN" and self.pick(True, False, False):
            extra = self.between(left, right)
        # The person of a LEFT JOIN's right side may be NULL: in plain SQL all such rows are one group of GROUP BY, here
        # each person's own.
        others = {} if kind == "LEFT JOIN" and "person_id" not in left.ids else right.ids
        return Joined(
            f"{left.sql} {kind} {right.sql} ON {left.ids[on]} = {right.ids[on]}{extra}",
            (*left.columns, *right.columns),
            others | left.ids,
            left.fan * body.fan,
            (*left.counted, *right.counted),
        )

    def between(self, left: Joined, right: Joined) -> str:
        """A comparison of two tables' dates beside the equality: a range join."""
        one = [item.name for item in left.columns if item.has(DATE)]
        other = [item.name for item in right.columns if item.has(DATE)]
        if not one or not other:
            return ""
        self.features.add("range join")
        return f" AND {self.pick(*other)} {self.pick('>', '>=', '<')} {self.pick(*one)}"

    def public(self, left: Joined) -> Joined:
        alias = self.name("i")
        code = next(one.name for one in left.columns if one.name.endswith(".code"))
        kind = self.pick("JOIN", "LEFT JOIN")
        self.features.add("public table")
        extra = f" AND {alias}.severity < 9" if self.pick(True, False) else ""
        columns = (column(f"{alias}.chapter", KEY, TEXT), column(f"{alias}.severity", KEY, *COUNTED))
        return replace(
            left,
            sql=f"{left.sql} {kind} icd {alias} ON {alias}.code = {code}{extra}",
            columns=(*left.columns, *columns),
        )

    def where(self, left: Joined) -> str:
        """Conditions and cohorts."""
        terms = [self.condition(left.columns) for _ in range(self.pick(0, 0, 1, 2))]
        if self.pick(True, False, False):
            terms.append(self.cohort(left))
        return f" WHERE {' AND '.join(terms)}" if terms else ""

    def cohort(self, left: Joined) -> str:
        """Persons or entities in or not in a body.

        Keys of a LEFT JOIN are kept from NOT IN where they are NULL: SQL looks whether anybody's row is in the
        subquery, the language at those of the same person alone.
        """
        tied = self.pick(*left.ids)
        options = [one for one in TABLES if tied in one.ids]
        inner = self.source(self.pick(*options))
        self.features.add("cohort")
        condition = self.condition(inner.columns)
        text = f"{inner.sql} WHERE {condition}"
        form = self.pick("IN", "NOT IN", "EXISTS", "NOT EXISTS")
        if form.endswith("IN"):
            known = f"{left.ids[tied]} IS NOT NULL AND " if form == "NOT IN" else ""
            return f"{known}{left.ids[tied]} {form} (SELECT {inner.ids[tied]} FROM {text})"
        return f"{form} (SELECT 1 FROM {text} AND {inner.ids[tied]} = {left.ids[tied]})"

    def selected(self, depth: int) -> Body:
        """SELECT of some columns and a computed one."""
        left = self.joined(depth)
        items, columns = self.ids(left), list[Column]()
        for one in self.some_of(left.columns):
            self.add(items, columns, one.name, *one.traits)
        key, number = self.key(left.columns), self.value(left.columns)
        if key is not None:
            self.add(items, columns, key, KEY)
        self.add(items, columns, number, NUMBER)
        return Body(
            f"SELECT {', '.join(items)} FROM {left.sql}{self.where(left)}", tuple(columns), tuple(left.ids), left.fan
        )

    def ids(self, left: Joined) -> list[str]:
        return [f"{name} AS {one}" for one, name in left.ids.items()]

    def add(self, items: list[str], columns: list[Column], text: str, *traits: str) -> None:
        """Another column; what it is called says nothing, but ``code`` is what the public table is joined on."""
        plain = text.count(".") == 1 and text.replace(".", "").replace("_", "").isalnum()
        name = self.name(text.rpartition(".")[2].rstrip("0123456789").rstrip("_") if plain else "x")
        items.append(f"{text} AS {name}")
        columns.append(column(name, *traits))

    def some_of(self, columns: Sequence[Column]) -> list[Column]:
        return self.random.sample(list(columns), min(len(columns), self.random.randint(0, 4)))

    def per_unit(self, depth: int) -> Body:
        """GROUP BY the unit, and at times a key beside it."""
        return self.grouped(depth, "person_id")

    def per_stay(self, depth: int) -> Body:
        """GROUP BY an entity key; of visits, the person beside it."""
        return self.grouped(depth, "visit_id")

    def grouped(self, depth: int, by: str) -> Body:
        left = self.joined(depth)
        if by not in left.ids:
            return self.selected(depth)
        self.features.add(f"group by {by}")
        ids = [one for one in ("person_id", "visit_id") if one in left.ids][: 1 if by == "person_id" else 2]
        items, columns = [f"{left.ids[one]} AS {one}" for one in ids], list[Column]()
        keys = [left.ids[one] for one in ids]
        key = self.key(left.columns) if self.pick(True, False) else None
        if key is not None:
            self.add(items, columns, key, KEY)
            keys.append(key)
        for _ in self.some(1, 3):
            text, traits = self.of_one(left)
            self.add(items, columns, text, *traits)
        having = (
            f" HAVING COUNT(*) {self.pick('>', '<', '=')} {self.pick(1, 2)}" if self.pick(True, False, False) else ""
        )
        sql = f"SELECT {', '.join(items)} FROM {left.sql}{self.where(left)} GROUP BY {', '.join(keys)}{having}"
        return Body(sql, tuple(columns), tuple(ids), left.fan if key or len(ids) > 1 else 1)

    def of_one(self, left: Joined) -> tuple[str, tuple[str, ...]]:
        """An aggregate of one person's rows."""
        value = self.value(left.columns)
        options: list[tuple[str, tuple[str, ...]]] = [
            ("COUNT(*)", COUNTED),
            (f"COUNT({value})", COUNTED),
            (f"SUM({value})", (NUMBER,)),
            (f"AVG({value})", (NUMBER,)),
            (f"{self.pick('MIN', 'MAX')}({value})", (NUMBER,)),
        ]
        for one in left.columns:
            if one.has(DATE):
                options += [(f"MIN({one.name})", (DATE,)), (f"MAX({one.name})", (DATE,))]
            elif one.has(TEXT):
                options.append((f"COUNT(DISTINCT {one.name})", COUNTED))
        return self.pick(*options)

    def windowed(self, depth: int) -> Body:
        """Columns of windows over each person's visits, in an order without ties: ties are any database's own."""
        left = self.source(TABLES[1])
        self.features.add("window")
        items, columns = self.ids(left), list[Column]()
        for one in self.some_of(left.columns):
            self.add(items, columns, one.name, *one.traits)
        for _ in self.some(1, 2):
            text, traits = self.window(left)
            self.add(items, columns, text, *traits)
        inner = Body(
            f"SELECT {', '.join(items)} FROM {left.sql}{self.where(left)}", tuple(columns), tuple(left.ids), left.fan
        )
        ranked = next((one.name for one in inner.columns if one.has("rank")), None)
        if ranked is None or self.pick(True, False):
            return inner
        self.features.add("first rows")
        alias = self.name("f")
        names = ", ".join(f"{alias}.{one}" for one in (*inner.ids, *(one.name for one in inner.columns)))
        return replace(inner, sql=f"SELECT {names} FROM ({inner.sql}) {alias} WHERE {alias}.{ranked} = 1", fan=1)

    def window(self, left: Joined) -> tuple[str, tuple[str, ...]]:
        partition = f"PARTITION BY {left.ids['person_id']}"
        by = self.pick(*[one.name for one in left.columns if one.has(DATE)] or [left.ids["visit_id"]])
        order = f"{by}{self.pick('', ' DESC')}, {left.ids['visit_id']}"
        if self.neighbours:
            order = self.pick(order, by)
        over = f"OVER ({partition} ORDER BY {order})"
        value, dates = self.value(left.columns), [one.name for one in left.columns if one.has(DATE)]
        # no sums of decimals; and SUM(ward) of a window counts as bounded, by so much that fixed point loses all
        whole = self.pick(*[one.name for one in left.columns if one.has(WHOLE, NUMBER)] or ["1"])
        options: list[tuple[str, tuple[str, ...]]] = [
            (f"ROW_NUMBER() {over}", (*COUNTED, "rank")),
            (f"LAG({value}) {over}", (NUMBER,)),
            (f"{self.pick('MIN', 'MAX')}({value}) OVER ({partition})", (NUMBER,)),
            (f"SUM({whole}) {self.pick(over, f'OVER ({partition})')}", COUNTED),
            (f"COUNT(*) OVER ({partition})", COUNTED),
        ]
        if dates:
            options.append((f"date_diff('day', LAG({dates[0]}) {over}, {self.pick(*dates)})", COUNTED))
        return self.pick(*options)

    def united(self, depth: int) -> Body:
        """Two bodies' persons, each with a key and a number, as a union, intersection or difference."""
        self.features.add(kind := self.pick("UNION", "UNION ALL", "INTERSECT", "EXCEPT"))
        sides, wide = [], self.pick(True, False)
        for _ in range(2):
            left = self.joined(depth - 1)
            while "person_id" not in left.ids:
                left = self.source(self.pick(*TABLES[:2]))
            texts = [one.name for one in left.columns if one.has(KEY, TEXT)] or ["'none'"]
            extra = f", {self.pick(*texts)} AS k, {self.value(left.columns)} AS x" if wide else ""
            sides.append(
                (f"SELECT {left.ids['person_id']} AS person_id{extra} FROM {left.sql}{self.where(left)}", left.fan)
            )
        columns = (column("k", KEY, TEXT), column("x", NUMBER)) if wide else ()
        return Body(f"{sides[0][0]} {kind} {sides[1][0]}", columns, ("person_id",), sides[0][1] + sides[1][1])

    def distinct(self, depth: int) -> Body:
        left = self.joined(depth - 1)
        if "person_id" not in left.ids:
            return self.selected(depth)
        self.features.add("distinct")
        items, columns = [f"{left.ids['person_id']} AS person_id"], list[Column]()
        key = self.key(left.columns)
        if key is not None:
            self.add(items, columns, key, KEY)
        for one in self.some_of(left.columns)[:1]:
            self.add(items, columns, one.name, *one.traits)
        return Body(
            f"SELECT DISTINCT {', '.join(items)} FROM {left.sql}{self.where(left)}",
            tuple(columns),
            ("person_id",),
            left.fan,
        )

    # -- expressions ---------------------------------------------------------------------------------------------------

    def condition(self, columns: Sequence[Column], depth: int = 1) -> str:
        if depth and self.pick(True, False, False):
            one, other = self.condition(columns, 0), self.condition(columns, 0)
            return self.pick(f"({one} AND {other})", f"({one} OR {other})", f"NOT ({one})")
        options = ["1 = 1"] if not columns else []
        for one in columns:
            options += self.about(one)
        return self.pick(*options)

    def about(self, one: Column) -> list[str]:
        """Conditions on a column. Limits of decimals are no sums of data, which floats round either way."""
        name = one.name
        options = [f"{name} IS NOT NULL"] if not one.has(FREE) else [f"{name} IS NULL"]
        if one.has(DATE):
            options += [f"{name} >= DATE '2018-03-01'", f"YEAR({name}) BETWEEN 2016 AND 2022", f"MONTH({name}) < 7"]
        elif one.has(FLAG):
            options += [name, f"NOT {name}"]
        elif one.has(WHOLE):
            options += [f"{name} > 1", f"{name} <= 3", f"{name} % 2 = 0", f"{name} BETWEEN 1 AND 1970"]
        elif one.has(NUMBER):
            options += [f"{name} > 3.1237", f"{name} < 411.0317", f"ABS({name}) < 0.5019"]
        elif one.has(TEXT):
            options += [
                f"{name} IN ('in', 'er', 'F', 'A', 'x', 'I10', 'east')",
                f"{name} <> 'out'",
                f"{name} LIKE '%t%'",
            ]
        return options

    def value(self, columns: Sequence[Column]) -> str:
        """A bounded number."""
        numbers = [one.name for one in columns if one.has(NUMBER)]
        dates = [one.name for one in columns if one.has(DATE)]
        options = [self.of_number(one, columns) for one in numbers]
        if dates:
            options += [f"date_diff('day', {dates[0]}, {self.pick(*dates)})", f"YEAR({self.pick(*dates)}) - 2000"]
        return self.pick(*options) if options else f"CASE WHEN {self.condition(columns)} THEN 2 ELSE 1 END"

    def of_number(self, name: str, columns: Sequence[Column]) -> str:
        return self.pick(
            name, name, f"({name} - 3)", f"LEAST({name}, 300)", f"GREATEST({name}, 2.5)", f"COALESCE({name}, 0)",
            f"ABS({name})", f"(CASE WHEN {self.condition(columns, 0)} THEN {name} ELSE 0 END)", f"({name} / 4)",
            f"({name} * 2)",
        )  # fmt: skip

    def key(self, columns: Sequence[Column]) -> str | None:
        """A group key with a finite public domain."""
        options = []
        for one in columns:
            if one.has(DATE):
                options += [f"YEAR({one.name})", f"QUARTER({one.name})", f"({one.name} > DATE '2019-05-05')"]
            if one.has(KEY):
                options.append(one.name)
            if one.has(KEY, TEXT):
                options += [f"COALESCE({one.name}, 'none')", f"UPPER({one.name})"]
            if one.name.rpartition(".")[2] in ("cost", "score", "points", "price"):
                # date_diff('day', start, finish) > 4 has no public domain: the planner is too careful
                options.append(f"({one.name} > 4.0123)")
            if one.name.rpartition(".")[2].startswith("birth_year"):
                options += [f"10 * FLOOR({one.name} / 10)", f"{one.name} // 25"]
        if columns:
            options.append(f"CASE WHEN {self.condition(columns, 0)} THEN 'yes' ELSE 'no' END")
        return self.pick(*options) if options else None
