"""Reads the part of YAML that ``compose.yaml`` is written in, and refuses the rest.

Mappings and lists by indentation, ``[a, "b"]`` in one line, plain and double-quoted scalars,
comments on lines of their own. No anchors, no
block text, no multi-line scalars: a file that needs them fails the test, and this reader then has to learn them.
"""

from __future__ import annotations

import json
import re
from typing import Any

_LINE = re.compile(r"^(?P<indent> *)(?P<text>.*?)\s*$")
_KEY = re.compile(r"^(?P<key>[A-Za-z0-9_.-]+):(?: (?P<value>.*))?$")
_ITEM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^,"\[\]]+)\s*(,|$)')


def read(text: str) -> dict[str, Any]:
    """The document as dicts, lists and strings."""
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = _LINE.match(line)
        assert found is not None
        assert "\t" not in line, f"line {number}: tab"
        if found["text"] and not found["text"].startswith("#"):
            assert '"' in found["text"] or " #" not in found["text"], f"line {number}: comment after a value"
            lines.append((len(found["indent"]), found["text"], number))
    value, rest = _block(lines, 0)
    assert not rest, f"line {rest[0][2]}: unexpected"
    assert isinstance(value, dict)
    return value


def _block(lines: list[tuple[int, str, int]], indent: int) -> tuple[Any, list[tuple[int, str, int]]]:
    if lines[0][1].startswith("- "):
        items = []
        while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
            items.append(_scalar(lines[0][1][2:], lines[0][2]))
            lines = lines[1:]
        return items, lines
    mapping: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        (_, text, number), lines = lines[0], lines[1:]
        found = _KEY.match(text)
        assert found is not None, f"line {number}: {text}"
        assert found["key"] not in mapping, f"line {number}: {found['key']} twice"
        if found["value"]:
            mapping[found["key"]] = _scalar(found["value"], number)
        elif lines and lines[0][0] > indent:
            mapping[found["key"]], lines = _block(lines, lines[0][0])
        else:
            mapping[found["key"]] = None
    return mapping, lines


def _scalar(text: str, number: int) -> Any:
    text = text.strip()
    assert text[0] not in "&*|>{!'%@`", f"line {number}: {text}"
    if text.startswith("["):
        assert text.endswith("]"), f"line {number}: {text}"
        inside = text[1:-1]
        items = [item.strip() for item, _ in _ITEM.findall(inside)]
        assert ",".join(items).replace(" ", "") == inside.replace(" ", ""), f"line {number}: {text}"
        return [_scalar(item, number) for item in items]
    return json.loads(text) if text.startswith('"') else text
