"""What ``explain`` says, and that it spends nothing."""

from __future__ import annotations

import json

import pytest
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


def test_a_filter_that_no_made_up_group_passes_expects_nothing(world: World) -> None:
    with world.federation() as federation:
        assert federation.explain(BY_SEX + " HAVING COUNT(*) > 1000000").expected == (None, None)
