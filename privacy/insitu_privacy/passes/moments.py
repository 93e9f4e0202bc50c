"""Covariance, correlation and regression: as arithmetic over sums of two expressions, their products and squares.

Rows where one of the two is NULL count for none of them. Both are taken from the middle of their public bounds, which
cuts the noise and leaves covariances and slopes as they are. With n rows, and x and y so centred,

    cov(x, y) = sum(xy) / n - sum(x) / n * sum(y) / n,    var(x) = cov(x, x),
    slope = cov / var(x),    correlation = cov / sqrt(var(x) var(y)).

Noise may push a variance to zero or below: what divides by it has no value then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

from sqlglot import exp

from insitu_privacy.domains import is_bounded
from insitu_privacy.passes.spans import refusal
from insitu_privacy.passes.tracked import Tracked


class _Pair:
    """The sums of an aggregate over (y, x), as syntax. SQL names the dependent one first."""

    def __init__(self, node: exp.Expr, tracked: Tracked, condition: exp.Expr | None) -> None:
        y, x = node.this, node.expression
        self._condition = condition
        self.aggregates: dict[str, exp.Expr] = {}
        """By the name of the placeholder that stands for it: the arguments, which may be long, are copied once each."""
        self._middles = {"x": _middle(x, tracked), "y": _middle(y, tracked)}
        self._values = {
            "x": _centred(x, y, self._middles["x"]),
            "y": _centred(y, x, self._middles["y"]),
        }
        self.x, self.y = exp.Placeholder(this="x"), exp.Placeholder(this="y")

    def rows(self) -> exp.Expr:
        return self._standing("rows", lambda: exp.Count(this=_times(self._values["x"], self._values["y"])))

    def total(self, *factors: exp.Expr) -> exp.Expr:
        names = [factor.name for factor in factors]
        values = [self._values[name] for name in names]
        return self._standing(
            "sum " + " ".join(names), lambda: exp.Sum(this=values[0].copy() if len(values) == 1 else _times(*values))
        )

    def _standing(self, name: str, make: Callable[[], exp.Expr]) -> exp.Expr:
        if name not in self.aggregates:
            self.aggregates[name] = self._over(make())
        return exp.Placeholder(this=name)

    def mean(self, *factors: exp.Expr) -> exp.Expr:
        return _ratio(self.total(*factors), self.rows())

    def covariance(self, one: exp.Expr, other: exp.Expr) -> exp.Expr:
        return exp.paren(exp.Sub(this=self.mean(one, other), expression=_times(self.mean(one), self.mean(other))))

    def average(self, name: str) -> exp.Expr:
        """Of the expression itself, its middle put back."""
        shown = exp.Placeholder(this=name)
        return exp.paren(exp.Add(this=self.mean(shown), expression=_number(self._middles[name])))

    def where_spread(self, value: exp.Expr, *names: str) -> exp.Expr:
        """A value where the variances that it divides by are above zero."""
        spreads = [self.covariance(*[exp.Placeholder(this=name)] * 2) for name in names]
        return _where(exp.and_(*(exp.GT(this=one, expression=exp.Literal.number(0)) for one in spreads)), value)

    def _over(self, aggregate: exp.Expr) -> exp.Expr:
        if self._condition is None:
            return aggregate
        return exp.Filter(this=aggregate, expression=exp.Where(this=self._condition.copy()))


def expanded(node: exp.Expr, tracked: Tracked) -> tuple[exp.Expr, dict[str, exp.Expr]] | None:
    """The arithmetic of a pair's aggregate, with or without FILTER, and what its placeholders stand for; None for any
    other node.

    Raises SqlRefused where one of the two has no public bounds.
    """
    condition = node.expression.this if isinstance(node, exp.Filter) else None
    inner = node.this if isinstance(node, exp.Filter) else node
    rule = _RULES.get(type(inner))
    if rule is None:
        return None
    pair = _Pair(inner, tracked, condition)
    return rule(pair), pair.aggregates


def _middle(node: exp.Expr, tracked: Tracked) -> Fraction:
    value = tracked.allow.require(tracked.allow.expression(node), ("integer", "decimal"), node)
    if tracked.is_identifying(value):
        raise refusal("INSITU-SQL-AGGREGATE", node, name="arithmetic on identifiers", hint="Count them instead.")
    interval = tracked.facts.facts(value).interval
    if not is_bounded(interval) or interval is None:
        text = node.sql()
        raise refusal("INSITU-SQL-UNBOUNDED", node, name=text, hint=f"LEAST(GREATEST({text}, 0), 1000)")
    return Fraction(((interval[0] + interval[1]) / 2).__floor__())


def _centred(value: exp.Expr, other: exp.Expr, middle: Fraction) -> exp.Expr:
    there = exp.Not(this=exp.Is(this=exp.paren(other.copy()), expression=exp.Null()))
    number = exp.Mul(this=exp.paren(value.copy()), expression=exp.Literal.number("1.0"))
    shifted = exp.Sub(this=number, expression=_number(middle))
    return exp.Case(ifs=[exp.If(this=there, true=shifted)])


def _times(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    return exp.Mul(this=exp.paren(one.copy()), expression=exp.paren(other.copy()))


def _ratio(one: exp.Expr, other: exp.Expr) -> exp.Expr:
    return exp.Div(this=exp.paren(exp.cast(one, "DOUBLE")), expression=exp.paren(other.copy()), typed=False, safe=True)


def _number(value: Fraction) -> exp.Expr:
    number = exp.Literal.number(abs(value.numerator))
    return exp.paren(exp.Neg(this=number)) if value < 0 else number


def _where(condition: exp.Expr, value: exp.Expr) -> exp.Expr:
    return exp.Case(ifs=[exp.If(this=condition, true=value)])


def _sample(pair: _Pair) -> exp.Expr:
    fewer = exp.paren(exp.Sub(this=pair.rows(), expression=exp.Literal.number(1)))
    scaled = _ratio(_times(pair.covariance(pair.x, pair.y), pair.rows()), fewer)
    return _where(exp.GT(this=pair.rows(), expression=exp.Literal.number(1)), scaled)


def _slope(pair: _Pair) -> exp.Expr:
    return pair.where_spread(_ratio(pair.covariance(pair.x, pair.y), pair.covariance(pair.x, pair.x)), "x")


def _intercept(pair: _Pair) -> exp.Expr:
    return exp.paren(exp.Sub(this=pair.average("y"), expression=_times(_slope(pair), pair.average("x"))))


def _correlation(pair: _Pair) -> exp.Expr:
    spread = exp.Sqrt(this=_times(pair.covariance(pair.x, pair.x), pair.covariance(pair.y, pair.y)))
    ratio = _ratio(pair.covariance(pair.x, pair.y), spread)
    capped = exp.Least(this=exp.Literal.number(1), expressions=[ratio], ignore_nulls=True)
    least = exp.paren(exp.Neg(this=exp.Literal.number(1)))
    return pair.where_spread(exp.Greatest(this=least, expressions=[capped], ignore_nulls=True), "x", "y")


def _determination(pair: _Pair) -> exp.Expr:
    covariance = pair.covariance(pair.x, pair.y)
    spread = _times(pair.covariance(pair.x, pair.x), pair.covariance(pair.y, pair.y))
    ratio = _ratio(_times(covariance, covariance), spread)
    return pair.where_spread(exp.Least(this=exp.Literal.number(1), expressions=[ratio], ignore_nulls=True), "x", "y")


_RULES: Mapping[type[exp.Expr], Callable[[_Pair], exp.Expr]] = {
    exp.CovarPop: lambda pair: pair.covariance(pair.x, pair.y),
    exp.CovarSamp: _sample,
    exp.Corr: _correlation,
    exp.RegrSlope: _slope,
    exp.RegrIntercept: _intercept,
    exp.RegrR2: _determination,
    exp.RegrAvgx: lambda pair: pair.average("x"),
    exp.RegrAvgy: lambda pair: pair.average("y"),
    exp.RegrCount: lambda pair: pair.rows(),
    exp.RegrSxx: lambda pair: _times(pair.covariance(pair.x, pair.x), pair.rows()),
    exp.RegrSyy: lambda pair: _times(pair.covariance(pair.y, pair.y), pair.rows()),
    exp.RegrSxy: lambda pair: _times(pair.covariance(pair.x, pair.y), pair.rows()),
}
