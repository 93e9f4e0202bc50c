"""Regular expressions that a few LIKE patterns say as well: words, alternatives, ``.``, ``.*``, anchors, short classes.

Engines have regular expressions of their own, which differ, and some of which take as long as a text wants them to: so
none reaches a database.
"""

from __future__ import annotations

from sqlglot import exp

from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes.allow import Allow
from insitu_privacy.passes.spans import forbidden

_ESCAPE = "!"
_START, _END = "\x02", "\x03"
_PATTERNS_LIMIT = 64
_LENGTH_LIMIT = 500
_SPECIAL = set("*+?{}[]()|\\^$.")
_HINT = "Use words, alternatives, '.', '.*', ^ and $ in a literal, or LIKE."


class _Unlisted(Exception):
    """Something that no LIKE pattern says."""


def matches(allow: Allow, node: exp.Expr) -> Expression:
    """``~``, ``REGEXP_LIKE``, ``REGEXP_MATCHES`` and ``SIMILAR TO``."""
    value = allow.require(allow.expression(node.this), ("text",), node.this)
    written, flag = node.expression, node.args.get("flag")
    literal = isinstance(written, (exp.RawString, exp.Literal)) and (
        isinstance(written, exp.RawString) or written.is_string
    )
    if not literal or (flag is not None and not (isinstance(flag, exp.Literal) and flag.name in ("i", "c"))):
        raise forbidden(node, "this regular expression", _HINT)
    op = Op.ILIKE if isinstance(node, exp.RegexpILike) or (flag is not None and flag.name == "i") else Op.LIKE
    try:
        patterns = _Reader(written.name, similar=isinstance(node, exp.SimilarTo)).patterns()
    except _Unlisted:
        raise forbidden(node, "this regular expression", _HINT) from None
    terms = [call(op, value, *_pattern(pattern)) for pattern in patterns]
    return terms[0] if len(terms) == 1 else Call(Op.OR, tuple(terms))


def _pattern(text: str) -> tuple[Literal, ...]:
    pattern = Literal("text", text)
    return (pattern, Literal("text", _ESCAPE)) if _ESCAPE in text else (pattern,)


def _quoted(sign: str) -> str:
    return _ESCAPE + sign if sign in ("%", "_", _ESCAPE) else sign


class _Reader:
    """Reads a regular expression from the left; ``similar``: with the wildcards of LIKE, and from end to end."""

    def __init__(self, text: str, *, similar: bool) -> None:
        if len(text) > _LENGTH_LIMIT or "\0" in text or _START in text or _END in text:
            raise _Unlisted
        self._text, self._at, self._similar = text, 0, similar

    def patterns(self) -> list[str]:
        """The LIKE patterns, of which one fits where the whole expression does."""
        found = self._alternatives()
        if self._at < len(self._text):
            raise _Unlisted
        return list(dict.fromkeys(self._anchored(one) for one in found))

    def _anchored(self, text: str) -> str:
        if not self._similar:
            text = text[1:] if text.startswith(_START) else f"%{text}"
            text = text[:-1] if text.endswith(_END) else f"{text}%"
        if _START in text or _END in text:
            raise _Unlisted
        return text

    def _next(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _alternatives(self) -> list[str]:
        found = self._sequence()
        while self._next() == "|":
            self._at += 1
            found += self._sequence()
        return found

    def _sequence(self) -> list[str]:
        found = [""]
        while self._next() not in ("", "|", ")"):
            ends = self._repeated(self._atom())
            found = [start + end for start in found for end in ends]
            if len(found) > _PATTERNS_LIMIT:
                raise _Unlisted
        return found

    def _repeated(self, atom: list[str]) -> list[str]:
        sign = self._next()
        if sign not in ("*", "+", "?", "{"):
            return atom
        self._at += 1
        if sign == "?" and self._next() not in ("?", "+", "*") and not {_START, _END} & set("".join(atom)):
            return [*atom, ""]
        if atom != ["_"] or self._similar or sign not in ("*", "+") or self._next() in ("?", "+", "*"):
            raise _Unlisted
        return ["%"] if sign == "*" else ["_%"]

    def _atom(self) -> list[str]:
        sign = self._text[self._at]
        self._at += 1
        if sign == "(":
            return self._group()
        if sign == "[":
            return self._class()
        if sign == "\\":
            return [self._escaped()]
        if self._similar and sign in "%_":
            return [sign]
        if not self._similar and sign in ".^$":
            return [{".": "_", "^": _START, "$": _END}[sign]]
        if sign in _SPECIAL and not (self._similar and sign in ".^$"):
            raise _Unlisted
        return [_quoted(sign)]

    def _group(self) -> list[str]:
        if self._text.startswith("?:", self._at):
            self._at += 2
        found = self._alternatives()
        if self._next() != ")":
            raise _Unlisted
        self._at += 1
        return found

    def _escaped(self) -> str:
        sign = self._next()
        if not sign or sign.isalnum() or sign == "\\" or self._similar or not sign.isascii():
            raise _Unlisted
        self._at += 1
        return _quoted(sign)

    def _class(self) -> list[str]:
        """``[01]`` and ``[a-f]``: one pattern for each sign."""
        end = self._text.find("]", self._at)
        inside = self._text[self._at : end] if end > self._at else ""
        if not inside or any(sign in "^[\\" for sign in inside):
            raise _Unlisted
        self._at = end + 1
        found: list[str] = []
        while inside:
            if len(inside) > 2 and inside[1] == "-":
                first, last = inside[0], inside[2]
                if not (first.isascii() and last.isascii() and first.isalnum() and last.isalnum() and first <= last):
                    raise _Unlisted
                if (first.isdigit(), first.isupper()) != (last.isdigit(), last.isupper()):
                    raise _Unlisted
                found += [_quoted(chr(code)) for code in range(ord(first), ord(last) + 1)]
                inside = inside[3:]
            else:
                found.append(_quoted(inside[0]))
                inside = inside[1:]
        return found
