"""What all test folders share: one PostgreSQL server for the whole session, how hypothesis draws, controls attacked.

In CI the same examples are drawn each time, so that a red run can be run again; elsewhere new ones are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.testkit.databases import postgres_server

pytest_plugins = ["tests.testkit.controls", "tests.testkit.order"]

settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres_server() as url:
        yield url
