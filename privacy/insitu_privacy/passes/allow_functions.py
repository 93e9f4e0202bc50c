"""The allowlist's functions of numbers, and its casts; with those of moments and text, all its functions.

Dialects name the same function differently; sqlglot's parser gives them one syntax node each, which stands here once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.dataset import ColumnType
from insitu_privacy.domains import INTEGER_LIMIT
from insitu_privacy.expressions import Call, Expression, Literal, Op, call
from insitu_privacy.passes import allow_moments, allow_text
from insitu_privacy.passes.allow import Allow, as_timestamp, date_literal, whole_number
from insitu_privacy.passes.spans import forbidden, refusal

Rule = Callable[[Allow, exp.Expr], Expression]
_ROUND_DIGITS = 9
_POWER_LIMIT = 6
_EXPONENT_LIMIT = 52
_LENGTH_LIMIT = 10_000
_DUCKDB_DECIMAL = [18, 3]
"""What DuckDB reads DECIMAL as: too common to refuse a column without bounds for."""
_BUCKETS_LIMIT = 10_000


# -- numbers ---------------------------------------------------------------------------------------------------------


def _safe_division(allow: Allow, node: exp.Expr) -> Expression:
    return call(Op.DIV, *(_decimal(allow, part) for part in (node.this, node.expression)))


def _numeric(op: Op) -> Rule:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        (value,) = allow.numbers(node.this)
        if op in (Op.FLOOR, Op.CEIL) and allow.type_of(value) == "integer":
            return value
        return call(op, value)

    return rule


def _round(allow: Allow, node: exp.Expr) -> Expression:
    (value,) = allow.numbers(node.this)
    digits = node.args.get("decimals")
    places = None if digits is None else whole_number(digits, node, -_ROUND_DIGITS, _ROUND_DIGITS)
    if places is not None and places < 0:
        unit = Literal("decimal", Fraction(10**-places))
        made = _truncated if isinstance(node, exp.Trunc) else _rounded
        return call(Op.MUL, made(call(Op.DIV, value, unit)), unit)
    return _to_places(allow, value, _truncated if isinstance(node, exp.Trunc) else _rounded, places)


def _to_places(
    allow: Allow, value: Expression, made: Callable[[Expression], Expression], places: int | None
) -> Expression:
    if allow.type_of(value) == "integer":
        return value
    if places is None:
        return made(value)
    unit = Literal("decimal", Fraction(10**places))
    return call(Op.DIV, made(call(Op.MUL, value, unit)), unit)


def _rounded(value: Expression) -> Expression:
    return call(Op.ROUND, value)


def _truncated(value: Expression) -> Expression:
    down = call(Op.GE, value, Literal("decimal", Fraction(0)))
    return call(Op.CASE, down, call(Op.FLOOR, value), call(Op.CEIL, value))


def _sign(allow: Allow, node: exp.Expr) -> Expression:
    (value,) = allow.numbers(node.this)
    zero, one = Literal("integer", 0), Literal("integer", 1)
    signs = (
        call(Op.GT, value, zero),
        one,
        call(Op.LT, value, zero),
        Literal("integer", -1),
        call(Op.EQ, value, zero),
        zero,
    )
    return Call(Op.CASE, (*signs, Literal("integer", None)))


def _decimal(allow: Allow, node: exp.Expr) -> Expression:
    (value,) = allow.numbers(node)
    return call(Op.TO_DECIMAL, value) if allow.type_of(value) == "integer" else value


def _of_decimal(op: Op) -> Rule:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        if node.expression:  # of two arguments, as ATAN may have
            raise forbidden(node.expression, "this argument", "Leave it out.")
        return call(op, _decimal(allow, node.this))

    return rule


def _log(allow: Allow, node: exp.Expr) -> Expression:
    """LOG of one argument is to the base 10, where a dialect does not say otherwise."""
    if not node.expression:
        return call(Op.LOG10, _decimal(allow, node.this))
    if whole_number(node.this, node, 2, 10) not in (2, 10):
        raise forbidden(node, "this base", "Divide LN(x) by LN(base).")
    if node.this.name == "10":
        return call(Op.LOG10, _decimal(allow, node.expression))
    return call(Op.DIV, call(Op.LN, _decimal(allow, node.expression)), Literal("decimal", Fraction(math.log(2))))


def _power(allow: Allow, node: exp.Expr) -> Expression:
    value = _decimal(allow, node.this)
    listed = _power_of_literal(allow, value, node)
    if listed is not None:
        return listed
    if isinstance(node.expression, exp.Literal) and node.expression.name in ("0.5", ".5"):
        return call(Op.SQRT, value)
    exponent = whole_number(node.expression, node, 1, _POWER_LIMIT)
    return call(Op.POWER, value, Literal("integer", exponent))


def _power_of_literal(allow: Allow, value: Expression, node: exp.Expr) -> Expression | None:
    """POWER(2, x) where few whole numbers are known to be all that x holds: one branch for each."""
    base = _constant(allow, value)
    if base is None or isinstance(node.expression, exp.Literal):
        return None
    exponent = allow.expression(node.expression)
    facts = allow.facts_of(exponent)
    low, high = facts.interval or (None, None)
    if facts.type != "integer" or low is None or high is None or low < 0 or high > _EXPONENT_LIMIT:
        return None
    if abs(base) ** int(high) > INTEGER_LIMIT:
        return None
    branches: list[Expression] = []
    for power in range(int(low), int(high) + 1):
        branches += [call(Op.EQ, exponent, Literal("integer", power)), Literal("decimal", base**power)]
    return call(Op.CASE, *branches, Literal("decimal", None))


def _constant(allow: Allow, value: Expression) -> Fraction | None:
    low, high = allow.facts_of(value).interval or (None, None)
    return low if low is not None and low == high else None


def _scaled(factor: float) -> Rule:
    return lambda allow, node: call(Op.MUL, _decimal(allow, node.this), Literal("decimal", Fraction(factor)))


def _decode(allow: Allow, node: exp.Expr) -> Expression:
    """DECODE compares as IS NOT DISTINCT FROM does."""
    value, *pairs = node.expressions
    ifs = [
        exp.If(this=exp.NullSafeEQ(this=value, expression=pairs[place]), true=pairs[place + 1])
        for place in range(0, len(pairs) - 1, 2)
    ]
    return allow.expression(exp.Case(ifs=ifs, default=pairs[-1] if len(pairs) % 2 else None))


def _width_bucket(allow: Allow, node: exp.Expr) -> Expression:
    (value,) = allow.numbers(node.this)
    ends = [allow.expression(node.args[name]) for name in ("min_value", "max_value")]
    parts = whole_number(node.args.get("num_buckets"), node, 1, _BUCKETS_LIMIT)
    numbers = [
        Fraction(one.value) for one in ends if isinstance(one, Literal) and isinstance(one.value, (int, Fraction))
    ]
    if len(numbers) < len(ends) or numbers[0] >= numbers[1]:
        raise forbidden(node, "these bounds of buckets", "Write literal numbers, the lower one first.")
    low, high = (Literal("decimal", number) for number in numbers)
    return call(Op.BUCKET, value, low, high, Literal("integer", parts))


def _extreme(op: Op) -> Rule:
    def rule(allow: Allow, node: exp.Expr) -> Expression:
        return Call(op, tuple(allow.carried(node.this, *node.expressions)))

    return rule


def _nullif(allow: Allow, node: exp.Expr) -> Expression:
    return Call(Op.NULLIF, tuple(allow.carried(node.this, node.expression)))


# -- casts -----------------------------------------------------------------------------------------------------------

_T = exp.DataType.Type
_INTEGER_TYPES = {_T.INT, _T.BIGINT, _T.SMALLINT, _T.TINYINT}
_TIMESTAMP_TYPES = {_T.TIMESTAMP, _T.TIMESTAMPNTZ, _T.DATETIME, _T.DATETIME2}
_DECIMAL_TYPES = {_T.DOUBLE, _T.FLOAT, _T.DECIMAL}
_TEXT_TYPES = {_T.TEXT, _T.VARCHAR, _T.CHAR, _T.NVARCHAR}
_KINDS: Mapping[exp.DType, ColumnType] = {
    **dict.fromkeys(_INTEGER_TYPES, "integer"),
    **dict.fromkeys(_DECIMAL_TYPES, "decimal"),
    **dict.fromkeys(_TEXT_TYPES, "text"),
    **dict.fromkeys(_TIMESTAMP_TYPES, "timestamp"),
    _T.DATE: "date",
    _T.BOOLEAN: "boolean",
}
_DIRECT: Mapping[tuple[ColumnType, ColumnType], Op] = {
    ("integer", "decimal"): Op.TO_DECIMAL,
    ("integer", "text"): Op.TO_TEXT,
    ("boolean", "integer"): Op.TO_INTEGER,
    ("timestamp", "date"): Op.TO_DATE,
    ("text", "integer"): Op.TEXT_TO_INTEGER,
    ("text", "decimal"): Op.TEXT_TO_DECIMAL,
    ("text", "date"): Op.TEXT_TO_DATE,
    ("text", "timestamp"): Op.TEXT_TO_TIMESTAMP,
}


def _cast(allow: Allow, node: exp.Expr) -> Expression:
    value, to = allow.expression(node.this), node.args["to"]
    kind, target = allow.type_of(value), _KINDS.get(to.this)
    if target is None:
        raise _not_total(node, kind, "Use INTEGER, DOUBLE, VARCHAR, DATE, TIMESTAMP or BOOLEAN.")
    if kind == "text" and target in ("integer", "decimal"):
        number = allow_moments.formatted_number(allow, node.this)
        if number is not None:
            value, kind = number, "integer"
    if isinstance(value, Literal):
        if value.value is None:
            return Literal(target, None)
        if kind == "text" and target in ("date", "timestamp"):
            moment = date_literal(str(value.value), node)
            return as_timestamp(moment) if target == "timestamp" else allow.folded(call(Op.TO_DATE, moment))
    return _within(allow, _converted(allow, value, kind, target, node), kind, to, node)


def _converted(allow: Allow, value: Expression, kind: ColumnType, target: ColumnType, node: exp.Expr) -> Expression:
    if kind == target:
        return value
    if (kind, target) == ("date", "timestamp"):
        return as_timestamp(value)
    if (kind, target) == ("decimal", "integer") and allow.bounded(value):
        interval = allow.facts_of(value).interval
        if interval is not None and max(abs(interval[0]), abs(interval[1])) < INTEGER_LIMIT:
            return call(Op.TO_WHOLE, value)
    text = as_text(allow, value) if target == "text" else None
    if text is not None:
        return text
    if (kind, target) not in _DIRECT:
        raise _not_total(node, kind, "Use FLOOR or ROUND for whole numbers; compare columns in the dataset's types.")
    return call(_DIRECT[kind, target], value)


def as_text(allow: Allow, value: Expression) -> Expression | None:
    """A value as a text that every engine writes alike; None where there is no such."""
    kind = allow.type_of(value)
    if kind == "integer":
        return call(Op.TO_TEXT, value)
    if kind == "decimal":
        whole = None if isinstance(value, Literal) else _digits(allow, value)
        return None if whole is None else call(Op.TO_TEXT, whole)
    if kind == "boolean":
        named = (value, Literal("text", "true"), call(Op.NOT, value), Literal("text", "false"), Literal("text", None))
        return Call(Op.CASE, named)
    return allow_moments.iso_text(value) if kind == "date" else None


def _digits(allow: Allow, value: Expression) -> Expression | None:
    """A decimal that holds whole numbers within 2^53, by how it is made, as an integer; None for any other."""
    if not _is_whole(allow, value) or not allow.bounded(value):
        return None
    interval = allow.facts_of(value).interval
    within = interval is not None and None not in interval and max(map(abs, interval)) < INTEGER_LIMIT
    return call(Op.TO_WHOLE, value) if within else None


def _is_whole(allow: Allow, value: Expression) -> bool:
    if isinstance(value, Literal):
        return isinstance(value.value, (int, Fraction)) and Fraction(value.value).denominator == 1
    if allow.type_of(value) == "integer":
        return True
    if not isinstance(value, Call):
        return False
    if value.op in (Op.ADD, Op.SUB, Op.MUL, Op.NEG, Op.TO_DECIMAL):
        return all(_is_whole(allow, one) for one in value.args)
    return value.op in (Op.FLOOR, Op.CEIL, Op.ROUND)


def _not_total(node: exp.Expr, kind: str, hint: str) -> Exception:
    name = f"CAST of {kind} to {node.args['to'].this.value}"
    return refusal("INSITU-SQL-NOT-TOTAL", node, name=name, hint=hint)


def _within(allow: Allow, value: Expression, kind: ColumnType, to: exp.Expr, node: exp.Expr) -> Expression:
    """A text's length cuts it, a decimal's scale rounds it; a fixed length fills nothing up."""
    limits = [
        whole_number(one.this, node, 0, _LENGTH_LIMIT) for one in to.expressions if isinstance(one, exp.DataTypeParam)
    ]
    if not limits or (to.this is _T.DECIMAL and kind == "integer") or to.this not in (_TEXT_TYPES | {_T.DECIMAL}):
        return value
    if to.this is _T.DECIMAL:
        places = limits[1] if len(limits) > 1 else 0
        plain = places > _ROUND_DIGITS or (limits == _DUCKDB_DECIMAL and not allow.bounded(value))
        return value if plain else _to_places(allow, value, _rounded, places)
    return call(Op.SUBSTRING, value, Literal("integer", 1), Literal("integer", limits[0]))


RULES: Mapping[type[exp.Expr], Rule] = {
    **allow_moments.RULES,
    **allow_text.RULES,
    exp.Abs: _numeric(Op.ABS),
    exp.Floor: _numeric(Op.FLOOR),
    exp.Ceil: _numeric(Op.CEIL),
    exp.Round: _round,
    exp.Trunc: _round,
    exp.Sign: _sign,
    exp.Sqrt: _of_decimal(Op.SQRT),
    exp.Ln: _of_decimal(Op.LN),
    exp.Log: _log,
    exp.Exp: _of_decimal(Op.EXP),
    exp.Pow: _power,
    exp.Sin: _of_decimal(Op.SIN),
    exp.Cos: _of_decimal(Op.COS),
    exp.Atan: _of_decimal(Op.ATAN),
    exp.Pi: lambda allow, node: Literal("decimal", Fraction(math.pi)),
    exp.Radians: _scaled(math.pi / 180),
    exp.Degrees: _scaled(180 / math.pi),
    exp.WidthBucket: _width_bucket,
    exp.SafeDivide: _safe_division,
    exp.Least: _extreme(Op.LEAST),
    exp.Greatest: _extreme(Op.GREATEST),
    exp.Coalesce: _extreme(Op.COALESCE),
    exp.Nullif: _nullif,
    exp.DecodeCase: _decode,
    exp.Cast: _cast,
    exp.TryCast: _cast,
}
"""Those that may also stand over noisy results, where DuckDB runs them as they are written."""

RAW: Mapping[type[exp.Expr], Rule] = {
    **allow_moments.RAW,
    **allow_text.RAW,
    exp.Asin: _of_decimal(Op.ASIN),
    exp.Acos: _of_decimal(Op.ACOS),
}
"""Those of a database's rows alone: as they are written they may fail, or make long texts of short ones."""
