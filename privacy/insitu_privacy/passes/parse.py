"""Pass 1: SQL text to one syntax tree.

Size and nesting are limited before the parser runs, for the text comes from strangers. The parser is sqlglot's, in
the researcher's dialect. What is not here: any judgement about what the query asks.
"""

from __future__ import annotations

import logging

from sqlglot import exp
from sqlglot.dialects import DIALECT_MODULE_NAMES
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokenizer_core import Token, TokenType

from insitu_privacy.errors import Span, SqlRefused
from insitu_privacy.passes.nodes import children
from insitu_privacy.passes.patience import TooMuch, patient
from insitu_privacy.passes.spans import refusal

SQL_BYTES = 256 * 1024
SQL_DEPTH = 200
SQL_WORDS = 4_000
"""Names, keywords and signs; lists of literals do not count. Binding names takes time quadratic in it."""

logging.getLogger("sqlglot").setLevel(logging.CRITICAL)  # its warnings quote the SQL, which may not reach a node's log

Dialect.get("duckdb")  # the usual one is loaded before the first query comes, not with it

_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.L_BRACE, TokenType.CASE}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET, TokenType.R_BRACE, TokenType.END}
_TREE_DEPTH = 3 * SQL_DEPTH + 50
"""What nesting within ``SQL_DEPTH`` makes at most: CASE, WHEN and parenthesis are a level each."""
_LISTED = {TokenType.NUMBER, TokenType.STRING, TokenType.COMMA}
_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError)
"""What sqlglot's parsers raise by mistake: CONNECT BY in the wrong place is a KeyError."""
_PREFIX = {TokenType.NOT, TokenType.DASH, TokenType.PLUS, TokenType.TILDE}


def parse(sql: str, dialect: str) -> exp.Query:
    """The one SELECT, or set operation of SELECTs, of a text.

    Raises SqlRefused: unknown dialect, too long, too deep, a syntax error, several statements, not a query.
    """
    try:
        size = len(sql.encode())
    except UnicodeEncodeError:
        raise SqlRefused("INSITU-SQL-SYNTAX", reason="it is not valid Unicode text") from None
    if "\0" in sql:
        raise SqlRefused("INSITU-SQL-SYNTAX", reason="it holds a NUL character")
    if size > SQL_BYTES:
        raise SqlRefused("INSITU-SQL-TOO-LONG", limit=f"{SQL_BYTES} bytes")
    reader = _dialect(dialect)
    try:
        tokens = reader.tokenize(sql)
        _check_size(tokens)
        _check_depth(tokens)
        parsed = patient(reader.parser(), len(tokens)).parse(tokens, sql)
        statements = [tree for tree in parsed if tree is not None and not isinstance(tree, exp.Semicolon)]
    except (ParseError, TokenError) as error:
        raise _syntax_error(error, sql) from None
    except _FAULTS:
        raise SqlRefused("INSITU-SQL-SYNTAX", reason="the parser of this dialect fails at it") from None
    except TooMuch:
        raise SqlRefused(
            "INSITU-SQL-SYNTAX", reason="what is nested in it takes far more work than its length"
        ) from None
    except RecursionError:
        raise SqlRefused("INSITU-SQL-TOO-DEEP", limit=SQL_DEPTH) from None
    return _only_query(statements)


def _dialect(name: str) -> Dialect:
    """The dialect of a name, loaded alone: sqlglot's registry would load all, which takes a fifth of a second."""
    if name.lower() not in DIALECT_MODULE_NAMES:
        raise SqlRefused("INSITU-SQL-UNKNOWN-DIALECT", name=name, known=", ".join(sorted(DIALECT_MODULE_NAMES)))
    return Dialect.get_or_raise(name.lower())


def _check_size(tokens: list[Token]) -> None:
    if sum(token.token_type not in _LISTED for token in tokens) > SQL_WORDS:
        raise SqlRefused("INSITU-SQL-TOO-LONG", limit=f"{SQL_WORDS} words")


def _check_depth(tokens: list[Token]) -> None:
    depth = run = 0
    for token in tokens:
        depth += (token.token_type in _OPENING) - (token.token_type in _CLOSING)
        run = run + 1 if token.token_type in _PREFIX else 0
        if max(depth, run) > SQL_DEPTH:
            span = Span(start=token.start, end=token.end + 1)
            raise SqlRefused("INSITU-SQL-TOO-DEEP", span=span, limit=SQL_DEPTH)


def _syntax_error(error: Exception, sql: str) -> SqlRefused:
    details = getattr(error, "errors", None)
    if not details:
        return SqlRefused("INSITU-SQL-SYNTAX", reason="it has an unreadable token", span=None)
    first = details[0]
    lines = sql.split("\n")
    line = min(max(int(first.get("line") or 1), 1), len(lines))
    highlight = str(first.get("highlight") or "")
    # sqlglot gives the column where the token ends
    end = sum(len(text) + 1 for text in lines[: line - 1]) + int(first.get("col") or 1)
    start = max(0, end - max(1, len(highlight)))
    description = str(first.get("description") or "unexpected text")
    unfinished = "SENTINEL" in description or "<class" in description
    reason = "unexpected end" if unfinished else description.lower().rstrip(".")
    return SqlRefused("INSITU-SQL-SYNTAX", span=Span(start=start, end=max(end, start + 1)), reason=reason)


def _check_tree(tree: exp.Expr) -> None:
    """The tree's depth, without recursion. Long lists of AND and OR are not deep."""
    stack = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        if depth > _TREE_DEPTH:
            raise refusal("INSITU-SQL-TOO-DEEP", node, limit=SQL_DEPTH)
        connected = isinstance(node, exp.Connector)
        stack.extend(
            (child, depth + (not (connected and isinstance(child, exp.Connector)))) for child in children(node)
        )


def _only_query(statements: list[exp.Expr]) -> exp.Query:
    if len(statements) != 1:
        raise SqlRefused("INSITU-SQL-NOT-ONE", count=len(statements))
    tree = statements[0]
    while isinstance(tree, exp.Subquery) and not tree.alias:
        tree = tree.this
    if isinstance(tree, (exp.Select, exp.SetOperation)):
        _check_tree(tree)
        return tree
    kind = tree.key.upper().replace("_", " ")
    raise refusal("INSITU-SQL-NOT-SELECT", tree, kind=kind)
