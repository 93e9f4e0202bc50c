"""How text of strangers is read: JSON and TOML within a size and a depth that are checked before a parser sees them.

The limits stand here with their reasons; sizes of signed objects and of messages stand with these (``jose``,
``messages``), those of SQL in ``passes.parse``. Numbered as in the threat model:

  B1  what is longer than its kind may be is refused before it is parsed
  B2  what is nested deeper than its kind ever is is refused before it is parsed: no parser's recursion is relied on
  B3  a text that unpacks into far more than it is long is refused by what it claims to hold, before it is unpacked

No other module reads JSON or TOML of others: ``make check`` sees to that (B6). Raises ``Refusable`` with a reason that
never repeats the text. Not here: what a document must say.
"""

from __future__ import annotations

import json
import re
import tomllib  # noqa: TID251  the one place
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

JSON_DEPTH = 32
"""Lists and objects inside one another. What insitu writes has eight at most."""
TOML_BYTES = 4 * 2**20
"""Of a dataset file: SNDS with all its tables and code lists takes a twentieth."""
TOML_DEPTH = 16
"""Lists and inline tables inside one another. A dataset has three."""
TOML_KEY_PARTS = 16
"""Parts of a dotted key. A dataset has four; reading one takes time quadratic in them."""
TOML_WORD = 1_000
"""Characters of a bare name or a number: reading one takes a hundred times its length in memory."""
PUBLIC_CELLS = 20_000_000
"""Cells of a dataset's public file: a Parquet file of a kilobyte can claim billions."""
PUBLIC_BYTES = 2**30
"""What the columns of a Parquet file may take once they are unpacked."""

_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*+"?')

_TOML_PIECE = re.compile(
    r'"""(?:[^\\"]|\\.|"(?!""))*+(?:"{3,5}|\Z)'  # texts and comments, so that what stands in them does not count
    r"|'''(?:[^']|'(?!''))*+(?:'{3,5}|\Z)"
    r'|"(?:[^"\\\n]|\\.)*+(?:"|\n|\Z)'
    r"|'[^'\n]*+(?:'|\n|\Z)"
    r"|\#[^\n]*+"
    r"|[\[\]{}.=,\n]"
    r"|[\w+-]++",
    re.DOTALL,
)


class Refusable(ValueError):
    """A text that is not read. ``args[0]`` says why, without repeating it."""


def check_size(data: bytes | str, limit: int) -> None:
    """B1. Raises Refusable."""
    if len(data) > limit:
        raise Refusable(f"it is longer than {limit} bytes")


def read_json(
    data: bytes,
    *,
    limit: int,
    pairs: Callable[[list[tuple[str, object]]], object] | None = None,
    constant: Callable[[str], object] | None = None,
) -> Any:
    """The JSON value that UTF-8 bytes write. ``pairs`` and ``constant`` are hooks of ``json.loads``.

    Raises Refusable (B1, B2, not JSON), and what the hooks raise.
    """
    check_size(data, limit)
    check_depth(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Refusable("it is not UTF-8 text") from None
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant or _no_constant)  # noqa: TID251  the one place
    except json.JSONDecodeError:
        raise Refusable("it is not JSON") from None
    except RecursionError:
        raise Refusable("it is nested too deep") from None
    except ValueError as error:
        # a number of more digits than Python converts is a plain ValueError; those of the hooks are their own
        raise (error if type(error) is not ValueError else Refusable("it holds a number that is too long")) from None


def check_depth(data: bytes, limit: int = JSON_DEPTH) -> None:
    """B2: raises Refusable where JSON is nested deeper, or its brackets do not match. A few passes in C, no recursion.

    All but brackets and quotes goes, then texts, then the innermost pairs, once for each level.
    """
    left = (_ESCAPED.sub(b"", data) if b"\\" in data else data).translate(None, _NOT_STRUCTURE)
    left = _STRING.sub(b"", left.replace(b'""', b"")).translate(_AS_SQUARE)
    if b"[" * (limit + 1) not in left:
        for _ in range(limit):
            if not left:
                return
            left = left.replace(b"[]", b"")
    if left:
        raise Refusable(f"it is nested deeper than {limit}, or its brackets do not match")


def read_toml(data: bytes, *, limit: int = TOML_BYTES, number: Callable[[str], Any] = float) -> Mapping[str, Any]:
    """The TOML document that UTF-8 bytes write, numbers with a point by ``number``. Raises Refusable."""
    check_size(data, limit)
    try:
        text = data.decode()
        _check_toml(text)
        return tomllib.loads(text, parse_float=number)
    except UnicodeDecodeError:
        raise Refusable("it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise Refusable(f"it is not TOML: {error}") from None
    except RecursionError:
        raise Refusable("it is nested too deep") from None
    except Refusable:
        raise
    except (ValueError, ArithmeticError):
        raise Refusable("it is not TOML: a number is too long") from None


def _check_toml(text: str) -> None:
    """B2."""
    depth = parts = 0
    for found in _TOML_PIECE.finditer(text):
        piece = found[0]
        depth += (piece in "[{") - (piece in "]}") if len(piece) == 1 else 0
        if piece == ".":
            parts += 1
        elif piece in "[]{}=,\n":
            parts = 0
        if len(piece) > TOML_WORD and piece[0] not in "\"'#":
            raise Refusable(f"a name or a number has more than {TOML_WORD} characters")
        if depth > TOML_DEPTH:
            raise Refusable(f"it is nested deeper than {TOML_DEPTH}")
        if parts >= TOML_KEY_PARTS:
            raise Refusable(f"a key has more than {TOML_KEY_PARTS} parts")


def _no_constant(_: str) -> NoReturn:
    raise Refusable("NaN and infinities are not JSON")
