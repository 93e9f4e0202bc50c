"""What a researcher gets from a federation of real processes: right, signed, merged answers in INTERFACE.md's form."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tests.e2e.world import SITES, World

pytestmark = pytest.mark.e2e

EXACT = [
    "SELECT COUNT(*) AS n FROM visit",
    "SELECT sex, COUNT(*) AS n, AVG(birth_year) AS born FROM person GROUP BY sex ORDER BY sex",
    "SELECT COUNT(DISTINCT person_id) AS n FROM visit WHERE amount > 450",
    "SELECT p.sex, EXTRACT(YEAR FROM v.day) AS y, COUNT(*) AS n, SUM(v.amount) AS total FROM visit v "
    "JOIN person p ON p.person_id = v.person_id WHERE EXTRACT(YEAR FROM v.day) BETWEEN 2018 AND 2020 "
    "GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT icd10, COUNT(*) AS n FROM visit GROUP BY icd10 ORDER BY icd10",
    "SELECT icd.label, COUNT(DISTINCT v.person_id) AS n FROM visit v JOIN icd ON icd.code = v.icd10 "
    "GROUP BY icd.label HAVING COUNT(DISTINCT v.person_id) > 10 ORDER BY icd.label",
    "SELECT icd.label, t.n FROM icd JOIN (SELECT icd10, COUNT(*) AS n FROM visit GROUP BY icd10) AS t "
    "ON t.icd10 = icd.code WHERE t.n > 10 ORDER BY icd.label",
    "SELECT COUNT(DISTINCT person_id) AS n FROM visit WHERE YEAR(CURRENT_DATE) - YEAR(day) <= 6",
    "SELECT code, label FROM icd ORDER BY code LIMIT 3",
    "SELECT sex, MEDIAN(birth_year) AS born, MIN(birth_year) AS first, MAX(birth_year) AS last FROM person GROUP BY sex "
    "ORDER BY sex",
    "SELECT 10 * FLOOR(birth_year / 10) AS decade, 100.0 * COUNT_IF(sex = 'F') / COUNT(*) AS share FROM person "
    "WHERE birth_year BETWEEN 1930 AND 2009 GROUP BY 1 ORDER BY 1",
]


@pytest.mark.parametrize("sql", EXACT)
def test_at_an_enormous_epsilon_the_answer_is_the_exact_answer(world: World, sql: str) -> None:
    done = world.query(sql, "--max-rows-per-group", 200, epsilon="1e12")
    assert done.code == 0, done.err
    answer = done.json
    exact = world.exact.execute(sql).fetchall()
    assert [column["name"] for column in answer["columns"]] == [item[0] for item in world.exact.description]
    assert len(answer["rows"]) == len(exact)
    for got, expected in zip(answer["rows"], exact, strict=True):
        for a, b in zip(got, expected, strict=True):
            assert a == b if isinstance(b, str) else math.isclose(a, float(b), rel_tol=1e-6)


def test_the_json_document_has_the_promised_form(world: World) -> None:
    done = world.query("SELECT sex, COUNT(*) AS n FROM person GROUP BY sex", profile=world.new_profile(), epsilon=1)
    answer = done.json
    assert answer["dataset"] == "care"
    assert answer["columns"] == [{"name": "sex", "type": "text"}, {"name": "n", "type": "integer"}]
    assert [row[0] for row in answer["rows"]] == ["F", "M"]
    assert answer["level"] == 0.95
    assert answer["verified"] is True
    assert answer["replayed"] is False
    assert answer["spent"] == {"epsilon": 1.0, "delta": 0.0}
    assert answer["clipping"] == [None, 0]
    assert answer["nodes"] == [{"id": node, "status": "released", "code": None} for node in SITES]
    for row, intervals in zip(answer["rows"], answer["intervals"], strict=True):
        assert intervals[0] is None
        low, high = intervals[1]
        assert low < row[1] < high
    assert done.err  # progress and nothing of the document


def test_the_same_question_is_answered_again_from_the_ledger_and_charged_once(world: World) -> None:
    profile = world.new_profile()
    first = world.query("SELECT COUNT(*) AS n FROM visit", profile=profile).json
    spent = world.budget(profile)
    again = world.query("select  count(*) as m from VISIT as v", profile=profile).json
    assert again["rows"] == first["rows"]
    assert again["replayed"] is True
    assert world.budget(profile) == spent
    for row in spent["nodes"]:
        assert row["epsilon_spent"] == pytest.approx(1.0)
        assert row["epsilon_left"] == pytest.approx(19.0)


def test_noise_differs_between_nodes_and_projects(world: World) -> None:
    answers = {
        json.dumps(world.query("SELECT COUNT(*) AS n FROM visit", profile=world.new_profile()).json["rows"])
        for _ in range(3)
    }
    assert len(answers) > 1


def test_explain_spends_nothing_and_shows_what_each_node_would_run(world: World) -> None:
    profile = world.new_profile()
    before = world.budget(profile)
    sql = "SELECT icd10, AVG(amount) AS a FROM visit GROUP BY icd10"
    done = world.run("insitu", "explain", sql, "--epsilon", 1, "--profile", profile, "--format", "json")
    assert done.code == 0, done.err
    plan = done.json
    assert {"releases", "expected_intervals", "cost", "postprocessing", "node_sql"} <= plan.keys()
    assert "GROUP BY" in plan["node_sql"]["postgres"]
    assert world.budget(profile) == before


def test_a_written_result_verifies_offline_and_a_changed_one_does_not(world: World, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert world.query("SELECT sex, COUNT(*) AS n FROM person GROUP BY sex", "-o", path).code == 0
    done = world.run("insitu", "verify", path, "--profile", world.profile)
    assert done.code == 0, done.err
    document = json.loads(path.read_text())
    document["rows"][0][1] += 1
    path.write_text(json.dumps(document))
    done = world.run("insitu", "verify", path, "--profile", world.profile)
    assert done.code != 0
    assert "INSITU-VERIFY-" in done.err


def test_the_sdk_gives_arrow(world: World) -> None:
    import insitu

    with insitu.connect(world.profile) as federation:
        table = federation.query("SELECT sex, COUNT(*) AS n FROM person GROUP BY sex", epsilon=1).to_arrow()
    assert table.column_names == ["sex", "n"]
    assert table.num_rows == 2


def test_custodian_and_operator_see_their_side(world: World) -> None:
    config = world.dir / "nodes" / "alpha" / "node.toml"
    check = world.run("insitu-node", "check", "--config", config)
    assert check.code == 0, check.err
    ledger = world.run("insitu-node", "ledger", "--config", config, "--format", "json")
    assert ledger.code == 0, ledger.err
    assert ledger.json
    status = world.run(
        "insitu-gateway", "status", "--config", world.dir / "gateway" / "gateway.toml", "--format", "json"
    )
    assert {node["id"] for node in status.json["nodes"] if node["connected"]} == set(SITES)
    up = world.run("insitu-compose", "status", "--dir", world.dir)
    assert up.code == 0, up.err


def test_sites_can_be_compared(world: World) -> None:
    done = world.query(
        "SELECT node_id, sex, COUNT(*) AS n, MEDIAN(birth_year) AS born FROM person GROUP BY node_id, sex ORDER BY 1, 2",
        epsilon="1e12",
    )
    assert done.code == 0, done.err
    rows = done.json["rows"]
    assert [row[:2] for row in rows] == [[node, sex] for node in sorted(SITES) for sex in ("F", "M")]
    exact = dict(world.exact.execute("SELECT sex, COUNT(*) FROM person GROUP BY sex").fetchall())
    for sex, count in exact.items():
        assert sum(row[2] for row in rows if row[1] == sex) == count
    for _, _, count, born in rows:  # some sites have persons of one sex alone
        assert (born is None) == (count == 0)
        assert born is None or 1930 <= born <= 2009
