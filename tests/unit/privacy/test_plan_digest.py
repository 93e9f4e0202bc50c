"""The digest of a plan: the same for the same question to private data, another for every parameter that a node obeys."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.plan import PrivacyPlan, Scope, canonical

from tests.testkit.care import care, changed, plan

BASE = "SELECT kind, COUNT(*) AS n, SUM(cost) AS s FROM visit WHERE stage > 1 GROUP BY kind"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT kind, COUNT(*) AS anzahl, SUM(cost) AS s FROM visit WHERE stage > 1 GROUP BY kind",
        "SELECT kind, COUNT(*) AS n, SUM(cost) AS s FROM visit WHERE stage > 1 GROUP BY kind HAVING COUNT(*) > 10",
        "SELECT kind, COUNT(*) AS n, SUM(cost) AS s FROM visit WHERE stage > 1 GROUP BY kind ORDER BY n DESC LIMIT 2",
        "SELECT kind, COUNT(*) * 2 AS n, SUM(cost) / COUNT(*) AS s FROM visit WHERE stage > 1 GROUP BY kind",
        "select KIND, count(*) as n, sum(COST) as s\n  from VISIT where STAGE > 1\n group by 1 -- remark",
        "SELECT v.kind, COUNT(*) AS n, SUM(v.cost) AS s FROM visit AS v WHERE (v.stage > 1) GROUP BY v.kind",
        "SELECT UPPER(kind), COUNT(*) AS n, SUM(cost) AS s FROM visit WHERE stage > 1 GROUP BY kind",
    ],
)
def test_post_processing_and_spelling_are_not_part_of_it(sql: str) -> None:
    assert plan(sql).digest == plan(BASE).digest


@pytest.mark.parametrize(
    "asked",
    [
        {"epsilon": "2"},
        {"epsilon": "1.000000001"},
        {"max_rows_per_group": 4},
        {"max_groups": 1},
        {"mechanism": "gaussian"},
        {"mechanism": "gaussian", "delta": "1e-7"},
        {"dataset": care(min_units=11)},
        {"dataset": parse_dataset(changed(("version = 1", "version = 2")))},
        {"dataset": parse_dataset(changed(("max = 1000,", "max = 1001,")))},
    ],
)
def test_each_parameter_that_a_node_obeys_is_part_of_it(asked: dict[str, Any]) -> None:
    base = plan(BASE, mechanism="laplace").digest
    assert plan(BASE, **{"mechanism": "laplace", **asked}).digest != base


@pytest.mark.parametrize(
    "sql",
    [
        BASE.replace("> 1", "> 2"),
        BASE.replace("> 1", ">= 1"),
        BASE.replace("SUM(cost)", "SUM(stage)"),
        BASE.replace("SUM(cost)", "AVG(cost)"),
        BASE.replace("COUNT(*)", "COUNT(DISTINCT person_id)"),
        BASE.replace("kind", "stage"),
        BASE.replace("WHERE stage > 1 ", ""),
        BASE.replace("GROUP BY kind", "GROUP BY kind, blood"),
        BASE.replace("FROM visit", "FROM visit JOIN person USING (person_id)"),
        BASE.replace("SUM(cost)", "SUM(LEAST(cost, 500))"),
    ],
)
def test_each_difference_in_what_is_asked_of_private_data_is_part_of_it(sql: str) -> None:
    assert plan(sql).digest != plan(BASE).digest


def test_a_delta_that_is_not_needed_is_not_part_of_it() -> None:
    assert plan(BASE, mechanism="laplace", delta="1e-6").digest == plan(BASE, mechanism="laplace", delta="0").digest
    private = "SELECT diagnosis, COUNT(*) FROM visit GROUP BY 1"
    assert (
        plan(private, mechanism="laplace", delta="1e-6").digest
        != plan(private, mechanism="laplace", delta="1e-7").digest
    )


def test_every_field_of_a_release_and_of_the_loss_changes_it() -> None:
    base = plan("SELECT diagnosis, COUNT(*) FROM visit GROUP BY 1", mechanism="laplace")
    (only,) = base.releases
    assert only.threshold is not None
    first = only.statistics[0]
    others = [
        replace(only, name="r9"),
        replace(only, mechanism="gaussian"),
        replace(only, suppress_below=7),
        replace(only, threshold=replace(only.threshold, tau=only.threshold.tau + 1)),
        replace(only, bounds=replace(only.bounds, max_groups=9)),
        replace(only, statistics=(replace(first, scale=first.scale + 1), *only.statistics[1:])),
        replace(only, statistics=(replace(first, linf=first.linf + 1), *only.statistics[1:])),
        replace(only, statistics=(replace(first, granularity=Fraction(1, 2)), *only.statistics[1:])),
        replace(only, statistics=(replace(first, center=Fraction(1)), *only.statistics[1:])),
        replace(only, relation=replace(only.relation, where=(only.keys[0].expression,))),
        replace(only, keys=(replace(only.keys[0], constant=True),)),
        replace(only, keys=(replace(only.keys[0], domain=("a",)),)),
    ]
    digests = {with_release(base, other).digest for other in others}
    losses = [
        replace(base.loss, **{name: Fraction(7)}) for name in ("epsilon", "delta", "rho", "threshold_delta", "pure")
    ]
    digests |= {replace(base, loss=loss).digest for loss in losses}
    assert len(digests | {base.digest}) == len(others) + len(losses) + 1


def with_release(base: PrivacyPlan, other: Any) -> PrivacyPlan:
    return replace(base, releases=(other,))


def test_values_of_different_types_never_look_alike() -> None:
    values = [1, True, "1", 1.0, Fraction(1), None, "None", "true", (1,), "Fraction:1/2", Fraction(1, 2), [2], {"a": 1}]
    texts = [repr(canonical(value)) for value in values]
    assert len(set(texts)) >= len(values) - 1  # a text may spell a number: its literal's type tells them apart


def test_it_is_the_same_in_another_process() -> None:
    """Neither hashing nor import order matters: nodes compare it with the researcher's."""
    code = "from tests.testkit.care import plan; from tests.unit.privacy.test_plan_digest import BASE; print(plan(BASE).digest)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout.strip() == plan(BASE).digest


def _environment() -> dict[str, str]:
    import os

    return {
        **os.environ,
        "PYTHONHASHSEED": "123",
        "PYTHONPATH": os.pathsep.join(path for path in ("", *sys.path) if path),
    }


def test_pure_accounting_never_plans_gaussian_noise() -> None:
    sql = "SELECT kind, stage, COUNT(*) FROM visit GROUP BY 1, 2"
    free = plan(sql, max_groups=15, delta="1e-5")
    pure = plan(sql, max_groups=15, delta="1e-5", scope=Scope(accounting="pure"))
    assert (free.releases[0].mechanism, pure.releases[0].mechanism) == ("gaussian", "laplace")
    assert (free.loss.pure, pure.loss.pure) == (None, Fraction(1))
