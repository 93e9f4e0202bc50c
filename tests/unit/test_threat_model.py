"""The threat model names the test of every attack of the hostile gateway, and every such test stands in it."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "threat-model.md").read_text()
SECTION = PAGE.split("\n## The hostile gateway, attack by attack\n")[1].split("\n## ")[0]
NO_ATTACK = {"genuine_results_verify", "every_node_is_honest_again"}


def named() -> set[str]:
    """What stands in the last column."""
    rows = [line.rstrip("| ").rpartition("|")[2] for line in SECTION.splitlines() if line.startswith("| ")]
    return set(re.findall(r"`([^`]+)`", " ".join(rows)))


def attacks() -> set[str]:
    files = (TESTS / "privacy").glob("test_hostile_*.py")
    return {name for file in files for name in re.findall(r"^def test_(\w+)", file.read_text(), re.MULTILINE)}


def test_every_test_that_is_named_is_there() -> None:
    files = {name for name in named() if "/" in name}
    assert files
    assert all((TESTS / name).exists() for name in files)
    for name in named() - files:
        assert any(attack.startswith(name.rstrip("…")) for attack in attacks()), name


def test_every_attack_is_named() -> None:
    prefixes = tuple(name.rstrip("…") for name in named())
    assert {attack for attack in attacks() if not attack.startswith(prefixes)} == NO_ATTACK
