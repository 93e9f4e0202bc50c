"""What ``explain`` says, and that it spends nothing."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from insitu.client import Federation
from insitu.epsilon_table import epsilon_table
from insitu_privacy.errors import ParameterRefused
from insitu_proto.messages import Ask, Follow

from tests.unit.client.world import BY_SEX, World


def test_the_document_has_what_the_interface_names(world: World) -> None:
    with world.federation() as federation:
        document = json.loads(json.dumps(federation.explain(BY_SEX).to_json(), allow_nan=False))
    (release,) = document["releases"]
    assert {"statistics", "contribution_bounds", "keys", "mechanism", "scale"} <= set(release)
    assert release["keys"]["selection"] == "public"
    assert release["keys"]["count"] == 2
    assert release["contribution_bounds"] == {"max_rows_per_group": 1, "max_groups": 1}
    assert document["cost"]["epsilon"] == 1
    assert document["cost"]["person_level"] == {"epsilon": 2, "delta": 0}
    assert set(document["node_sql"]) == {"duckdb", "postgres"}
    assert "SELECT" in document["postprocessing"]
    assert not any(isinstance(call, (Ask, Follow)) for call in world.calls)


def test_a_count_is_expected_as_exact_as_its_noise(world: World) -> None:
    with world.federation() as federation:
        document = federation.explain(BY_SEX, epsilon=0.01, nodes=["chu-lille"]).to_json()
    key, count = document["expected_intervals"]
    assert key is None
    exact = document["releases"][0]["statistics"][0]["half_width"]
    assert count == pytest.approx(exact, rel=0.2)
    assert exact == pytest.approx(299.6 + 0.5, rel=0.01)


def test_ratios_and_selected_keys_are_expected_too(world: World) -> None:
    sql = "SELECT town, AVG(birth_year) AS a, 100.0 * COUNT(*) / 7 AS p FROM person GROUP BY town"
    with world.federation() as federation:
        explanation = federation.explain(sql)
    document = explanation.to_json()
    keys = document["releases"][0]["keys"]
    assert (keys["selection"], keys["count"]) == ("thresholded", None)
    assert keys["threshold"]["tau"] > 0
    assert keys["columns"][0]["reason"]
    assert document["expected_intervals"][0] is None
    assert all(width > 0 for width in document["expected_intervals"][1:])
    text = str(explanation)
    assert "Groups are released above" in text
    assert "-- each node, postgres" in text


def test_more_nodes_more_noise(world: World) -> None:
    with world.federation() as federation:
        one = federation.explain(BY_SEX, nodes=["chu-lille"]).to_json()["releases"][0]["statistics"][0]
        three = federation.explain(BY_SEX).to_json()["releases"][0]["statistics"][0]
    assert one["half_width"] < three["half_width"] < 3 * one["half_width"]


def test_a_person_is_not_at_more_nodes_than_are_asked(world: World) -> None:
    with world.federation() as federation:
        assert federation.explain(BY_SEX, nodes=["chu-lille"]).person_level == (1, 0)


def test_more_than_the_grant_has_is_shown_with_a_warning(world: World) -> None:
    with world.federation() as federation:
        assert federation.explain(BY_SEX, epsilon=20).to_json()["warnings"] == []
        beyond = federation.explain(BY_SEX, epsilon=21)
    assert beyond.to_json()["warnings"] == ["ε 21 is more than the grant's ε 20"]
    assert "Warning: ε 21 is more than the grant's ε 20" in str(beyond)


def test_a_filter_that_no_made_up_group_passes_expects_nothing(world: World) -> None:
    with world.federation() as federation:
        assert federation.explain(BY_SEX + " HAVING COUNT(*) > 1000000").expected == (None, None)


# -- what other epsilons would buy -------------------------------------------------------------------------------------


def table(federation: Federation, sql: str, **asked: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = federation.explain(sql, **asked).to_json()["epsilon_table"]
    return found


@pytest.mark.parametrize(
    "sql",
    [
        BY_SEX,
        "SELECT town, AVG(birth_year) AS a FROM person GROUP BY town",
        "SELECT birth_year, COUNT(*) AS n FROM person WHERE birth_year > 1950 GROUP BY birth_year",
        "SELECT MEDIAN(birth_year) AS m, SUM(birth_year) AS s FROM person",
        "SELECT n * 2 AS n FROM (SELECT COUNT(*) AS n FROM person) AS t",
    ],
)
def test_every_epsilon_of_the_ladder_says_what_it_would_buy(world: World, sql: str) -> None:
    with world.federation() as federation:
        steps = table(federation, sql, epsilon=2)
        asked = federation.explain(sql, epsilon=2)
    assert [step["epsilon"] for step in steps] == [0.1, 0.2, 0.5, 1, 2, 5, 10]
    for place, column in enumerate(asked.plan.output):
        widths = [step["half_widths"][place] for step in steps]
        if column.noisy:
            assert widths == sorted(widths, reverse=True)
            assert widths[0] > 5 * widths[4]
            assert widths[4] == asked.expected[place]
            shares = [step["relative"][place] for step in steps if step["relative"][place] is not None]
            assert len(shares) in (0, 7)  # the made-up sum is 0, of which there are no shares
            assert shares == sorted(shares, reverse=True)
        else:
            assert widths == [None] * 7


def test_the_ladder_ends_where_the_grant_does_and_public_queries_have_none(world: World) -> None:
    world.grant = replace(world.grant, epsilon=Fraction(1, 2))
    world.seal()
    with world.federation() as federation:
        assert [step["epsilon"] for step in table(federation, BY_SEX)] == [0.1, 0.2, 0.5]
        assert table(federation, "SELECT label FROM chapter") == []


def test_an_epsilon_at_which_no_noise_is_possible_buys_nothing(world: World) -> None:
    with world.federation() as federation:
        explanation = federation.explain(BY_SEX, epsilon=5)

    def plan_at(epsilon: Fraction) -> Any:
        if epsilon < 5:
            raise ParameterRefused(
                "INSITU-PARAM-MECHANISM", value="gaussian", reason="this epsilon is too small for it"
            )
        return SimpleNamespace(plan=explanation.plan)

    steps = epsilon_table(
        explanation.plan,
        [(None, None), (3.0, None)],
        nodes=3,
        most=Fraction(7),
        plan_at=plan_at,
        expected_of=lambda _: [(None, None), (7.0, 0.5)],
    )
    assert [step.reach for step in steps[:4]] == [((None, None), (None, None))] * 4
    assert [step.reach[1] for step in steps[4:]] == [(None, None), (7.0, 0.5)]
    assert "What each ε would buy" in str(explanation)


def test_the_table_takes_no_time_that_is_felt(world: World) -> None:
    sql = "SELECT birth_year, sex, AVG(birth_year) AS a FROM person GROUP BY birth_year, sex"
    with world.federation() as federation:
        explanation = federation.explain(sql, epsilon=1)
        started = time.process_time()
        again = federation.explain(sql, epsilon=1)
        spent = time.process_time() - started
    assert again.epsilon_table == explanation.epsilon_table
    assert spent < 2
