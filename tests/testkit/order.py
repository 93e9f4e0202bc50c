"""Files that take long begin first, so that no worker is left with one of them while the others have nothing to do.

pytest-xdist hands out whole files (``--dist loadfile``). By itself it begins with those that hold most tests, and ends
with the longest: a dozen tests that start processes take a minute, three hundred of a parser take a second. With
``--no-loadscope-reorder`` it keeps the order of collection, which is made here. A pytest plugin, named by
``tests/conftest.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

SECONDS = {
    "e2e/test_failures.py": 80,
    "acceptance/test_acceptance.py": 90,
}
"""How long a file takes, about; files of a folder that stands here take as long as its number; all others less."""


def _about(item: pytest.Item) -> int:
    path = Path(item.path).relative_to(Path(__file__).parents[1])
    return SECONDS.get(path.as_posix(), SECONDS.get(f"{path.parent}/", 0))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order within a file stays; so does that of files of which nothing is known."""
    items.sort(key=lambda item: -_about(item))
