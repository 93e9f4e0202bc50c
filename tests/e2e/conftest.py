"""One federation of real processes for each test file that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.world import World, build
from tests.testkit.databases import new_database

ENORMOUS = '[grant]\nepsilon = 1e15\ndelta = 1e-6\naccounting = "pure"\n'


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[World]:
    started = build(Path(tmp_path_factory.mktemp("federation")), new_database(postgres_url), ENORMOUS)
    try:
        yield started
    finally:
        done = started.run("insitu-compose", "down", "--dir", started.dir)
        started.close()
        assert done.code == 0, done.err
