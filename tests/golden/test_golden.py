"""The way of each query through the passes is the one kept; and what comes out is right on both engines."""

from __future__ import annotations

import math
from typing import Any

import duckdb
import psycopg
import pytest
from insitu_privacy.mechanisms import ExactCells, privatize
from insitu_privacy.merge import merge
from insitu_privacy.postprocess import Postprocessor
from insitu_privacy.render import render

from tests.golden.cases import CASES, FOLDER, PASSES, planned, section, stored, written
from tests.testkit.care import Row, cells, run_duckdb, run_postgres, whole


@pytest.mark.parametrize("stage", PASSES)
def test_each_pass_gives_what_its_golden_file_holds(stage: str, golden_write: bool) -> None:
    if golden_write:
        (FOLDER / f"{stage}.txt").write_text(written(stage))
    kept = stored(stage)
    assert list(kept) == list(CASES)
    changed = [name for name in CASES if section(name, PASSES[stage](name)) != kept[name]]
    for name in changed[:1]:
        assert section(name, PASSES[stage](name)) == kept[name]


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(PASSES)


def statement(name: str, dialect: Any, *, exactly: bool) -> str:
    (release,) = planned(name, exactly=exactly).releases
    return render(release, dialect=dialect, tables=whole(), cap_key="k")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("exactly", [True, False], ids=["bounds that do not bind", "bounds that bind"])
def test_both_engines_give_the_same_integers(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], name: str, exactly: bool
) -> None:
    width = len(planned(name).releases[0].keys)
    one = run_duckdb(duck, statement(name, "duckdb", exactly=exactly))
    other = run_postgres(pg, statement(name, "postgres", exactly=exactly))
    assert cells(one, width) == cells(other, width)
    assert len(cells(one, width)) == len(one) == len(other) > 0
    for row in (*one, *other):
        assert all(value == int(value) for value in row[width:])


def answered(name: str, rows: list[Row]) -> list[Row]:
    """What a researcher would get from one node with these exact rows."""
    made = planned(name, exactly=True)
    (release,) = made.releases
    values = privatize(release, ExactCells(rows=tuple(rows)))
    with Postprocessor() as post:
        return list(post.run(made, merge(made, [(values,)])).rows)


def close(found: Any, exact: Any) -> bool:
    if found is None or exact is None or isinstance(exact, (str, bool)):
        return bool(found == exact)
    return math.isclose(float(found), float(exact), rel_tol=1e-5, abs_tol=1e-3)


@pytest.mark.parametrize("engine", ["duckdb", "postgres"])
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.exact])
def test_where_no_bound_binds_the_answer_is_that_of_the_plain_query(
    duck: duckdb.DuckDBPyConnection, pg: psycopg.Connection[Any], name: str, engine: Any
) -> None:
    text = statement(name, engine, exactly=True)
    found = answered(name, run_duckdb(duck, text) if engine == "duckdb" else run_postgres(pg, text))
    plain = run_duckdb(duck, CASES[name].sql)
    names = [column.noisy for column in planned(name).output]
    width = names.index(True)
    exact = {tuple(row[:width]): row[width:] for row in plain}
    assert len(exact) == len(plain)
    released = {tuple(row[:width]): row[width:] for row in found}
    assert len(released) == len(found)
    assert exact.keys() <= released.keys()
    for key, values in released.items():
        if key in exact:
            assert all(close(a, b) for a, b in zip(values, exact[key], strict=True)), (key, values, exact[key])
        else:
            assert all(not value for value in values), f"a group that is not there has {values}"
    if "ORDER BY" in CASES[name].sql:
        assert [row[0] for row in found if tuple(row[:width]) in exact] == [row[0] for row in plain]
