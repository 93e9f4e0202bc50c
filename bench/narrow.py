"""What a first look at a query's own rows is worth, where conditions make rows per person other than a profile's.

    python -m bench.narrow [--quick]

For counts under conditions of all kinds, at several epsilons, one node: the total error (bias and noise, in shares of
the truth) with m chosen from the profile of the whole table; with a tenth of the budget spent on the SDK's own first
look, its histogram drawn many times, and the count answered from the rest; and with the best m, which only who has the
data knows. Where the SDK would not look, that is said. DESIGN.md section 4, Bounds that fit; ADR 10 has the decision.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
from insitu.looking import SHARE, parameters_of_look
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_privacy import mechanisms
from insitu_privacy.data_profile import DataProfile
from insitu_privacy.dataset import Dataset
from insitu_privacy.first_look import first_look, own_rows
from insitu_privacy.fitting import OwnRows, fitted, is_worth_a_look
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, QueryParameters, Scope
from insitu_privacy.planner import plan_query
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
    "amount > 50",
    "day >= DATE '2024-01-01'",
    "claim_id % 100 = 3",
    "sex = 'F'",
    "region = 'Corse'",
    "birth_year < 1950",
    "region = 'Corse' AND amount > 1000",
)
_ASKED = "SELECT COUNT(*) AS n FROM claim JOIN person ON person.person_id = claim.person_id WHERE "
_SCOPE = Scope(accounting="pure")
_DRAWS = 40
_MOST = [round(2 ** (power / 2)) for power in range(35)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrow:
    """One condition at one epsilon: total errors in shares of the truth."""

    condition: str
    epsilon: Fraction
    rows: int
    profile: float
    looked: float | None
    """None where the SDK does not look."""
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
    with (
        duckdb.connect(str(whole), read_only=True) as plain,
        closing(speed.duckdb_site(dataset, bundle, whole)) as site,
    ):
        profile = accuracy.profile_of_site(site, dataset)
        for condition in CONDITIONS:
            shown = _literal(condition, plain)
            sql = f"SELECT COUNT(*) FROM ({_ASKED.replace('COUNT(*) AS n', 'claim.person_id AS u')}{shown}) GROUP BY u"
            rows = np.array([count for (count,) in plain.execute(sql).fetchall()])
            for epsilon in EPSILONS:
                asked = _Asked(_ASKED + shown, epsilon, dataset, profile)
                yield Narrow(
                    condition=shown,
                    epsilon=epsilon,
                    rows=int(rows.sum()),
                    profile=error(rows, asked.most(None), float(epsilon)),
                    looked=_looked(asked, site, rows),
                    best=min(error(rows, most, float(epsilon)) for most in _MOST),
                )


def _looked(asked: _Asked, site: DuckDBEngine, rows: np.ndarray) -> float | None:
    """The median over many draws of the noise of the first look."""
    if not asked.is_worth_a_look():
        return None
    left = float(asked.epsilon * (1 - SHARE))
    return statistics.median(error(rows, asked.most(own), left) for own in asked.looks(site))


class _Asked:
    """One query at one epsilon, as the SDK plans it."""

    def __init__(self, sql: str, epsilon: Fraction, dataset: Dataset, profile: DataProfile) -> None:
        self.sql, self.epsilon, self._dataset, self._profile = sql, epsilon, dataset, profile
        self._parameters = QueryParameters(epsilon=epsilon, delta=Fraction(0))
        self._plan = self._planned(sql, self._parameters)

    def _planned(self, sql: str, parameters: QueryParameters) -> PrivacyPlan:
        return plan_query(sql, dialect="duckdb", dataset=self._dataset, parameters=parameters, scope=_SCOPE)

    def is_worth_a_look(self) -> bool:
        """Whether the SDK would look first."""
        return is_worth_a_look(
            self._plan, self._dataset, self._profile, parameters=self._parameters, accounting="pure", nodes=1
        )

    def most(self, own: OwnRows | None) -> int:
        """The m that is chosen, by a look where there was one."""
        epsilon = self.epsilon * (1 - SHARE) if own is not None else self.epsilon
        found = fitted(
            self._plan,
            self._dataset,
            self._profile,
            parameters=replace(self._parameters, epsilon=epsilon),
            accounting="pure",
            nodes=1,
            own=own,
        ).fits
        return found[0].max_rows_per_group if found else self._plan.releases[0].bounds.max_rows_per_group

    def looks(self, site: DuckDBEngine) -> Iterator[OwnRows]:
        """What the look says, each time with new noise."""
        plan_at = partial(self._planned, parameters=parameters_of_look(self.epsilon * SHARE))
        look = first_look(self.sql, "duckdb", self._plan, self._dataset, plan_at)
        assert look is not None, "these are all of a form that can be looked at"
        plan = plan_at(look.sql)
        exact = [accuracy.exact(site, release) for release in plan.releases]
        for _ in range(_DRAWS):
            drawn = [mechanisms.privatize(*each) for each in zip(plan.releases, exact, strict=True)]
            yield own_rows(look, plan, merge(plan, [drawn]), nodes=1)


def _literal(condition: str, plain: duckdb.DuckDBPyConnection) -> str:
    if "MODE" not in condition:
        return condition
    (found,) = plain.execute("SELECT MODE(icd10) FROM claim").fetchone() or ("",)
    return f"icd10 = '{found}'"


def table(found: Sequence[Narrow]) -> Table:
    """For people."""
    view = Table(title="total error of a count under a condition, by how m was chosen")
    for name in ("condition", "ε", "rows", "profile of the table", "first look", "best m"):
        view.add_column(name, justify="left" if name == "condition" else "right")
    for one in found:
        errors = ("not asked" if each is None else f"{each:.3%}" for each in (one.profile, one.looked, one.best))
        view.add_row(one.condition, f"{float(one.epsilon):g}", f"{one.rows:,}", *errors)
    return view


if __name__ == "__main__":
    Console(width=150).print(table(list(measure(data.QUICK if "--quick" in sys.argv else data.FULL, ROOT))))
