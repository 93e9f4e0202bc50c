"""A first look, in the SDK: asked before the query, part of the same cost, and evidence beside it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from insitu.evidence import verify_document
from insitu.looking import NOT_LOOKED
from insitu.looks_had import LooksHad
from insitu_access.request import QueryRequest, peek_request
from insitu_privacy.errors import AccessRefused, BudgetRefused, InsituError, IntegrityFailed
from insitu_privacy.plan import Release, ReleasedValues
from insitu_proto.messages import Ask

from tests.unit.client.test_bounds import profiled
from tests.unit.client.world import NODES, World

DEAR = "SELECT COUNT(*) AS n, SUM(amount) AS total FROM visit WHERE amount > 700"


def asked(world: World) -> list[QueryRequest]:
    requests = [peek_request(call.request_jws) for call in world.calls if isinstance(call, Ask)]
    return [one for one in requests if isinstance(one, QueryRequest)]


def answered(world: World, sql: str = DEAR, **options: Any) -> dict[str, Any]:
    with world.federation() as federation:
        found: dict[str, Any] = json.loads(json.dumps(federation.query(sql, **{"epsilon": 1, **options}).to_json()))
    return found


def nobody(release: Release) -> ReleasedValues:
    """A hundred persons of one row in a first look, and a hundred rows in the query."""
    if release.tree is None:
        return ReleasedValues(keys=None, statistics=((100,),) * release.width)
    (statistic,) = release.statistics
    return ReleasedValues(
        keys=None, statistics=tuple((100 * statistic.most if place == 1 else 0,) for place in range(release.width))
    )


def test_a_condition_is_looked_at_first_and_both_cost_what_was_asked_for(world: World) -> None:
    profiled(world)
    document = answered(world)
    first, second = asked(world)
    assert (float(first.parameters.epsilon), float(second.parameters.epsilon)) == (0.1, 0.9)
    assert first.parameters.delta == 0
    assert "amount > 700" in first.sql
    assert second.sql == DEAR
    assert document["spent"]["epsilon"] == 1.0
    assert document["first_look"] == {"epsilon": 0.1, "delta": 0.0}
    assert document["query_id"] == second.request_id
    assert first.deadline == second.deadline, "both within the time that was asked for"


def test_what_the_look_says_chooses_the_bounds(world: World) -> None:
    """The nodes of this world say that most persons have very many rows; the profile, that they have a few."""
    profiled(world)
    answered(world, first_look=False)
    answered(world)
    without, _, with_look = asked(world)
    assert with_look.parameters.fits[0].max_rows_per_group > without.parameters.fits[0].max_rows_per_group


@pytest.mark.parametrize(
    ("sql", "options"),
    [
        (DEAR, {"first_look": False}),
        (DEAR, {"max_rows_per_group": 5, "max_groups": 1}),
        ("SELECT COUNT(*) AS n FROM visit", {}),
        ("SELECT COUNT(*) AS n FROM person WHERE birth_year > 1950", {}),
    ],
    ids=["not wanted", "bounds are named", "no condition", "one row for each person"],
)
def test_without_need_there_is_no_first_look(world: World, sql: str, options: dict[str, Any]) -> None:
    profiled(world)
    document = answered(world, sql, **options)
    assert document["first_look"] is None
    assert len(asked(world)) == 1
    assert document["spent"]["epsilon"] == 1.0


def test_without_profiles_of_all_nodes_there_is_none(world: World) -> None:
    assert answered(world)["first_look"] is None
    profiled(world, nodes=NODES[:1])
    assert answered(world)["first_look"] is None


def test_a_look_that_is_refused_ends_the_query(world: World) -> None:
    profiled(world)
    world.refusing = {node: BudgetRefused("INSITU-BUDGET-EXCEEDED") for node in NODES}
    with pytest.raises(InsituError, match="INSITU-BUDGET-EXCEEDED"):
        answered(world)
    assert len(asked(world)) == 1


def test_a_look_is_not_begun_where_the_query_could_not_be_paid_for(world: World) -> None:
    profiled(world)
    world.left = {NODES[1]: Fraction("0.95")}
    document = answered(world)
    assert document["first_look"] is None
    assert document["warnings"] == [NOT_LOOKED]
    assert [float(one.parameters.epsilon) for one in asked(world)] == [1.0]
    assert answered(world, nodes=[NODES[0]], min_nodes=1)["first_look"] is not None, "enough is left there"


def test_nor_where_delta_is_spent(world: World) -> None:
    profiled(world)
    sql = "SELECT town, COUNT(*) AS n FROM visit JOIN person USING (person_id) WHERE amount > 700 GROUP BY town"
    assert answered(world, sql, epsilon=10, delta=1e-6)["first_look"] is not None
    world.left_delta = Fraction("1e-7")
    assert answered(world, sql.replace("700", "701"), epsilon=10, delta=1e-6)["first_look"] is None


def test_a_question_asked_again_looks_again_for_it_is_free(world: World) -> None:
    profiled(world)
    answered(world)
    world.left = dict.fromkeys(NODES, Fraction(0))
    assert answered(world)["first_look"] is not None
    assert answered(world, "SELECT COUNT(*) AS n FROM visit WHERE amount > 800")["first_look"] is None
    (world.folder / "profile" / "first-looks").write_text("nonsense\ngrant-1 " + "a" * 64 + f" {NODES[0]}\n")
    assert answered(world)["first_look"] is None, "nobody is known to have answered it"


def test_what_some_nodes_have_answered_is_not_paid_again(world: World) -> None:
    profiled(world)
    world.absent = {NODES[0]}
    with pytest.raises(InsituError):
        answered(world)
    world.absent = set()
    world.left = {NODES[0]: Fraction(1), NODES[1]: Fraction("0.9"), NODES[2]: Fraction("0.9")}
    document = answered(world)
    assert document["first_look"] is not None, "of these two, nine tenths are asked for"
    assert document["warnings"] == []


def test_looks_are_kept_between_threads(tmp_path: Path) -> None:
    had = LooksHad(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda place: had.add("g", f"{place:064x}", ["lille"]), range(24)))
    assert all(had.answered("g", f"{place:064x}") == {"lille"} for place in range(24))
    assert had.answered("another grant", f"{1:064x}") == frozenset()


def test_fewer_nodes_than_are_needed_end_it_before_the_query_is_asked(world: World) -> None:
    profiled(world)
    world.absent = {NODES[0]}
    with pytest.raises(InsituError):
        answered(world)
    assert len(asked(world)) == 1
    assert answered(world, min_nodes=len(NODES) - 1)["first_look"] is not None


def test_with_an_accuracy_no_more_is_spent_than_it_takes_by_what_was_seen(world: World) -> None:
    """The nodes of this world count a thousand in each bin: bounds are wide, and all of what is left is needed."""
    profiled(world)
    sql = "SELECT COUNT(*) AS n FROM visit WHERE amount > 700"
    document = answered(world, sql, epsilon=None, accuracy="±2000")
    first, second = asked(world)
    assert document["spent"]["epsilon"] == pytest.approx(float(first.parameters.epsilon + second.parameters.epsilon))
    assert second.parameters.epsilon <= 9 * first.parameters.epsilon
    assert any("±2000 is not reached" in one for one in document["warnings"]), "never more than was foretold"
    world.values = nobody
    document = answered(world, sql, epsilon=None, accuracy="±1999")
    _, _, first, second = asked(world)
    assert second.parameters.epsilon < 4 * first.parameters.epsilon, "a hundred persons of one row: not all nine tenths"
    low, high = document["intervals"][0][0]
    assert high - low < 2 * 1999
    assert document["warnings"] == []


def test_explain_says_what_is_asked_first_and_what_all_of_it_costs(world: World) -> None:
    profiled(world)
    with world.federation() as federation:
        explanation = federation.explain(DEAR, epsilon=1)
        plain = federation.explain(DEAR, epsilon=1, first_look=False)
    document = explanation.to_json()
    assert document["cost"]["epsilon"] == 1.0
    assert document["first_look"]["epsilon"] == 0.1
    assert set(document["first_look"]["node_sql"]) == {"duckdb", "postgres"}
    assert "A first look at the rows of each person" in str(explanation)
    assert plain.to_json()["first_look"] is None
    assert not asked(world)


def test_a_saved_result_verifies_with_its_first_look(world: World) -> None:
    profiled(world)
    saved = answered(world)
    assert saved["evidence"]["first_look"]["request"]
    again = verify_document(saved, world.authority.public())
    assert float(again.spent.epsilon) == 1.0


@pytest.mark.attacks("F7")
@pytest.mark.parametrize(
    "change",
    ["dropped", "another's", "a node less", "cheaper", "of another query", "the query itself", "any other query"],
)
def test_a_first_look_that_was_changed_is_refused(world: World, change: str) -> None:
    profiled(world)
    saved = answered(world)
    evidence = saved["evidence"]
    if change == "dropped":
        evidence["first_look"] = None
    elif change == "of another query":
        other = answered(world, DEAR.replace("700", "800"))
        evidence["first_look"] = other["evidence"]["first_look"]
    elif change == "the query itself":
        evidence["first_look"] = {name: evidence[name] for name in ("request", "outcomes")}
        saved["first_look"], saved["spent"]["epsilon"] = {"epsilon": 0.9, "delta": 0.0}, 1.8
    elif change == "any other query":
        other = answered(world, "SELECT COUNT(*) AS n FROM person", epsilon=0.01)["evidence"]
        evidence["first_look"] = {name: other[name] for name in ("request", "outcomes")}
        saved["first_look"], saved["spent"]["epsilon"] = {"epsilon": 0.01, "delta": 0.0}, 0.91
    elif change == "another's":
        evidence["first_look"]["request"] = "a.b.c"
    elif change == "a node less":
        evidence["first_look"]["outcomes"].pop(NODES[0])
    else:
        saved["first_look"]["epsilon"], saved["spent"]["epsilon"] = 0.0, 0.9
    with pytest.raises((IntegrityFailed, AccessRefused)):
        verify_document(saved, world.authority.public())
