"""What people are told of clipping and of suppressed cells: under a table, and by explain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from insitu.clipped import Profiled, clipping_said
from insitu.explain import Explanation
from insitu.output import table_text
from insitu.result import Column, Suppression
from insitu_access.release import NodeRelease

from tests.unit.client.test_bounds import VISITS, profiled
from tests.unit.client.test_output import result
from tests.unit.client.world import BY_SEX, NODES, World

ALL, SOME, NONE = (Profiled(nodes=("n1", "n2", "n3"), without=one) for one in ((), ("n2",), ("n1", "n2", "n3")))


@pytest.mark.parametrize(
    ("columns", "told", "said"),
    [
        ([("n", 0.384), ("mean", 0.0201)], ALL, "expected clipping: n 38%, mean 2%"),
        ([("n", 0.384), ("mean", 0.0049)], ALL, "expected clipping: n 38%"),
        ([("n", 0.0049), ("mean", 0.0)], ALL, "expected clipping: under 0.5%"),
        ([("n", 1.0), ("mean", None)], ALL, "expected clipping: n 100%; not known of mean"),
        ([("n", None)], ALL, "clipping is not known: the profiles do not tell it for this query"),
        ([("n", None)], SOME, "clipping is not known: n2 has no profile"),
        ([("n", None)], replace(SOME, without=("n2", "n3")), "clipping is not known: n2, n3 have no profile"),
        ([("n", None)], NONE, "clipping is not known: no node has made a profile"),
        ([("n", None)], None, "clipping is not known"),
        ([], ALL, ""),
    ],
)
def test_the_line_tells_shares_or_why_there_are_none(columns: Any, told: Profiled | None, said: str) -> None:
    assert clipping_said(columns, told) == said


def explained(world: World, sql: str, **asked: Any) -> Explanation:
    with world.federation() as federation:
        return federation.explain(sql, **asked)


def test_an_answer_says_which_node_lacks_a_profile(world: World) -> None:
    profiled(world, nodes=NODES[:2])
    with world.federation() as federation:
        answer = federation.query(VISITS, epsilon=1)
        both = federation.query(VISITS, epsilon=1, nodes=NODES[:2], max_rows_per_group=3)
    assert "clipping is not known: chu-brest has no profile\n" in str(answer)
    assert answer.to_json()["without_profile"] == ["chu-brest"]
    assert "expected clipping: n " in str(both)
    assert both.to_json()["without_profile"] == []


def test_explain_says_which_node_lacks_a_profile(world: World) -> None:
    profiled(world, nodes=NODES[:2])
    found = explained(world, VISITS)
    assert found.reasons == ("the dataset's own: chu-brest has no profile",)
    assert "clipping is not known: chu-brest has no profile" in str(found)
    assert found.to_json()["without_profile"] == ["chu-brest"]
    assert explained(world, VISITS, max_rows_per_group=3).reasons == ("rows as asked for",)


def test_one_row_for_each_person_is_not_clipped_and_needs_no_profile(world: World) -> None:
    found = explained(world, BY_SEX, max_rows_per_group=9, max_groups=9)
    assert found.reasons == ("one row for each person",)
    assert found.clipping == (None, 0.0)
    assert "a person counts once (one row for each person)" in str(found)
    assert "not known" not in str(found)
    persons = explained(world, "SELECT COUNT(DISTINCT person_id) AS p FROM visit")
    assert (persons.clipping, persons.reasons) == ((0.0,), ("these bounds cut nothing",))


def test_what_is_cut_below_a_derived_table_is_not_called_nothing(world: World) -> None:
    each = "SELECT person_id, COUNT(*) AS n FROM visit GROUP BY person_id"
    found = explained(world, f"SELECT SUM(n) AS s FROM ({each}) AS t")
    assert found.reasons == ("one row for each person",)
    assert found.clipping == (None,)


YEARLY = "SELECT EXTRACT(YEAR FROM day) AS y, COUNT(*) AS n FROM visit GROUP BY y"


@pytest.mark.parametrize(
    ("asked", "head", "reason"),
    [
        ({}, "rows in", "the least expected error by the profiles of 3 node(s): clipping "),
        ({"max_groups": 2}, "each of up to 2 groups", "groups as asked for, rows with the least expected error by the"),
        ({"max_rows_per_group": 1, "max_groups": 2}, "up to 1 row in each", "rows and groups as asked for; by the"),
        ({"max_rows_per_group": 2, "max_groups": 1}, "up to 2 rows in one group", "rows and groups as asked for; by"),
        ({"max_rows_per_group": 5, "max_groups": 99}, "each of up to 12 groups", "rows as asked for; by the profiles"),
    ],
)
def test_a_reason_tells_of_what_was_chosen_and_what_was_asked(
    world: World, asked: dict[str, int], head: str, reason: str
) -> None:
    profiled(world)
    found = explained(world, YEARLY, **asked)
    assert found.reasons[0].startswith(reason)
    assert "noise with a standard deviation of " in found.reasons[0]
    assert head in str(found).splitlines()[0]


def test_explain_tells_of_suppression_where_the_dataset_has_it(world: World) -> None:
    assert "Cells below 11 by their noisy count are suppressed" in str(explained(world, BY_SEX))


# -- suppressed cells in a table ---------------------------------------------------------------------------------------


def test_a_table_says_what_stands_for_suppressed_cells(world: World) -> None:
    def small(outcome: Any) -> Any:
        if not isinstance(outcome, NodeRelease):
            return outcome
        (values,) = outcome.values
        return replace(outcome, values=(replace(values, statistics=((1, *values.statistics[0][1:]),)),))

    world.alter = dict.fromkeys(NODES, small)
    with world.federation() as federation:
        answer = federation.query(BY_SEX, epsilon=1)
    assert answer.rows[0] == ("F", None)
    assert answer.suppression == Suppression(below=11, rows=(0,))
    assert "∅ in 1 row(s): suppressed, below 11 by the noisy count\n" in str(answer)
    assert answer.to_json()["suppression"] == {"below": 11, "rows": [0]}


def test_other_empty_cells_are_not_called_suppressed() -> None:
    columns = (Column(name="k", type="text", noisy=False), Column(name="n", type="integer", noisy=True))
    empty = {"columns": columns, "intervals": ((None, None),) * 3, "clipping": (None, None)}
    rows = (("a", None), ("b", None), (None, 5))
    both = result(rows, **empty, suppression=Suppression(below=11, rows=(1,)))
    assert "∅ in 1 row(s): suppressed, below 11 by the noisy count; ∅ in others: no value" in table_text(both)
    assert "suppressed" not in table_text(result(rows, **empty, suppression=Suppression(below=11)))
    assert "suppressed" not in table_text(result(rows, **empty))


# -- what a notebook or a prompt shows ---------------------------------------------------------------------------------


def test_what_a_prompt_shows_is_the_text(world: World) -> None:
    with world.federation() as federation:
        shown = [federation.query(BY_SEX, epsilon="1/3"), federation.explain(BY_SEX, epsilon="1/3")]
        shown += [federation.budget(), federation.catalog()]
    for one in shown:
        assert repr(one) == str(one)
        assert "Fraction(" not in repr(one)
