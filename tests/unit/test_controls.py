"""Every control of the threat model is attacked by a test and cited by the code that carries it, and none is made up.

Whether the attacks are held off is what running them says: they are counted at the end of a run (``testkit.controls``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.testkit.controls import ROOT, THREAT_MODEL, attacks, cited, listed, remarks, tally

DISTRIBUTIONS = ("privacy", "access", "proto", "node_agent", "gateway", "client", "compose")
CHECKS = ("tools", "docs")
"""Programs of `make check`, which carry what is checked of code and packages."""
CONTROLS = listed(THREAT_MODEL.read_text(encoding="utf-8"))


def sources(*folders: str) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), path.read_text(encoding="utf-8")


@cache
def attacked_by() -> frozenset[tuple[str, str]]:
    """Which test file attacks which control."""
    return frozenset((str(path), control) for path, source in sources("tests") for control in attacks(source))


def test_every_control_is_numbered_once() -> None:
    assert len(CONTROLS) == len(set(CONTROLS)) >= 90


def test_every_control_is_attacked() -> None:
    attacked = {control for _, control in attacked_by()}
    assert [control for control in CONTROLS if control not in attacked] == []


def test_no_attack_is_on_a_control_that_does_not_exist() -> None:
    assert {(path, control) for path, control in attacked_by() if control not in CONTROLS} == set()


def test_every_control_is_cited_by_the_code_that_carries_it() -> None:
    found = {control for _, source in sources(*DISTRIBUTIONS, *CHECKS) for control in cited(remarks(source))}
    assert [control for control in CONTROLS if control not in found] == []


# ------------------------------------------------------------------------------------- that these tests could fail

PAGE = """
The text names X1 and | X2 |, and
| party | holds |
|---|---|
| A1 | a control |
| R1–R3 | three |
| S1 | another group | `test_somewhere` |
| A10 | ten |
| K1–P2 | no range |
"""


def test_controls_are_the_first_cells_of_tables() -> None:
    assert listed(PAGE) == ["A1", "R1", "R2", "R3", "S1", "A10", "K1"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A6 and D1, D2", {"A6", "D1", "D2"}),
        ("L1 to L3", {"L1", "L2", "L3"}),
        ("A9-A10", {"A9", "A10"}),
        ("G1–3", {"G1", "G2", "G3"}),
        ("SHA256, P2P, aA1", set()),
    ],
)
def test_what_a_text_cites(text: str, found: set[str]) -> None:
    assert cited(text) == found


MODULE = '''
"""A docstring of A1."""
CODE = "A2"  # a comment of A3
CHOICE: int
"""What stands under a field, of A4."""
def act():
    """A5."""
    return "A6"
'''


def test_docstrings_and_comments_cite_and_strings_do_not() -> None:
    assert cited(remarks(MODULE)) == {"A1", "A3", "A4", "A5"}


TESTS = """
@pytest.mark.attacks("A1")
def test_one(): ...
@pytest.mark.attacks("A2", "A3")
@pytest.mark.slow("A4")
async def test_two(): ...
@pytest.mark.attacks("A5")
def helper(): ...
@pytest.mark.attacks("A6")
class TestThem:
    @pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.attacks("A7"))])
    def test_three(self): ...
def test_four():
    "attacks A8"
"""


def test_marks_of_tests_are_found_and_of_helpers_are_not() -> None:
    assert attacks(TESTS) == {"A1", "A2", "A3", "A6", "A7"}


def report(test: str, *controls: str) -> SimpleNamespace:
    return SimpleNamespace(nodeid=test, user_properties=[("attacks", control) for control in controls])


def test_the_section_counts_what_was_held_off_and_names_what_was_not() -> None:
    told = tally(
        {
            "passed": [report("t1", "A1", "R2"), report("t2", "A1"), report("t3")],
            "failed": [report("t4", "A1")],
            "error": [report("t5", "S1")],
            "skipped": [report("t6", "A10")],
        }
    )
    *lines, total = told.lines([*listed(PAGE), "Z1", "Z2"])
    assert lines == ["A1 2 (1 FAILED)", "R2 1", "S1 0 (1 FAILED)", "A1 FAILED t4", "S1 FAILED t5"]
    assert total.startswith("3 of 9 controls")
    assert list(told.lines(listed(PAGE)))[-1] == "K1 was not attacked: its tests were skipped or left out"


@pytest.mark.parametrize("control", ["", "A"])
def test_a_mark_that_is_no_number_is_no_control(control: str) -> None:
    assert attacks(f"@pytest.mark.attacks({control!r})\ndef test_it(): ...") == {control}
    assert control not in CONTROLS
