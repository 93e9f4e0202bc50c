"""Controls of ``docs/threat-model.md``, and the tests that attack them: ``@pytest.mark.attacks("A6", "K7")``.

An attack tries to do what the control forbids, and passes when it was refused as the control says. This module is a
pytest plugin, which ``tests/conftest.py`` names: ``--control A6`` leaves only the attacks on A6, and a run that held any
attack ends with a section that counts them, control by control. The marks travel as ``user_properties`` of reports, so
that the processes of pytest-xdist are counted like one.

What is not here: that every control has an attack and is cited where it stands in the code (``tests/unit/test_controls``).
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THREAT_MODEL = ROOT / "docs" / "threat-model.md"
PROPERTY = "attacks"
_FEW = 5
_NUMBER = r"([A-Z])(\d+)(?:(?:–|-| to )([A-Z]?)(\d+))?"
_ROW = re.compile(rf"^\| *{_NUMBER} *\|", re.MULTILINE)
_CITED = re.compile(rf"\b{_NUMBER}\b")


# ---------------------------------------------------------------------------------------------------- reading numbers


def numbers(found: re.Match[str]) -> list[str]:
    """``A6`` is itself; ``R1–R4``, ``R1-4`` and ``R1 to R4`` are four. Another letter at the end is no range."""
    letter, first, other, last = found.groups()
    end = int(last) if last and other in ("", letter) else int(first)
    return [f"{letter}{number}" for number in range(int(first), end + 1)]


def listed(page: str) -> list[str]:
    """The controls that the tables of a threat model number, in its order."""
    return [number for row in _ROW.finditer(page) for number in numbers(row)]


def cited(text: str) -> set[str]:
    return {number for found in _CITED.finditer(text) for number in numbers(found)}


def remarks(source: str) -> str:
    """The docstrings and comments of a module: where a control is cited, and a string of the program is not."""
    tree = ast.parse(source)
    said = [node.value.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and _is_text(node.value)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return "\n".join([*said, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def attacks(source: str) -> set[str]:
    """The controls that the tests of a module attack: marks on test functions, on classes, and on parameters."""
    return {
        control for node in ast.walk(ast.parse(source)) for mark in _marks(node) for control in _named(mark)
    }  # fmt: skip


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _marks(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return node.decorator_list if node.name.startswith("test_") else []  # on a helper, it marks nothing
    if isinstance(node, ast.ClassDef):
        return node.decorator_list
    if isinstance(node, ast.Call) and _is(node.func, "pytest.param"):
        given = [word.value for word in node.keywords if word.arg == "marks"]
        return [mark for one in given for mark in (one.elts if isinstance(one, ast.List | ast.Tuple) else [one])]
    return []


def _is(called: ast.expr, name: str) -> bool:
    """To write an expression out takes long, and most of them have another last name."""
    return isinstance(called, ast.Attribute) and name.endswith(f".{called.attr}") and ast.unparse(called) == name


def _named(mark: ast.expr) -> list[str]:
    if not isinstance(mark, ast.Call) or not _is(mark.func, "pytest.mark.attacks"):
        return []
    return [str(ast.literal_eval(argument)) for argument in mark.args]


# ------------------------------------------------------------------------------------------------------- the plugin


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--control", metavar="A6", help="run only the tests that attack this control of the threat model")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = config.getoption("--control")
    left_out = []
    for item in items:
        attacked = {control for mark in item.iter_markers("attacks") for control in mark.args}
        item.user_properties.extend((PROPERTY, control) for control in sorted(attacked))
        if wanted and wanted not in attacked:
            left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = tally(terminalreporter.stats)
    if not (told.held or told.failed):
        return
    terminalreporter.section("controls attacked")
    for line in told.lines(listed(THREAT_MODEL.read_text(encoding="utf-8"))):
        terminalreporter.line(line)


@dataclass
class Tally:
    """How many attacks each control held off, and which it did not."""

    held: Counter[str] = field(default_factory=Counter)
    failed: dict[str, list[str]] = field(default_factory=dict)

    def lines(self, controls: Sequence[str]) -> Iterator[str]:
        """A line for each group, of the controls that were attacked; then what was not held off."""
        attacked = [control for control in controls if control in self.held or control in self.failed]
        for group in dict.fromkeys(control[0] for control in attacked):
            yield "  ".join(self._one(control) for control in attacked if control[0] == group)
        for control in attacked:
            yield from (f"{control} FAILED {test}" for test in self.failed.get(control, ()))
        yield f"{len(attacked)} of {len(controls)} controls of docs/threat-model.md, with how many attacks each held off"
        missing = [control for control in controls if control not in attacked]
        if len(missing) <= _FEW:  # of a run of everything; whoever ran a part knows that the rest is missing
            yield from (f"{control} was not attacked: its tests were skipped or left out" for control in missing)

    def _one(self, control: str) -> str:
        failed = len(self.failed.get(control, ()))
        return f"{control} {self.held[control]}" + (f" ({failed} FAILED)" if failed else "")


def tally(stats: Mapping[str, Iterable[object]]) -> Tally:
    """Of the reports that a terminal keeps: a test that passed is one that held; a failure and an error are none."""
    made = Tally()
    for outcome in ("passed", "failed", "error"):
        for report in stats.get(outcome, ()):
            for name, control in getattr(report, "user_properties", ()):
                if name == PROPERTY and outcome == "passed":
                    made.held[str(control)] += 1
                elif name == PROPERTY:
                    made.failed.setdefault(str(control), []).append(str(getattr(report, "nodeid", "?")))
    return made
