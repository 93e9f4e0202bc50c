"""The allowlist's functions of text. Positions, lengths and what is looked for are literals."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlglot import exp

from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes.allow import Allow, whole_number
from insitu_privacy.passes.spans import forbidden

Rule = Callable[[Allow, exp.Expr], Expression]
_LENGTH_LIMIT = 10_000
_PADDED_LIMIT = 1_000
_REPLACED_LIMIT = 1_000
"""Characters of a text in which something is replaced by something longer: text cannot grow on and on."""
_PART_LIMIT = 100
_EMPTY = Literal("text", "")
_TRIMS: Mapping[str, Op] = {"LEADING": Op.LTRIM, "TRAILING": Op.RTRIM}


def _value(allow: Allow, node: exp.Expr) -> Expression:
    return allow.require(allow.expression(node), ("text",), node)


def _written(allow: Allow, node: exp.Expr) -> Expression:
    """A part of a concatenation: whole numbers stand as their digits, days as ISO 8601 has them."""
    from insitu_privacy.passes.allow_functions import as_text

    value = allow.expression(node)
    plain = value == _NULL or allow.type_of(value) == "boolean"  # engines write t, true or 1
    written = value if plain else as_text(allow, value) or value
    return allow.require(written, ("text",), node)


_NULL = Literal("integer", None)


def _literal(node: exp.Expr | None, around: exp.Expr, least: int = 1) -> str:
    plain = isinstance(node, exp.Literal) and node.is_string and "\0" not in node.name
    if isinstance(node, exp.Literal) and plain and least <= len(node.name) <= _PART_LIMIT:
        return str(node.name)
    hint = f"Write a literal text of {least} to {_PART_LIMIT} characters."
    raise forbidden(around if node is None else node, "this argument", hint)


def _number(value: int) -> Literal:
    return Literal("integer", value)


def _text(op: Op) -> Rule:
    return lambda allow, node: call(op, _value(allow, node.this))


def _substring(allow: Allow, node: exp.Expr) -> Expression:
    value = _value(allow, node.this)
    if isinstance(node, exp.Left):
        start, length = 1, whole_number(node.expression, node, 0, _LENGTH_LIMIT)
    else:
        start = whole_number(node.args.get("start"), node, 1, _LENGTH_LIMIT)
        length = whole_number(node.args["length"], node, 0, _LENGTH_LIMIT) if node.args.get("length") else _LENGTH_LIMIT
    return call(Op.SUBSTRING, value, _number(start), _number(length))


def _right(allow: Allow, node: exp.Expr) -> Expression:
    return call(Op.RIGHT, _value(allow, node.this), _number(whole_number(node.expression, node, 0, _LENGTH_LIMIT)))


def _concat(allow: Allow, node: exp.Expr) -> Expression:
    parts = node.expressions if isinstance(node, exp.Concat) else [node.this, node.expression]
    lowered = [_written(allow, part) for part in parts]
    if isinstance(node, exp.Concat) and node.args.get("coalesce"):
        lowered = [call(Op.COALESCE, item, _EMPTY) for item in lowered]
    return Call(Op.CONCAT, tuple(lowered))


def _concat_with(allow: Allow, node: exp.Expr) -> Expression:
    """Each part that is not NULL after its separator, and the first separator cut off."""
    first, *parts = node.expressions
    separator = _literal(first, node, least=0)
    lowered = [
        call(Op.COALESCE, call(Op.CONCAT, Literal("text", separator), _written(allow, part)), _EMPTY) for part in parts
    ]
    return call(Op.SUBSTRING, Call(Op.CONCAT, tuple(lowered)), _number(len(separator) + 1), _number(_LENGTH_LIMIT))


def _trim(allow: Allow, node: exp.Expr) -> Expression:
    if node.expression and _literal(node.expression, node) != " ":
        raise forbidden(node.expression, "trimming of other signs than spaces", "Use REPLACE.")
    return call(_TRIMS.get(str(node.args.get("position") or "").upper(), Op.TRIM), _value(allow, node.this))


def _replace(allow: Allow, node: exp.Expr) -> Expression:
    value, old = _value(allow, node.this), _literal(node.expression, node)
    new = _literal(node.args["replacement"], node, least=0) if node.args.get("replacement") else ""
    # whatever the lengths: UPPER makes two letters of one in some languages, and REPLACE one of two again
    value = call(Op.SUBSTRING, value, _number(1), _number(_REPLACED_LIMIT))
    return call(Op.REPLACE, value, Literal("text", old), Literal("text", new))


def _position(allow: Allow, node: exp.Expr) -> Expression:
    return call(Op.POSITION, _value(allow, node.this), Literal("text", _literal(node.args["substr"], node)))


def _pad(allow: Allow, node: exp.Expr) -> Expression:
    length = whole_number(node.expression, node, 0, _PADDED_LIMIT)
    filling = _literal(node.args["fill_pattern"], node) if node.args.get("fill_pattern") else " "
    op = Op.LPAD if node.args.get("is_left") else Op.RPAD
    return call(op, _value(allow, node.this), _number(length), Literal("text", filling))


def _split_part(allow: Allow, node: exp.Expr) -> Expression:
    separator = _literal(node.args.get("delimiter"), node)
    number = whole_number(node.args.get("part_index"), node, 1, _LENGTH_LIMIT)
    return call(Op.SPLIT_PART, _value(allow, node.this), Literal("text", separator), _number(number))


def _starts_with(allow: Allow, node: exp.Expr) -> Expression:
    start = _literal(node.expression, node, least=0)
    cut = call(Op.SUBSTRING, _value(allow, node.this), _number(1), _number(len(start)))
    return call(Op.EQ, cut, Literal("text", start))


def _ends_with(allow: Allow, node: exp.Expr) -> Expression:
    end = _literal(node.expression, node, least=0)
    return call(Op.EQ, call(Op.RIGHT, _value(allow, node.this), _number(len(end))), Literal("text", end))


def _contains(allow: Allow, node: exp.Expr) -> Expression:
    part = Literal("text", _literal(node.expression, node))
    return call(Op.GT, call(Op.POSITION, _value(allow, node.this), part), _number(0))


RULES: Mapping[type[exp.Expr], Rule] = {
    exp.Lower: _text(Op.LOWER),
    exp.Upper: _text(Op.UPPER),
    exp.Length: _text(Op.LENGTH),
    exp.Substring: _substring,
    exp.Left: _substring,
    exp.Right: _right,
    exp.DPipe: _concat,
    exp.Concat: _concat,
    exp.ConcatWs: _concat_with,
    exp.Trim: _trim,
    exp.StrPosition: _position,
    exp.SplitPart: _split_part,
    exp.StartsWith: _starts_with,
    exp.EndsWith: _ends_with,
    exp.Contains: _contains,
}

RAW: Mapping[type[exp.Expr], Rule] = {exp.Replace: _replace, exp.Pad: _pad}
