"""Q1 to Q8 of BASELINES.md: the SQL a researcher writes, and what an expert would write by hand for each engine.

The researcher's SQL is also the plain query, run straight on the database. ``Handwritten`` is the floor that a node is
measured against: one statement that sums integers per person first and joins keys constant per person after, with the
same bounds as the query's, followed by one OpenDP call per statistic. Its value guards and fixed point are those of
DESIGN.md section 4; only what any generated statement must do beside (a guard on every column read) is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.data import REGIONS

Dialect = Literal["duckdb", "postgres"]
DIALECTS: tuple[Dialect, ...] = ("duckdb", "postgres")
YEARS = range(2020, 2025)
CAP_KEY = "0123456789abcdef0123456789abcdef"


@dataclass(frozen=True, slots=True, kw_only=True)
class Handwritten:
    """A bounded statement per dialect and the noise it needs: rows are keys first, then one integer per statistic."""

    sql: Mapping[Dialect, str]
    linf: tuple[int, ...]
    """Per statistic, what one person adds to one group at most."""
    domains: tuple[tuple[object, ...], ...] | None = ()
    """Public domain of each key; None where keys are private and thresholded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of the benchmark with its contribution bounds."""

    name: str
    title: str
    sql: str
    max_rows_per_group: int = 20
    max_groups: int = 1
    delta: str = "0"
    plain: Mapping[Dialect, str] | None = None
    """Where the researcher's SQL is not also the engine's own."""
    handwritten: Handwritten | None = None

    def plain_sql(self, dialect: Dialect) -> str:
        """The query as the database itself is asked."""
        return self.sql if self.plain is None else self.plain[dialect]


# Cents from the middle of [0, 50000], as integers; outside the bounds nothing. Each factor fits 32 bits, which spares
# PostgreSQL its slow numeric sums; FILTER is evaluated once where CASE in a subquery would be evaluated twice.
_CENTS = "CAST((amount - 25000) * 100 AS integer)"
_VALID = "amount BETWEEN 0 AND 50000"
_AMOUNTS: Mapping[Dialect, str] = {
    "duckdb": f"SELECT person_id, COUNT(*) AS r, CAST(SUM(v) AS BIGINT) AS s, COUNT(v) AS n FROM "
    f"(SELECT person_id, CASE WHEN {_VALID} THEN CAST((amount - 25000) * 100 AS BIGINT) END AS v FROM claim) AS c "
    "GROUP BY person_id",
    "postgres": f"SELECT person_id, COUNT(*) AS r, SUM({_CENTS}) FILTER (WHERE {_VALID}) AS s, "
    f"COUNT(*) FILTER (WHERE {_VALID}) AS n FROM claim GROUP BY person_id",
}
_SCALED: Mapping[Dialect, str] = {
    "duckdb": "SUM(CASE WHEN n > 20 THEN s * 20 // n ELSE s END)",
    "postgres": "SUM(CASE WHEN n > 20 THEN s * 20 / n ELSE s END)",
}
_PREFIX = "icd10 LIKE 'E1%' AND day BETWEEN DATE '2021-01-01' AND DATE '2022-12-31'"
_ROWS = "SELECT person_id, COUNT(*) AS n FROM claim{where} GROUP BY person_id"


def _both(sql: str) -> Mapping[Dialect, str]:
    return dict.fromkeys(DIALECTS, sql)


def _amounts(template: str) -> Mapping[Dialect, str]:
    return {dialect: template.format(amounts=_AMOUNTS[dialect], scaled=_SCALED[dialect]) for dialect in DIALECTS}


_CENTS_LINF = 20 * 2_500_000
# The cap touches only persons over it: the total of each code, less what is dropped from those few.
_CODES = f"""WITH pair AS MATERIALIZED (SELECT person_id, icd10 FROM claim GROUP BY person_id, icd10),
ranked AS (SELECT icd10, ROW_NUMBER() OVER (PARTITION BY person_id
                 ORDER BY md5('{CAP_KEY}' || '|' || person_id || '|' || icd10)) AS place
           FROM pair WHERE person_id IN (SELECT person_id FROM pair GROUP BY person_id HAVING COUNT(*) > 40))
SELECT icd10, SUM(n) FROM (SELECT icd10, COUNT(*) AS n FROM pair GROUP BY icd10
    UNION ALL SELECT icd10, -COUNT(*) AS n FROM ranked WHERE place > 40 GROUP BY icd10) AS part GROUP BY icd10"""

QUERIES: tuple[Query, ...] = (
    Query(
        name="Q1",
        title="COUNT(*)",
        sql="SELECT COUNT(*) AS n FROM claim",
        handwritten=Handwritten(
            sql=_both(f"SELECT SUM(LEAST(n, 20)) FROM ({_ROWS.format(where='')}) AS unit"), linf=(20,)
        ),
    ),
    Query(
        name="Q2",
        title="COUNT(DISTINCT person)",
        sql="SELECT COUNT(DISTINCT person_id) AS n FROM claim",
        handwritten=Handwritten(
            sql=_both("SELECT COUNT(*) FROM (SELECT person_id FROM claim GROUP BY person_id) AS unit"), linf=(1,)
        ),
    ),
    Query(
        name="Q3",
        title="SUM, AVG of amount",
        sql="SELECT SUM(amount) AS total, AVG(amount) AS mean FROM claim",
        handwritten=Handwritten(
            sql=_amounts("SELECT {scaled}, SUM(LEAST(n, 20)) FROM ({amounts}) AS unit"), linf=(_CENTS_LINF, 20)
        ),
    ),
    Query(
        name="Q4",
        title="by region, joined: count, AVG",
        sql="SELECT region, COUNT(*) AS n, AVG(amount) AS mean FROM claim "
        "JOIN person ON person.person_id = claim.person_id GROUP BY region",
        handwritten=Handwritten(
            sql=_amounts(
                "SELECT region, SUM(LEAST(r, 20)), {scaled}, SUM(LEAST(n, 20)) FROM ({amounts}) AS unit "
                "JOIN person ON person.person_id = unit.person_id GROUP BY region"
            ),
            linf=(20, _CENTS_LINF, 20),
            domains=(REGIONS,),
        ),
    ),
    Query(
        name="Q5",
        title="by region, sex, year: count",
        sql="SELECT region, sex, EXTRACT(YEAR FROM day) AS year, COUNT(*) AS n FROM claim "
        "JOIN person ON person.person_id = claim.person_id GROUP BY region, sex, EXTRACT(YEAR FROM day)",
        max_groups=5,
        handwritten=Handwritten(
            sql=_both(
                "SELECT region, sex, year, SUM(LEAST(n, 20)) FROM (SELECT person_id, EXTRACT(YEAR FROM day) AS year, "
                "COUNT(*) AS n FROM claim GROUP BY person_id, EXTRACT(YEAR FROM day)) AS unit "
                "JOIN person ON person.person_id = unit.person_id GROUP BY region, sex, year"
            ),
            linf=(20,),
            domains=(REGIONS, ("F", "M"), tuple(YEARS)),
        ),
    ),
    Query(
        name="Q6",
        title="by ICD-10 code, private keys: persons",
        sql="SELECT icd10, COUNT(DISTINCT person_id) AS n FROM claim GROUP BY icd10",
        max_rows_per_group=1,
        max_groups=40,
        delta="1e-6",
        handwritten=Handwritten(sql=_both(_CODES), linf=(1,), domains=None),
    ),
    Query(
        name="Q7",
        title="MEDIAN of amount",
        sql="SELECT MEDIAN(amount) AS middle FROM claim",
        plain={
            "duckdb": "SELECT MEDIAN(amount) FROM claim",
            "postgres": "SELECT PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY amount) FROM claim",
        },
    ),
    Query(
        name="Q8",
        title="count, code prefix and date range",
        sql=f"SELECT COUNT(*) AS n FROM claim WHERE {_PREFIX}",
        handwritten=Handwritten(
            sql=_both(f"SELECT SUM(LEAST(n, 20)) FROM ({_ROWS.format(where=' WHERE ' + _PREFIX)}) AS unit"),
            linf=(20,),
        ),
    ),
)
