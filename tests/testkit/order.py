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
    "acceptance/": 90,
    "e2e/test_failures.py": 60,
    "e2e/": 30,
    "privacy/": 30,
    "golden/": 20,
    "unit/node/test_killed_node.py": 20,
    "unit/privacy/test_postprocess.py": 20,
    "contract/": 10,
    "unit/gateway/": 5,
    "unit/node/": 5,
}
"""How long a file takes, about, by its name or by its folder's; one of which nothing stands here takes a second or two."""


def _place(item: pytest.Item) -> tuple[int, str, str]:
    """Of files that take as long, those that wait for processes stand between those that compute."""
    path = Path(item.path).relative_to(Path(__file__).parents[1])
    seconds = SECONDS.get(path.as_posix(), SECONDS.get(f"{path.parent.as_posix()}/", 0))
    return (-seconds, path.name if seconds else "", path.as_posix() if seconds else "")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order within a file stays; so does that of files of which nothing is known."""
    items.sort(key=_place)
