"""Where a syntax node stands in the researcher's SQL, and errors that say so."""

from __future__ import annotations

from sqlglot import exp

from insitu_privacy.errors import Span, SqlRefused


def span_of(node: exp.Expr | None) -> Span | None:
    """The characters that a node was parsed from, as far as its leaves know them; None where none does."""
    if node is None:
        return None
    marks = [leaf.meta for leaf in node.walk() if "start" in leaf.meta]
    if not marks:
        return span_of(node.parent) if node.parent is not None else None
    return Span(start=min(mark["start"] for mark in marks), end=max(mark["end"] for mark in marks) + 1)


def balanced(sql: str, span: Span) -> Span:
    """The span with the closing parentheses of what it opened: syntax nodes do not know where those stand."""
    depth, end = sql.count("(", span.start, span.end) - sql.count(")", span.start, span.end), span.end
    while depth > 0 and end < len(sql):
        depth += (sql[end] == "(") - (sql[end] == ")")
        end += 1
    return Span(start=span.start, end=end) if depth == 0 else span


def refusal(code: str, node: exp.Expr | None, **fields: object) -> SqlRefused:
    """A refusal that underlines ``node``."""
    return SqlRefused(code, span=span_of(node), **fields)


def forbidden(node: exp.Expr, name: str, hint: str) -> SqlRefused:
    """A construct that the language does not take, with what to write instead."""
    return refusal("INSITU-SQL-FORBIDDEN-CONSTRUCT", node, name=name, hint=hint)
