"""The SDK refuses what crosses a dataset's legal rules before anything is sent, in the language of its process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from insitu import AccessRefused, LegalRefused
from insitu.commands.main import app
from insitu_access.cli import run
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.language import speak
from insitu_proto.messages import Ask

from tests.unit.client.world import BUNDLE, BY_SEX, CARE, World

RULES = """
purposes = ["public-health-research"]
[[dataset.identifiers]]
name = "commune of residence"
french = "commune de résidence"
columns = ["person.town"]
[[dataset.identifiers]]
name = "exact date of care"
french = "date exacte des soins"
columns = ["visit.day"]
finer_than = "month"
"""
TOML = (
    CARE.decode()
    .replace("min_units = 11\n", f"min_units = 11\n{RULES}")
    .replace("max = 50000 }", 'max = 50000, release = "never" }')
)
CROSSED = (
    "SELECT p.town, COUNT(*) AS n FROM visit v JOIN person p ON p.person_id = v.person_id "
    "WHERE v.day = DATE '2020-03-17' GROUP BY 1"
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    bundle = DatasetBundle(toml=TOML.encode(), files=BUNDLE.files)
    world = World(tmp_path, now=datetime.now(UTC).replace(microsecond=0), bundle=bundle)
    world.grant = replace(world.grant, purpose_code="public-health-research")
    world.seal()
    return world


@pytest.fixture
def english() -> Iterator[None]:
    """Afterwards, whatever a command has set."""
    yield
    speak("en")


def asked(world: World) -> int:
    return sum(isinstance(call, Ask) for call in world.calls)


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param(CROSSED, marks=pytest.mark.attacks("D1")),
        pytest.param("SELECT AVG(amount) AS a FROM visit", marks=pytest.mark.attacks("D2")),
    ],
)
def test_what_crosses_a_rule_is_not_sent(world: World, sql: str) -> None:
    with world.federation() as federation:
        with pytest.raises(LegalRefused) as caught:
            federation.query(sql, epsilon=1, delta="1e-7")
        with pytest.raises(LegalRefused):
            federation.explain(sql)
        assert asked(world) == 0
        assert caught.value.sql == sql  # type: ignore[attr-defined]  # so that the clause is underlined
        assert len(federation.query(BY_SEX, epsilon=1).rows) == 2


@pytest.mark.attacks("D3")
@pytest.mark.parametrize("code", [None, "marketing"])
def test_a_grant_for_another_purpose_asks_nothing(world: World, code: str | None) -> None:
    world.grant = replace(world.grant, purpose_code=code)
    world.seal()
    with world.federation() as federation, pytest.raises(AccessRefused) as caught:
        federation.query(BY_SEX, epsilon=1)
    assert caught.value.code == "INSITU-ACCESS-PURPOSE"
    assert asked(world) == 0


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"LANG": "fr_FR.UTF-8"}, "la requête croise 2 identifiants potentiels, et ce jeu de données en permet 1 : "
         "commune de résidence (person.town); date exacte des soins (visit.day)"),
        ({"LANG": "en_US.UTF-8"}, "the query uses 2 potential identifiers together, and this dataset allows 1: "
         "commune of residence (person.town); exact date of care (visit.day)"),
    ],
)  # fmt: skip
def test_the_command_says_it_in_the_language_of_its_environment(
    world: World,
    english: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    says: str,
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INSITU_PROFILE", str(world.profile().folder))
    monkeypatch.setattr("insitu.client.GrpcTransport", lambda addresses, identity: world)
    monkeypatch.setattr(sys, "argv", ["insitu", "query", CROSSED, "--epsilon", "1", "--delta", "1e-7"])
    with pytest.raises(SystemExit) as exit_:
        run(app, "insitu")
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert out == ""
    error, sql, marks = err.splitlines()
    assert error.startswith(f"INSITU-LEGAL-IDENTIFIERS: {says}. ")
    assert CROSSED[marks.index("^") : marks.rindex("^") + 1] == "v.day"
    assert sql == CROSSED
    assert asked(world) == 0


def test_the_catalog_says_the_rules(world: World) -> None:
    with world.federation() as federation:
        catalog = federation.catalog()
    assert catalog.to_json()["datasets"][0]["rules"] == {
        "at_most_identifiers": 1,
        "identifiers": [
            {"name": "commune of residence", "together": [["person.town"]], "finer_than": None},
            {"name": "exact date of care", "together": [["visit.day"]], "finer_than": "month"},
        ],
        "never_released": ["visit.amount"],
        "purposes": ["public-health-research"],
    }
    text = str(catalog)
    assert "at most 1 potential identifier in a query: commune of residence; exact date of care" in text
    assert "for public-health-research alone" in text
    assert "commune of residence" in next(line for line in text.splitlines() if line.startswith("town"))
    assert "exact date of care, unless by month" in next(line for line in text.splitlines() if line.startswith("day"))
    assert "never released" in next(line for line in text.splitlines() if line.startswith("amount"))
