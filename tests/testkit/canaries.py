"""Looks for values in bytes, however they may be written there: what must not leave a node, in no encoding.

``found`` reads bytes as they stand, and what is packed in them: base64 (as in every JOSE token), hexadecimal, gzip and
zlib, to three layers. Numbers and dates are also looked for in the binary forms of protobuf, Arrow and databases, and
decimals as the integers that they are scaled to. What is not here: lossy forms, and numbers of a few digits, which come
about by chance.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import struct
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping
from datetime import date

Canary = str | int | float | date
_EPOCH = date(1970, 1, 1)
_LAYERS = 3
_MOST = 2**24
_WORDS = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){8,}")
_PACKED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")


def forms(canary: Canary) -> Mapping[str, bytes]:
    """The ways to write a value that are looked for, by name."""
    text = str(canary)
    made = {
        "utf-8": text.encode(),
        "latin-1": text.encode("latin-1", "ignore"),
        "utf-16-le": text.encode("utf-16-le"),
        "utf-16-be": text.encode("utf-16-be"),
        "reversed": text[::-1].encode(),
        "json": json.dumps(text)[1:-1].encode(),
        "url": urllib.parse.quote(text, safe="").encode(),
        "lower": text.lower().encode(),
    }
    if isinstance(canary, date):
        days = (canary - _EPOCH).days
        made |= {"compact": f"{canary:%Y%m%d}".encode(), "day first": f"{canary:%d/%m/%Y}".encode()}
        made |= {f"days {order}": struct.pack(f"{order}i", days) for order in "<>"}
        made |= {f"microseconds {order}": struct.pack(f"{order}q", days * 86_400_000_000) for order in "<>"}
    if isinstance(canary, float):
        whole, _, rest = text.partition(".")
        made |= {"digits": (whole + rest).encode()}  # as a whole multiple of a granularity
        made |= {f"digits {order}": struct.pack(f"{order}q", int(whole + rest)) for order in "<>"}
        made |= {"digits varint": _varint(int(whole + rest)), "digits zigzag": _varint(int(whole + rest) * 2)}
    if isinstance(canary, int):
        made |= {f"int64 {order}": struct.pack(f"{order}q", canary) for order in "<>"}
        made |= {"varint": _varint(canary), "zigzag": _varint(canary * 2)}
    if isinstance(canary, (int, float)):
        made |= {f"double {order}": struct.pack(f"{order}d", canary) for order in "<>"}
    return made


def found(content: bytes, canaries: Mapping[str, Canary]) -> set[tuple[str, str]]:
    """(name, form) of every canary that stands in the bytes, at any layer."""
    wanted = [(name, form, text) for name, one in canaries.items() for form, text in forms(one).items()]
    return {(name, form) for layer in _layers(content, _LAYERS) for name, form, text in wanted if text in layer}


def _layers(content: bytes, depth: int) -> Iterator[bytes]:
    yield content
    if depth:
        for inner in _unpacked(content):
            yield from _layers(inner, depth - 1)


def _unpacked(content: bytes) -> Iterator[bytes]:
    for match in _WORDS.finditer(content):
        word = match[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        for start in range(4):  # wherever in a longer word it begins
            part = word[start:]
            yield base64.b64decode(part[: len(part) - (len(part) % 4 == 1)] + b"===")
    for match in _HEX.finditer(content):
        yield binascii.unhexlify(match[0])
    for match in _PACKED.finditer(content):
        try:
            yield zlib.decompressobj(47).decompress(content[match.start() :], _MOST)
        except zlib.error:
            continue


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])
