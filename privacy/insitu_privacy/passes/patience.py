"""Bounds on what sqlglot's parser does with a text: some short texts make its work double with each level (B3).

It tries names of types first as types, then as calls: ``BIGINT(BIGINT(...`` is read twice as often at each level. It
writes some functions out in terms of others, with an argument copied: ``DIV0(DIV0(...`` makes a tree twice as large at
each. So both are counted, and the parser is ended. What is not here: limits of the text itself (``parse``).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypeVar

from sqlglot import exp
from sqlglot.parser import Parser

E = TypeVar("E", bound=exp.Expr)

REREAD = 20
"""How often the parser may read the text again, in all. Queries that people write take a quarter of once."""
_REREAD_ANYWAY = 1_000
NODES = 8
"""Nodes of one function with all in it, to a word of the text. Two where nothing is copied."""
_NODES_ANYWAY = 1_000
LOOKED_AT = 20
"""Nodes of all functions, those in functions within again, to a word: what counting them may cost."""
_LOOKED_AT_ANYWAY = 50_000


class TooMuch(Exception):
    """No ParseError: the parser would take that for one of its attempts that failed."""


def patient(parser: Parser, tokens: int) -> Parser:
    """The parser, which raises TooMuch where it does far more than a text of so many words asks for."""
    _bound_rereading(parser, REREAD * tokens + _REREAD_ANYWAY)
    _bound_functions(parser, NODES * tokens + _NODES_ANYWAY, LOOKED_AT * tokens + _LOOKED_AT_ANYWAY)
    return parser


def _bound_rereading(parser: Parser, left: int) -> None:
    retreat = parser._retreat  # noqa: SLF001  there is no other place

    def retreating(index: int) -> None:
        nonlocal left
        left -= max(0, parser._index - index)  # noqa: SLF001
        if left < 0:
            raise TooMuch
        retreat(index)

    parser._retreat = retreating  # type: ignore[method-assign]  # noqa: SLF001


def _bound_functions(parser: Parser, most: int, left: int) -> None:
    validate = parser.validate_expression

    def validating(expression: E, args: Sequence[object] | None = None) -> E:
        nonlocal left
        if args is not None:  # a function that was just built
            size = sum(1 for _ in islice(expression.walk(), most + 1))
            left -= size
            if size > most or left < 0:
                raise TooMuch
        return validate(expression, args)  # type: ignore[arg-type]

    parser.validate_expression = validating  # type: ignore[method-assign]
