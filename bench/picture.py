"""The accuracy part as a picture: a bar of total error for each query and epsilon, on a logarithmic scale, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bench.accuracy import Accuracy

PICTURE = Path(__file__).parent / "accuracy.svg"
_OTHERS = 0.25
"""What bounds of 20 rows a person leave of these claims as bias, whoever adds the noise (BASELINES.md)."""
_LEAST, _MOST = 1e-5, 1.0
_LEFT, _WIDTH, _BAR, _GAP, _TOP = 210, 560, 13, 10, 56
_COLOURS = {"0.1": "#9aa5b1", "1": "#1f6f8b", "10": "#7fb7be"}


def accuracy_svg(measured: Sequence[Accuracy]) -> str:
    """Bars of one node's answers; a line where everybody else's begins."""
    own = [one for one in measured if one.nodes == 1]
    names = list(dict.fromkeys(one.query.name for one in own))
    parts, y = [_head(own)], float(_TOP)
    for name in names:
        mine = [one for one in own if one.query.name == name]
        middle = y + _BAR * len(mine) / 2 + 4
        parts.append(_text(_LEFT - 8, middle, f"{name} {mine[0].query.title}", anchor="end"))
        for one in mine:
            parts.append(_bar(one, y))
            y += _BAR
        y += _GAP
    parts.insert(1, _scale(y))
    size = f'width="{_LEFT + _WIDTH + 90}" height="{y + 30:.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return f"{head}{''.join(parts)}</svg>\n"


def _head(own: Sequence[Accuracy]) -> str:
    title = "Total error of an answer in shares of the truth (median group, worst column), one node"
    shown = list(dict.fromkeys(f"{float(one.epsilon):g}" for one in own))
    keys = "".join(
        f'<rect x="{_LEFT + 90 * place}" y="28" width="10" height="10" fill="{_COLOURS.get(each, "#555")}"/>'
        + _text(_LEFT + 90 * place + 15, 37, f"ε = {each}")
        for place, each in enumerate(shown)
    )
    return _text(_LEFT, 16, title, weight="bold") + keys


def _scale(bottom: float) -> str:
    lines = []
    for power in range(round(math.log10(_LEAST)), 1):
        x = _x(10.0**power)
        lines.append(f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom:.0f}" stroke="#ddd"/>')
        lines.append(_text(x, bottom + 14, f"{10.0**power:.4%}".rstrip("0").rstrip(".%") + "%", anchor="middle"))
    x = _x(_OTHERS)
    lines.append(
        f'<line x1="{x:.1f}" y1="{_TOP - 6}" x2="{x:.1f}" y2="{bottom:.0f}" stroke="#b23a48" stroke-dasharray="4"/>'
    )
    lines.append(_text(x, _TOP - 10, "bias at 20 rows a person: 25%", anchor="middle", colour="#b23a48"))
    return "".join(lines)


def _bar(one: Accuracy, y: float) -> str:
    width = _x(one.total_error) - _LEFT
    colour = _COLOURS.get(f"{float(one.epsilon):g}", "#555")
    label = f"{one.total_error:.2%}"
    return f'<rect x="{_LEFT}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{_BAR - 2}" fill="{colour}"/>' + _text(
        _LEFT + max(width, 1) + 4, y + _BAR - 4, label
    )


def _x(share: float) -> float:
    inside = min(max(share, _LEAST), _MOST)
    return _LEFT + _WIDTH * (math.log10(inside) - math.log10(_LEAST)) / (math.log10(_MOST) - math.log10(_LEAST))


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-weight="{weight}" fill="{colour}">{escape(text)}</text>'
