"""Hypothesis writes queries of the language over ``care``: aggregates of ``bodies``, and SQL over the answers.

A query groups a body by keys with public domains, and computes with what is released. What it means in plain SQL is
known: ``Query`` says how its answer compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from hypothesis import strategies as st
from insitu_privacy.dataset import Dataset
from insitu_privacy.dataset_file import parse_dataset

from tests.privacy.bodies import FREE, FREE_VALUES, NUMBER, WHOLE, BodyMaker, Joined
from tests.testkit.care import changed

_FAMILIES = {"MEDIAN": "tree", "MIN": "tree", "MAX": "tree"} | {one: one for one in ("COUNT", "COUNT_IF", "SUM", "AVG")}
FEATURES = {
    "derived table", "with", "join on the unit", "join on an entity key", "left join on the unit",
    "left join on an entity key", "range join", "public table", "cohort", "group by person_id", "group by visit_id",
    "window", "first rows", "UNION", "UNION ALL", "INTERSECT", "EXCEPT", "distinct", "filter", "key of a list",
    "COUNT", "COUNT_IF", "SUM", "AVG", "moments", "tree",
    "plain", "arithmetic", "share", "ratio", "sets", "CUBE", "ROLLUP", "GROUPING SETS", "ranked", "beside", "above",
}  # fmt: skip
"""What queries are made of."""


@cache
def roomy() -> Dataset:
    """``care`` with contribution bounds that no clean world reaches: they cut counts and sums of a person, too."""
    return parse_dataset(
        changed(("max_rows_per_group = 3", "max_rows_per_group = 50"), ("max_groups = 2", "max_groups = 4"))
    )


@dataclass(frozen=True)
class Query:
    """A query, and how its answer compares with the plain one."""

    sql: str
    keys: int
    """How many of the first columns say which group a row is."""
    strict: bool = False
    """Whether groups that the plain query does not have are left out, by HAVING."""
    zero: bool = True
    """Whether such groups, where they are released, hold zeros and NULLs alone."""
    ordered: bool = False
    """Whether rows come in the order of their keys."""
    features: frozenset[str] = frozenset()


def clipped(text: str) -> str:
    """Bounds within which fixed point keeps variances: of a wide range only coarse ones are left."""
    return f"LEAST(GREATEST({text}, -20), 20)"


def count_if(condition: str) -> str:
    """DuckDB counts NULL where the condition is NULL on every row; a count is a number here, then 0."""
    return f"COUNT_IF(COALESCE({condition}, FALSE))"


class Maker(BodyMaker):
    """Draws one query, by a generator that hypothesis seeds: its own choices repeat themselves too much."""

    def aggregate(self, left: Joined) -> str:
        value = self.value(left.columns)
        options = [
            "COUNT(*)",
            f"COUNT({value})",
            f"SUM({value})",
            f"AVG({value})",
            count_if(self.condition(left.columns)),
        ]
        options += [f"COUNT(DISTINCT {one})" for one in left.counted]
        if "person_id" in left.ids:
            person = left.ids["person_id"]
            options += [f"COUNT(DISTINCT {person})"] * 2
            options += [f"COUNT(DISTINCT CASE WHEN {self.condition(left.columns)} THEN {person} END)"]
        options.append(f"{self.pick('VARIANCE', 'STDDEV', 'VAR_POP', 'STDDEV_POP')}({clipped(value)})")
        if whole := [clipped(one.name) for one in left.columns if one.has(WHOLE, NUMBER)]:
            pair = self.pick("COVAR_POP", "COVAR_SAMP", "CORR", "REGR_SLOPE")
            options.append(f"{pair}({self.pick(*whole)}, {self.pick(*whole)})")
        options += [f"{self.pick('MEDIAN', 'MIN', 'MAX')}({value})"]
        text = self.pick(*options)
        self.features.add(_FAMILIES.get(text.partition("(")[0], "moments"))
        if self.pick(True, False, False, False) and not text.startswith("COUNT_IF"):
            self.features.add("filter")
            return f"{text} FILTER (WHERE {self.condition(left.columns)})"
        return text

    def asked(self) -> tuple[Joined, str, list[str]]:
        """The relation that is aggregated: FROM, WHERE, keys."""
        left = self.joined(self.pick(1, 2, 2, 3))
        where = self.where(left)
        keys = [key for _ in range(self.pick(0, 1, 1, 2, 2)) if (key := self.key(left.columns)) is not None]
        free = [one for one in left.columns if one.has(FREE) and one.name.rpartition(".")[2] in FREE_VALUES]
        if free and self.pick(True, False):
            self.features.add("key of a list")
            one = self.pick(*free)
            where += f"{' AND' if where else ' WHERE'} {one.name} IN {FREE_VALUES[one.name.rpartition('.')[2]]}"
            keys.append(one.name)
        return left, where, list(dict.fromkeys(keys))

    def query(self) -> Query:
        shape = self.pick(
            self.plain, self.plain, self.plain, self.arithmetic, self.arithmetic, self.share, self.ratio, self.sets,
            self.sets, self.ranked, self.beside, self.above,
        )  # fmt: skip
        made: Query = shape()
        text = f"WITH {', '.join(self.ctes)} {made.sql}" if self.ctes else made.sql
        return replace(made, sql=text, features=frozenset({*self.features, shape.__name__}))

    def grouped_by(self, keys: Sequence[str]) -> str:
        return f" GROUP BY {', '.join(str(place + 1) for place in range(len(keys)))}" if keys else ""

    def keyed(self, keys: Sequence[str], *others: str) -> str:
        return ", ".join([*(f"{key} AS k{place}" for place, key in enumerate(keys)), *others])

    def plain(self) -> Query:
        left, where, keys = self.asked()
        items = [f"{self.aggregate(left)} AS a{place}" for place in self.some(1, 3)]
        sql = f"SELECT {self.keyed(keys, *items)} FROM {left.sql}{where}{self.grouped_by(keys)}"
        strict = bool(keys) and self.pick(True, False)
        ordered = bool(keys) and self.pick(True, False)
        sql += f" HAVING COUNT(*) > {self.pick(0, 1, 5)}" if strict else ""
        sql += f" ORDER BY {', '.join(f'k{place} NULLS FIRST' for place in range(len(keys)))}" if ordered else ""
        sql += f" LIMIT {self.pick(1, 3)}" if strict and ordered and self.pick(True, False) else ""
        return Query(sql, len(keys), strict=strict, ordered=ordered)

    def arithmetic(self) -> Query:
        left, where, keys = self.asked()
        value, condition = self.value(left.columns), self.condition(left.columns)
        items = [
            f"100.0 * {count_if(condition)} / COUNT(*)",
            f"SUM({value}) / NULLIF(COUNT({value}), 0)",
            f"AVG({value}) - {self.pick(1, 2.5)} * COUNT(*)",
            f"COUNT(*) - COUNT({value})",
            "SQRT(COUNT(*))",
            f"CAST(COUNT(*) AS DOUBLE) / ({count_if(condition)} + 1)",
        ]
        wanted = [f"{self.pick(*items)} AS a{place}" for place in self.some(1, 2)]
        sql = f"SELECT {self.keyed(keys, *wanted)} FROM {left.sql}{where}{self.grouped_by(keys)}"
        return Query(sql, len(keys))

    def share(self) -> Query:
        left, where, keys = self.asked()
        if self.pick(True, False):
            sql = f"SELECT {self.keyed(keys, '100.0 * COUNT(*) / SUM(COUNT(*)) OVER () AS a0')} FROM {left.sql}{where}"
            return Query(sql + self.grouped_by(keys), len(keys))
        inner = f"SELECT {self.keyed(keys, 'COUNT(*) AS n')} FROM {left.sql}{where}{self.grouped_by(keys)}"
        self.ctes.append(f"released AS ({inner})")
        names = [f"k{place}" for place in range(len(keys))]
        outer = ", ".join([*names, "n", "1.0 * n / (SELECT SUM(n) FROM released) AS a0"])
        return Query(f"SELECT {outer} FROM released", len(keys))

    def ratio(self) -> Query:
        left, where, keys = self.asked()
        key = keys[:1] or ["'all'"]
        other = f" WHERE {self.condition(left.columns)}" if not where else f"{where} AND {self.condition(left.columns)}"
        grouped = " GROUP BY 1" if keys else ""
        part = self.pick("COUNT(*)", f"SUM({self.value(left.columns)})")
        one = f"SELECT {key[0]} AS k, {part} AS n FROM {left.sql}{other}{grouped}"
        two = f"SELECT {key[0]} AS k, COUNT(*) AS n FROM {left.sql}{where}{grouped}"
        return Query(f"SELECT a.k, 1.0 * a.n / NULLIF(b.n, 0) AS q FROM ({one}) a JOIN ({two}) b ON a.k = b.k", 1)

    def sets(self) -> Query:
        left, where, keys = self.asked()
        keys = keys[:2]
        if len(keys) < 2 or keys[0] == keys[1]:
            return self.plain()
        kind = self.pick("CUBE (k0, k1)", "ROLLUP (k0, k1)", "GROUPING SETS ((k0), (k1), ())")
        marks = [f"GROUPING({key}) AS g{place}" for place, key in enumerate(keys)]
        self.features.add(kind.partition(" (")[0])
        items = self.keyed(keys, *marks, f"{self.aggregate(left)} AS a0", "COUNT(*) AS n")
        return Query(
            f"SELECT {items} FROM {left.sql}{where} GROUP BY {kind.replace('k0', keys[0]).replace('k1', keys[1])}", 4
        )

    def ranked(self) -> Query:
        left, where, keys = self.asked()
        inner = f"SELECT {self.keyed(keys, 'COUNT(*) AS n')} FROM {left.sql}{where}{self.grouped_by(keys)}"
        names = ", ".join(f"k{place}" for place in range(len(keys)))
        window = self.pick("RANK() OVER (ORDER BY n DESC)", "DENSE_RANK() OVER (ORDER BY n DESC)", "MAX(n) OVER () - n")
        outer = f"SELECT {names}{', ' if names else ''}n, {window} AS r FROM ({inner}) t WHERE n > 0"
        return Query(outer, len(keys), strict=True)

    def beside(self) -> Query:
        left, where, keys = self.asked()
        scalar = self.pick(
            "(SELECT COUNT(*) FROM person)", "(SELECT AVG(cost) FROM visit)", "(SELECT MAX(severity) FROM icd)"
        )
        sql = f"SELECT {self.keyed(keys, f'COUNT(*) / {scalar} AS a0')} FROM {left.sql}{where}{self.grouped_by(keys)}"
        return Query(sql, len(keys))

    def above(self) -> Query:
        left, where, keys = self.asked()
        items = self.keyed(keys, "COUNT(*) AS n", f"SUM({self.value(left.columns)}) AS s")
        inner = f"SELECT {items} FROM {left.sql}{where}"
        inner += f"{self.grouped_by(keys)} HAVING COUNT(*) > 0"
        by = [f"k{place}" for place in range(len(keys))][:1]
        outer = ", ".join([*by, "SUM(n) AS n", "MAX(n) AS m", "COUNT(*) AS groups", "SUM(s) AS s"])
        return Query(f"SELECT {outer} FROM ({inner}) t{self.grouped_by(by)}", len(by), strict=True)


def queries(*, neighbours: bool = False) -> st.SearchStrategy[Query]:
    """Queries. Those for neighbours may also order windows with ties, which each database breaks as it likes."""
    return st.randoms(use_true_random=True).map(lambda random: Maker(random, neighbours).query())
