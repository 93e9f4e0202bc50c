"""Whether rows per person are worth a histogram inside the query, where conditions make them other than a profile's.

    python -m bench.narrow [--quick]

For counts under conditions of all kinds, at several epsilons, one node: the total error (bias and noise, in shares of
the truth) with m chosen from the profile of the whole table; with a tenth of the budget spent on a histogram of the
query's own rows per person first, m chosen by that and the count answered from the rest; and with the best m, which
only who has the data knows. DESIGN.md section 4, Bounds that fit; ADR 9 has what was decided by it.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import duckdb
import numpy as np
from insitu_privacy.data_profile import DataProfile, Histogram, Measure
from insitu_privacy.dataset import Dataset
from insitu_privacy.fitting import fitted
from insitu_privacy.fitting.curves import Curve, curve_of
from insitu_privacy.plan import QueryParameters, Scope, tree_levels
from insitu_privacy.planner import plan_query
from insitu_privacy.profile_measures import COUNTS
from rich.console import Console
from rich.table import Table

from bench import accuracy, data, speed

ROOT = Path(__file__).parent / ".data"
EPSILONS = (Fraction(1, 10), Fraction(1), Fraction(10))
CONDITIONS = (
    "1 = 1",
    "amount > 1000",
    "amount > 10000",
    "day BETWEEN DATE '2022-03-01' AND DATE '2022-03-31'",
    "icd10 LIKE 'E1%' AND day BETWEEN DATE '2021-01-01' AND DATE '2022-12-31'",
    "icd10 LIKE 'E11%'",
    "icd10 = (SELECT MODE(icd10) FROM claim)",
)
_SHARE = 0.1
_DRAWS = 40
_MOST = [round(2 ** (power / 2)) for power in range(35)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrow:
    """One condition at one epsilon: total errors in shares of the truth."""

    condition: str
    epsilon: Fraction
    rows: int
    profile: float
    inside: float
    best: float


def error(rows: np.ndarray, most: int, epsilon: float) -> float:
    """Bias and noise of a count at a given m, Laplace noise at one node."""
    truth = float(rows.sum())
    bias = float(np.maximum(0, rows - most).sum())
    return math.hypot(bias, math.sqrt(2) * most / epsilon) / truth


def measure(size: data.Size, root: Path) -> Iterator[Narrow]:
    """Every condition at every epsilon."""
    dataset, bundle = speed.contract()
    (whole,) = data.split(size, root, 1)
    draw = np.random.default_rng(1)
    with (
        duckdb.connect(str(whole), read_only=True) as plain,
        closing(speed.duckdb_site(dataset, bundle, whole)) as site,
    ):
        profile = accuracy.profile_of_site(site, dataset)
        for condition in CONDITIONS:
            sql = f"SELECT COUNT(*) FROM claim WHERE {condition} GROUP BY person_id"
            rows = np.array([count for (count,) in plain.execute(sql).fetchall()])
            shown = _literal(condition, plain)
            for epsilon in EPSILONS:
                budget = float(epsilon)
                inside = [error(rows, _by_histogram(rows, budget, draw), (1 - _SHARE) * budget) for _ in range(_DRAWS)]
                yield Narrow(
                    condition=shown,
                    epsilon=epsilon,
                    rows=int(rows.sum()),
                    profile=error(rows, _by_profile(shown, dataset, profile, epsilon), budget),
                    inside=statistics.median(inside),
                    best=min(error(rows, most, budget) for most in _MOST),
                )


def _literal(condition: str, plain: duckdb.DuckDBPyConnection) -> str:
    if "MODE" not in condition:
        return condition
    (found,) = plain.execute("SELECT MODE(icd10) FROM claim").fetchone() or ("",)
    return f"icd10 = '{found}'"


def _by_profile(condition: str, dataset: Dataset, profile: DataProfile, epsilon: Fraction) -> int:
    asked = QueryParameters(epsilon=epsilon, delta=Fraction(0))
    sql = f"SELECT COUNT(*) AS n FROM claim WHERE {condition}"
    plan = plan_query(sql, dialect="duckdb", dataset=dataset, parameters=asked, scope=Scope(accounting="pure"))
    found = fitted(plan, dataset, profile, parameters=asked, accounting="pure", nodes=1).fits
    return found[0].max_rows_per_group if found else plan.releases[0].bounds.max_rows_per_group


def _by_histogram(rows: np.ndarray, epsilon: float, draw: np.random.Generator) -> int:
    """The best m by a noisy histogram of the query's own rows per person."""
    measure = Measure(table="claim", kind="rows", column=None, edges=COUNTS)
    edges = np.array([float(edge) for edge in COUNTS])
    exact = np.bincount(np.searchsorted(edges, rows, side="right"), minlength=measure.bins)
    scale = len(tree_levels(measure.bins)) / (_SHARE * epsilon)
    counts = exact + draw.laplace(0, scale, measure.bins)
    seen = curve_of(Histogram(measure=measure, counts=tuple(counts.tolist()), deviation=scale * math.sqrt(2)))
    return min(_MOST, key=lambda most: _expected(seen, most, (1 - _SHARE) * epsilon))


def _expected(seen: Curve, most: int, epsilon: float) -> float:
    bias = float(np.maximum(0, seen.values - most) @ seen.units)
    return math.hypot(bias, math.sqrt(2) * most / epsilon)


def table(found: Sequence[Narrow]) -> Table:
    """For people."""
    view = Table(title="total error of a count under a condition, by how m was chosen")
    for name in ("condition", "ε", "rows", "profile of the table", "a tenth of ε inside the query", "best m"):
        view.add_column(name, justify="left" if name == "condition" else "right")
    for one in found:
        errors = (f"{each:.3%}" for each in (one.profile, one.inside, one.best))
        view.add_row(one.condition, f"{float(one.epsilon):g}", f"{one.rows:,}", *errors)
    return view


if __name__ == "__main__":
    Console(width=150).print(table(list(measure(data.QUICK if "--quick" in sys.argv else data.FULL, ROOT))))
