"""The pseudo-column ``node_id``: nodes of a release kept apart after merging, at no other cost to privacy."""

from __future__ import annotations

from typing import Any

import pytest
from insitu_privacy.errors import SqlRefused
from insitu_privacy.merge import merge
from insitu_privacy.plan import PrivacyPlan, ReleasedValues
from insitu_privacy.postprocess import Postprocessor

from tests.testkit.care import care, changed, parse_dataset, plan

BY_NODE = "SELECT node_id, kind, COUNT(*) AS n FROM visit GROUP BY node_id, kind ORDER BY kind, node_id"


def answered(made: PrivacyPlan, nodes: dict[str, list[tuple[ReleasedValues, ...]]]) -> Any:
    with Postprocessor() as post:
        return post.run(made, merge(made, [values for (values,) in nodes.values()], list(nodes)))


def counts(*values: int) -> list[tuple[ReleasedValues, ...]]:
    return [(ReleasedValues(keys=None, statistics=(values,)),)]


def test_each_node_has_rows_of_its_own() -> None:
    found = answered(plan(BY_NODE, epsilon="10"), {"rennes": counts(1, 2, 3), "brest": counts(10, 20, 30)})
    assert found.rows == (
        ("brest", "er", 10), ("rennes", "er", 1), ("brest", "in", 20), ("rennes", "in", 2), ("brest", "out", 30), ("rennes", "out", 3),
    )  # fmt: skip
    assert [column.noisy for column in found.columns] == [False, False, True]
    assert all(row[2][0] <= cell[2] <= row[2][1] for row, cell in zip(found.intervals, found.rows, strict=True))


def test_nodes_do_the_same_as_without_it() -> None:
    assert plan(BY_NODE).digest == plan("SELECT kind, COUNT(*) AS n FROM visit GROUP BY kind").digest


def test_a_group_that_one_node_did_not_name_is_missing_there_alone() -> None:
    made = plan("SELECT node_id, diagnosis, COUNT(DISTINCT person_id) AS n FROM visit GROUP BY 1, 2")
    nodes = {
        "a": [(ReleasedValues(keys=(("x",), ("y",)), statistics=((400, 500),)),)],
        "b": [(ReleasedValues(keys=(("y",),), statistics=((700,),)),)],
    }
    found = answered(made, nodes)
    assert found.rows == (("a", "x", 400), ("a", "y", 500), ("b", "y", 700))
    assert all(intervals[2] is not None for intervals in found.intervals), "no cell is a part of a sum"


def test_sites_are_compared_with_all_of_them() -> None:
    made = plan(
        "WITH s AS (SELECT node_id, COUNT(*) AS n FROM visit GROUP BY node_id), t AS (SELECT SUM(n) AS n FROM s) "
        "SELECT s.node_id, 1.0 * s.n / t.n AS share FROM s, t ORDER BY 1",
        epsilon="1e9",
    )
    found = answered(made, {"a": counts(25), "b": counts(75)})
    assert found.rows == (("a", 0.25), ("b", 0.75))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM visit WHERE node_id = 'a'",
        "SELECT node_id, COUNT(*) FROM visit",
        "SELECT MAX(node_id) FROM visit",
        "SELECT k, COUNT(*) FROM (SELECT node_id AS k, person_id FROM visit) v GROUP BY k",
    ],
)
def test_elsewhere_it_is_refused(sql: str) -> None:
    """Nodes do not know their own name where SQL runs, and need not."""
    with pytest.raises(SqlRefused) as refused:
        plan(sql)
    assert refused.value.code == "INSITU-SQL-FORBIDDEN-CONSTRUCT"
    assert refused.value.span is not None


def test_a_column_of_that_name_is_just_that() -> None:
    dataset = parse_dataset(
        changed(("stage     = {", 'node_id   = { type = "text", values = ["p", "q"] }\nstage     = {'))
    )
    made = plan("SELECT node_id, COUNT(*) FROM visit GROUP BY node_id", dataset=dataset)
    assert made.by_node == ()
    assert made.releases[0].cells == 2
    assert plan("SELECT node_id, COUNT(*) FROM visit GROUP BY node_id", dataset=care()).by_node == ("r0",)
