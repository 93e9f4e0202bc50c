"""B1, B2, B4, B5: what is refused before a parser sees it, and what is not."""

from __future__ import annotations

import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_privacy.errors import ConfigInvalid, RemoteError, Span, underline
from insitu_privacy.untrusted import (
    JSON_DEPTH,
    TOML_DEPTH,
    TOML_KEY_PARTS,
    TOML_WORD,
    Refusable,
    check_depth,
    read_json,
    read_toml,
)

_SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.attacks("B2")
@given(value=_VALUES, limit=st.integers(0, 6), ascii_=st.booleans())
def test_depth_is_counted_exactly(value: object, limit: int, ascii_: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_).encode(errors="surrogatepass")
    if depth(value) <= limit:
        check_depth(data, limit)
    else:
        with pytest.raises(Refusable):
            check_depth(data, limit)


@given(value=_VALUES)
def test_json_is_read_as_json_is(value: object) -> None:
    assert read_json(json.dumps(value).encode(), limit=10**6) == value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"[" * 33 + b"]" * 33, "deeper", marks=pytest.mark.attacks("B2")),
        pytest.param(b"[" * 10**6, "deeper", marks=pytest.mark.attacks("B2")),
        (b"][", "brackets"),
        (b'["[[[[', "brackets"),
        (b"[]]", "brackets"),
        (b"1" * 5000, "number"),
        (b"NaN", "NaN"),
        (b"\xff", "UTF-8"),
        (b"", "not JSON"),
        pytest.param(b" " * 1001, "longer than 1000", marks=pytest.mark.attacks("B1")),
    ],
)
def test_json_that_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Refusable, match=reason):
        read_json(data, limit=10**7 if len(data) != 1001 else 1000)


def test_json_within_the_limits() -> None:
    deep = b"[" * JSON_DEPTH + b"]" * JSON_DEPTH
    assert read_json(deep, limit=64)
    assert read_json(b'{"[[[": "\\"{{{", "a": [1.5, "\\\\"]}', limit=64) == {"[[[": '"{{{', "a": [1.5, "\\"]}


def test_depth_is_no_work() -> None:
    start = time.process_time()
    for data in (b"[" * 10**6 + b"]" * 10**6, b'["' + b"[" * 10**6 + b'"]', b"[" + b"[]," * 10**6 + b"[]]"):
        with suppress(Refusable):
            check_depth(data)
    assert time.process_time() - start < 2


@pytest.mark.attacks("B2")
@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * (TOML_DEPTH + 1),
        "a = " + "{a=" * (TOML_DEPTH + 1),
        ".".join(["a"] * (TOML_KEY_PARTS + 1)) + " = 1",
        "[" + " . ".join(['"a"'] * (TOML_KEY_PARTS + 1)) + "]",
        "a = " + "9" * (TOML_WORD + 1),
        "a = " + "9" * (TOML_WORD - 1) + "\nb = ",
        'a = "',
        '"""\\' * 100,
    ],
)
def test_toml_that_is_refused(text: str) -> None:
    with pytest.raises(Refusable):
        read_toml(text.encode())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a = " + "[" * TOML_DEPTH + "]" * TOML_DEPTH, None),
        ('a = "' + "[" * 100 + '" # ' + "[" * 100, "[" * 100),
        ("a = '" + "[.{" * 100 + "'", "[.{" * 100),
        ('a = """\n' + '["\\""' * 100 + '"""', '["""' * 100),
        ("a = '''" + "[''" * 100 + "'''", "[''" * 100),
        ('a = "' + "a." * 100 + '"', "a." * 100),
        ("a = 1.5\n" + "\n".join(f"b.c{i}.d = 1.5" for i in range(100)), 1.5),
        ('a = "' + "x" * 5000 + '"', "x" * 5000),
    ],
)
def test_toml_that_is_read(text: str, value: object) -> None:
    read = read_toml(text.encode())["a"]
    assert value is None or read == value


@pytest.mark.attacks("B4")
@pytest.mark.parametrize("span", [Span(start=2**32 - 1, end=2**32 - 1), Span(start=9, end=2**62), Span(start=5, end=1)])
def test_a_position_outside_the_text_is_held_inside(span: Span) -> None:
    assert len(underline("SELECT 1\nFROM t", span)) < 100


@pytest.mark.attacks("B5")
@pytest.mark.parametrize("text", ["\x1b[2J", "\x07", "\u202e", "\x9b31m"])
def test_nothing_that_is_shown_plays_tricks(text: str) -> None:
    assert RemoteError("INSITU-NODE-QUIET", text, text).line().isprintable()
    assert str(ConfigInvalid("INSITU-CONFIG-INVALID", path=text, reason=text)).isprintable()
