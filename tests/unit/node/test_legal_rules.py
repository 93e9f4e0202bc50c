"""A request that crosses a legal rule of the dataset is refused at the node, whatever its sender planned: D1 to D3.

Nothing is reserved, the database is not asked, no noise is drawn; the signed refusal is English, the researcher's
process shows it in its own language.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from insitu_access.manifest import DatasetEntry
from insitu_access.release import NodeRelease, Refusal
from insitu_node.cycle import Cycle
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import RemoteError
from insitu_privacy.language import speak

from tests.testkit.node_world import CARE, NodeWorld, care_engine

RULES = """
[dataset.rules]
at_most_identifiers = 1
[[dataset.identifiers]]
name = "year of birth"
french = "année de naissance"
columns = ["person.birth_year"]
[[dataset.identifiers]]
name = "exact date of care"
french = "date exacte des soins"
columns = ["visit.day"]
finer_than = "month"
"""
TOML = (
    CARE.decode()
    .replace("min_units = 0\n", f'min_units = 0\npurposes = ["public-health-research"]\n{RULES}')
    .replace("max = 50000 }", 'max = 50000, release = "never" }')
)
JOINED = "FROM visit v JOIN person p ON p.person_id = v.person_id"
CROSSED = {
    "INSITU-LEGAL-IDENTIFIERS": f"SELECT p.birth_year, COUNT(*) AS n {JOINED} WHERE v.day = DATE '2020-03-17' GROUP BY 1",
    "INSITU-LEGAL-NEVER-RELEASED": "SELECT SUM(amount) AS s FROM visit",
}
ALLOWED = f"SELECT p.sex, COUNT(*) AS n {JOINED} WHERE v.day >= DATE '2020-01-01' AND v.amount > 10 GROUP BY p.sex"


class Watched:
    """An engine that counts how often it was asked."""

    dialect = "duckdb"

    def __init__(self, inner: Any) -> None:
        self._inner, self.tables, self.sessions = inner, inner.tables, 0

    @contextmanager
    def session(self) -> Iterator[Any]:
        self.sessions += 1
        with self._inner.session() as session:
            yield session

    def describe(self, table: str) -> Any:
        return self._inner.describe(table)

    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def world(tmp_path: Path) -> NodeWorld:
    world = NodeWorld(folder=tmp_path)
    world.dataset = parse_dataset(DatasetBundle(toml=TOML.encode(), files={}))
    world.site = replace(world.site, datasets={"care": world.dataset})
    world.manifest_with(datasets=(DatasetEntry(name="care", version=1, digest=world.dataset.digest),))
    world.grant_with(purpose_code="public-health-research")
    world.engine = Watched(care_engine(tmp_path))
    return world


@pytest.fixture
def cycle(world: NodeWorld) -> Iterator[Cycle]:
    cycle = world.cycle()
    yield cycle
    cycle.stop()


def refused(world: NodeWorld, cycle: Cycle, sql: str) -> Refusal:
    """The node's refusal of SQL that a careless or hostile client signed without asking its own planner."""
    found = world.ask(cycle, world.query(sql, plan_digest="0" * 64))
    assert isinstance(found, Refusal)
    assert cycle_spent(world) == 0
    assert world.engine is not None
    assert world.engine.sessions == 0  # type: ignore[attr-defined]
    assert world.noise.draws == 0  # type: ignore[attr-defined]
    return found


def cycle_spent(world: NodeWorld) -> int:
    return len(list(world.ledger.entries()))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("INSITU-LEGAL-IDENTIFIERS", marks=pytest.mark.attacks("D1")),
        pytest.param("INSITU-LEGAL-NEVER-RELEASED", marks=pytest.mark.attacks("D2")),
    ],
)
def test_what_crosses_a_rule_is_refused_and_nothing_is_spent(world: NodeWorld, cycle: Cycle, code: str) -> None:
    found = refused(world, cycle, CROSSED[code])
    assert found.code == code
    assert found.span is not None


@pytest.mark.attacks("D4")
@pytest.mark.parametrize("code", CROSSED)
def test_looser_rules_of_the_asker_count_for_nothing(world: NodeWorld, cycle: Cycle, code: str) -> None:
    """Who asks by a contract without the rules asks by another digest, and by the node's digest the rules hold."""
    looser = TOML.replace("at_most_identifiers = 1", "at_most_identifiers = 5").replace(', release = "never"', "")
    theirs, ours = parse_dataset(DatasetBundle(toml=looser.encode(), files={})), world.dataset
    world.dataset = theirs
    request = world.query(CROSSED[code])  # planned, and signed, by the looser contract
    for digest, refusal in ((theirs.digest, "INSITU-ACCESS-DATASET"), (ours.digest, code)):
        found = world.ask(cycle, replace(request, request_id=digest[:32], dataset_digest=digest))
        assert isinstance(found, Refusal)
        assert found.code == refusal
    assert cycle_spent(world) == 0


def test_what_crosses_none_is_answered(world: NodeWorld, cycle: Cycle) -> None:
    assert isinstance(world.ask(cycle, world.query(ALLOWED)), NodeRelease)
    assert cycle_spent(world) == 1


@pytest.mark.attacks("D3")
@pytest.mark.parametrize("code", [None, "marketing"])
def test_a_grant_for_another_purpose_is_refused(world: NodeWorld, cycle: Cycle, code: str | None) -> None:
    world.grant_with(purpose_code=code)
    found = refused(world, cycle, ALLOWED)
    assert found.code == "INSITU-ACCESS-PURPOSE"
    assert "public-health-research" in found.remedy


def test_the_refusal_is_english_wherever_the_node_is_and_french_where_it_is_read(
    world: NodeWorld, cycle: Cycle
) -> None:
    world.grant_with(purpose_code="marketing")
    try:
        speak("fr")
        found = refused(world, cycle, ALLOWED)
        shown = str(RemoteError(found.code, found.text, found.remedy, found.span))
    finally:
        speak("en")
    assert found.text == "dataset care may not be used for the purpose of this grant: marketing"
    assert shown.startswith("INSITU-ACCESS-PURPOSE: le jeu de données care ne peut pas être utilisé pour la finalité")
