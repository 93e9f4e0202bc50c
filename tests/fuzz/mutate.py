"""What is done to valid messages: cut, flipped, spliced, repeated, nested deeper, with numbers and characters that hurt.

Every act is a function of the bytes and a generator, so that hypothesis, atheris and a stored seed give the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

_PIECES: tuple[bytes, ...] = (
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    "\u202e\u0000é\U0001f600".encode(),
    b"\\ud800",
    b"\x1b[2J",
    b"\r\n",
    b"null",
    b"true",
    b"NaN",
    b"Infinity",
    b"1e999",
    b"-0.0",
    b"9" * 400,
    b"9" * 5000,
    b"-" + b"9" * 20,
    str(2**63).encode(),
    str(2**64).encode(),
    b"1e999999999",
    b"0x" + b"f" * 300,
    b"1/0",
    b'"',
    b"'",
    b'"""',
    b"--",
    b"/*",
    b"$$",
    b"{{",
    b"..",
    b"../" * 20,
    b"/etc/passwd",
    b"a" * 300,
    b"%s%n{0}{x!r}",
    b'{"a":1,"a":2}',
    b"2020-13-45",
    b"0001-01-01T00:00:00+23:59",
    b"99:99",
    b"Europe",
    b"eyJhbGciOiJub25lIn0",
    b"-----BEGIN CERTIFICATE-----",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x7f",
    b"\x0b\x0b\x0b\x0b",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
)
_OPENING = (b"[", b"{", b'{"a":', b"(", b"CASE WHEN ", b"NOT ", b"-", b"[[", b"SELECT (", b"\x0b", b"\x12\x7f")
_NUMBER = re.compile(rb"-?\d+")
Act = Callable[[bytes, random.Random], bytes]


def _place(data: bytes, draw: random.Random) -> int:
    return draw.randrange(len(data) + 1)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: _place(data, draw)]


def _drop(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + data[at + draw.choice((1, 2, 8, 64)) :]


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return data
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _put(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.choice(_PIECES) + data[at + draw.choice((0, 0, 1, 4)) :]


def _repeat(data: bytes, draw: random.Random) -> bytes:
    one, other = sorted((_place(data, draw), _place(data, draw)))
    piece = data[one : min(other, one + 200)]
    return data[:other] + piece * draw.choice((1, 2, 30)) + data[other:]


def _move(data: bytes, draw: random.Random) -> bytes:
    one, other = sorted((_place(data, draw), _place(data, draw)))
    at = _place(data, draw)
    return data[:at] + data[one:other] + data[at:]


def _deepen(data: bytes, draw: random.Random) -> bytes:
    at = _place(data, draw)
    return data[:at] + draw.choice(_OPENING) * draw.choice((3, 50, 400)) + data[at:]


def _number(data: bytes, draw: random.Random) -> bytes:
    """Another number where one stands."""
    found = list(_NUMBER.finditer(data))
    if not found:
        return data
    one = draw.choice(found)
    other = draw.choice(
        (b"0", b"-1", b"1.5", str(2**63).encode(), b"9" * 30, b"9" * 4400, b"1e400", b"true", b"0.1e-320")
    )
    return data[: one.start()] + other + data[one.end() :]


def _word(data: bytes, draw: random.Random) -> bytes:
    """A word of the message in the place of another."""
    found = list(re.finditer(rb"[A-Za-z_]+", data))
    if len(found) < 2:
        return data
    one, other = draw.choice(found), draw.choice(found)
    return data[: one.start()] + other[0] + data[one.end() :]


ACTS: Sequence[Act] = (_cut, _drop, _flip, _put, _put, _repeat, _move, _deepen, _number, _word)


def mutant(seeds: Sequence[bytes], number: int, longest: int) -> bytes:
    """One of the seeds after a few acts, all chosen by ``number``."""
    draw = random.Random(number)
    data = draw.choice(seeds)
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3, 5))):
        data = draw.choice(ACTS)(data, draw)
    return data[:longest]
