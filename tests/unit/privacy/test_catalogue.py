"""The catalogue of errors: in the docs, in the tests, and without room for data."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from string import Formatter

import pytest
from insitu_node.engines.base import EngineLimits
from insitu_node.engines.duckdb import DuckDBEngine
from insitu_privacy.catalogue import CATALOGUE, Entry
from insitu_privacy.errors import Unavailable

from tests.testkit.care import bundle, care, create
from tests.testkit.databases import new_duckdb

ROOT = Path(__file__).parents[3]
GENERATE = ROOT / "docs" / "generate_errors.py"
CODE = re.compile(r"INSITU-[A-Z]+(?:-[A-Z]+)*")

FIELDS = {
    "address", "asked", "count", "end", "hint", "kind", "known", "limit", "name", "needed", "node", "path", "reason",
    "released", "start", "type", "version", "what",
}  # fmt: skip
"""Names, limits and positions. A new one is added here by someone who has asked whether it can carry data."""


def fields(entry: Entry) -> set[str]:
    """The fields of both texts, with what may follow a name: attributes, conversions, formats."""
    found = [part for text in (entry.text, entry.remedy) for part in Formatter().parse(text)]
    return {f"{name}{conversion or ''}{form or ''}" for _, name, form, conversion in found if name is not None}


def test_the_page_has_every_code_once_and_no_other() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    assert sorted(re.findall(rf"^\| `({CODE.pattern})` \|", page, re.MULTILINE)) == sorted(CATALOGUE)


@pytest.mark.parametrize(("option", "status", "says"), [("--check", 0, ""), ("--chekc", 1, "usage: ")])
def test_the_page_is_up_to_date(option: str, status: int, says: str) -> None:
    done = subprocess.run([sys.executable, GENERATE, option], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith(says)


def test_every_code_is_named_in_a_test() -> None:
    named = {code for path in (ROOT / "tests").rglob("*.py") for code in CODE.findall(path.read_text(encoding="utf-8"))}
    assert set(CATALOGUE) - named == set()


@pytest.mark.parametrize("code", list(CATALOGUE))
def test_no_text_has_room_for_data(code: str) -> None:
    entry = CATALOGUE[code]
    if entry.category == "execution":  # after private data was read
        assert fields(entry) == set()
    elif entry.category == "parameter":  # the value that the researcher passed
        assert fields(entry) <= FIELDS | {"value"}
    else:
        assert fields(entry) <= FIELDS


def test_a_stopping_node_opens_no_session(tmp_path: Path) -> None:
    mapping = {name: name for name, table in care().tables.items() if table.source is None}
    limits = EngineLimits(statement_timeout_s=5, memory_limit_mb=256, workers=1, threads=1, temporary=None)
    database = new_duckdb(tmp_path / "site.duckdb", *create())
    engine = DuckDBEngine(
        dataset=care(), bundle=bundle(), database=database, schema=None, mapping=mapping, base=tmp_path, limits=limits
    )
    with engine.session() as session:
        assert session.execute("SELECT 1") == [(1,)]
    engine.close()
    with pytest.raises(Unavailable) as stopped, engine.session():
        pytest.fail("a session was opened")
    assert stopped.value.code == "INSITU-NODE-STOPPED"
