"""Adding up: the merge is the sum over nodes, in whatever order; what does not have the plan's shape is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import date
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insitu_privacy.errors import IntegrityFailed
from insitu_privacy.merge import MergedRelease, merge
from insitu_privacy.plan import ReleasedValues

from tests.testkit.care import plan

PUBLIC = plan("SELECT kind, stage > 2 AS late, COUNT(*), SUM(cost) FROM visit GROUP BY 1, 2")
PRIVATE = plan("SELECT diagnosis, noted, COUNT(*) FROM visit GROUP BY 1, 2")
WHOLE = plan("SELECT COUNT(*), AVG(cost) FROM visit")
SOME = settings(max_examples=40, deadline=None)
_NUMBERS = st.integers(-(2**61), 2**61)
_KEYS = st.tuples(st.sampled_from([None, "a", "b", ""]), st.sampled_from([None, "2020-01-01", "2021-02-03"]))


def added(made: Any, *nodes: ReleasedValues) -> MergedRelease:
    (only,) = merge(made, [(values,) for values in nodes])
    return only


def grids(cells: int, width: int) -> st.SearchStrategy[ReleasedValues]:
    row = st.lists(_NUMBERS, min_size=cells, max_size=cells).map(tuple)
    return st.lists(row, min_size=width, max_size=width).map(
        lambda rows: ReleasedValues(keys=None, statistics=tuple(rows))
    )


@st.composite
def selections(draw: st.DrawFn) -> ReleasedValues:
    keys = draw(st.lists(_KEYS, unique=True, max_size=6))
    rows = [draw(st.lists(_NUMBERS, min_size=len(keys), max_size=len(keys))) for _ in PRIVATE.releases[0].statistics]
    return ReleasedValues(keys=tuple(keys), statistics=tuple(tuple(row) for row in rows))


@SOME
@given(nodes=st.lists(grids(9, 2), min_size=1, max_size=3))
def test_public_cells_are_added_cell_by_cell(nodes: list[ReleasedValues]) -> None:
    found = added(PUBLIC, *nodes)
    assert len(found.keys) == 9
    assert found.keys[:4] == (("er", None), ("er", False), ("er", True), ("in", None))
    assert found.nodes == (len(nodes),) * 9
    for place, row in enumerate(found.statistics):
        assert row == tuple(sum(cell) for cell in zip(*(node.statistics[place] for node in nodes), strict=True))


@SOME
@given(nodes=st.lists(selections(), min_size=1, max_size=3))
def test_selected_groups_are_united_and_added(nodes: list[ReleasedValues]) -> None:
    found = added(PRIVATE, *nodes)
    expected: Counter[Any] = Counter()
    holders: Counter[Any] = Counter()
    for node in nodes:
        assert node.keys is not None
        for place, key in enumerate(node.keys):
            typed = (key[0], None if key[1] is None else date.fromisoformat(key[1]))
            holders[typed] += 1
            for index, row in enumerate(node.statistics):
                expected[typed, index] += row[place]
    assert set(found.keys) == set(holders)
    assert list(found.keys) == sorted(found.keys, key=lambda key: [(part is not None, str(part or "")) for part in key])
    for place, key in enumerate(found.keys):
        assert found.nodes[place] == holders[key]
        for index, row in enumerate(found.statistics):
            assert row[place] == expected[key, index]


@SOME
@given(nodes=st.lists(selections(), min_size=2, max_size=3))
def test_the_order_of_nodes_does_not_matter(nodes: list[ReleasedValues]) -> None:
    assert len({repr(added(PRIVATE, *order)) for order in permutations(nodes)}) == 1


def test_a_query_without_keys_has_one_cell() -> None:
    found = added(
        WHOLE, *(ReleasedValues(keys=None, statistics=((n,),) * len(WHOLE.releases[0].statistics)) for n in (1, 2))
    )
    assert found.keys == ((),)
    assert found.statistics[0] == (3,)


def test_no_node_at_all_gives_zeros_and_no_groups() -> None:
    assert added(PUBLIC).statistics == ((0,) * 9,) * 2
    assert added(PUBLIC).nodes == (0,) * 9
    assert added(PRIVATE).keys == ()


def test_what_one_node_claims_cannot_break_the_sum() -> None:
    many = ReleasedValues(keys=None, statistics=((2**63 - 1,) * 9,) * 2)
    for row in added(PUBLIC, many, many).statistics:
        assert all(abs(value) < 2**63 for value in row)


_ROW = (0,) * 9
_WRONG_PUBLIC = [
    ReleasedValues(keys=None, statistics=(_ROW,)),
    ReleasedValues(keys=None, statistics=(_ROW, _ROW, _ROW)),
    ReleasedValues(keys=None, statistics=(_ROW, _ROW[1:])),
    ReleasedValues(keys=None, statistics=((*_ROW, 1), (*_ROW, 1))),
    ReleasedValues(keys=None, statistics=()),
    ReleasedValues(keys=(), statistics=((), ())),
    ReleasedValues(keys=(("er", True),) * 9, statistics=(_ROW, _ROW)),
]
_WRONG_PRIVATE = [
    ReleasedValues(keys=None, statistics=((0,), (0,))),
    ReleasedValues(keys=(("a", None),), statistics=((0,),)),
    ReleasedValues(keys=(("a", None),), statistics=((0, 1), (0, 1))),
    ReleasedValues(keys=(("a", None), ("a", None)), statistics=((0, 1), (0, 1))),
    ReleasedValues(keys=(("a",),), statistics=((0,), (0,))),
    ReleasedValues(keys=((1, None),), statistics=((0,), (0,))),
    ReleasedValues(keys=((True, None),), statistics=((0,), (0,))),
    ReleasedValues(keys=(("a", "yesterday"),), statistics=((0,), (0,))),
    ReleasedValues(keys=(("a", 20200101),), statistics=((0,), (0,))),
]


@pytest.mark.parametrize(
    ("made", "wrong"), [(PUBLIC, one) for one in _WRONG_PUBLIC] + [(PRIVATE, one) for one in _WRONG_PRIVATE]
)
def test_values_of_another_shape_are_refused(made: Any, wrong: ReleasedValues) -> None:
    with pytest.raises(IntegrityFailed) as failed:
        added(made, wrong)
    assert failed.value.code == "INSITU-VERIFY-RESULT"


def test_another_number_of_releases_is_refused() -> None:
    good = ReleasedValues(keys=None, statistics=(_ROW, _ROW))
    for values in ((), (good, good)):
        with pytest.raises(IntegrityFailed):
            merge(PUBLIC, [values])


def test_keys_of_each_type_travel_as_json_and_come_back() -> None:
    made = plan(
        "SELECT ward, weight, active, at, COUNT(*) FROM visit v JOIN person p ON p.person_id = v.person_id JOIN act a ON a.visit_id = v.visit_id GROUP BY 1, 2, 3, 4"
    )
    key = (7, 1.5, True, "2020-01-01T10:00:00")
    rows = tuple((1,) for _ in made.releases[0].statistics)
    (found,) = added(made, ReleasedValues(keys=(key,), statistics=rows)).keys
    assert [str(part) for part in found] == ["7", "1.5", "True", "2020-01-01 10:00:00"]
    for place, wrong in ((0, 7.0), (0, True), (0, "7"), (1, "1.5"), (1, True), (2, 1), (3, 5)):
        bad = (*key[:place], wrong, *key[place + 1 :])
        with pytest.raises(IntegrityFailed):
            added(made, ReleasedValues(keys=(bad,), statistics=rows))


def test_merging_takes_no_part_of_the_plan_but_its_releases() -> None:
    values = ReleasedValues(keys=None, statistics=(_ROW, _ROW))
    assert added(PUBLIC, values) == added(replace(PUBLIC, postprocessing="", copies_sql=""), values)
