"""Databases as they should not be: hypothesis strategies for dirty worlds over the dataset ``care``.

Small pools of values, so that keys collide: units that are NULL or beyond what an integer column declares, persons
twice with contradicting facts, one visit key given to two persons, acts of visits that do not exist, NaN,
infinities, values out of bounds and out of domain, and persons with a thousand rows.
"""

from __future__ import annotations

from datetime import date, datetime

from hypothesis import strategies as st

from tests.testkit.care import Row, World

NAN, INF = float("nan"), float("inf")
PERSONS = (1, 2, 3, 4, None, 2**53 + 1, 2**60, -7)
RANGS = (0, 0, 1, None)
DAYS = (date(2015, 1, 1), date(2020, 5, 5), date(2021, 2, 1), date(2024, 12, 31), date(1999, 1, 1), date.max, None)
COSTS = (0.0, 1000.0, 500.0, 12.34, -0.0, NAN, INF, -INF, -1.0, 1e308, None)
WEIGHTS = (0.0, -0.0, 1.5, -300.25, 1e306, -1e308, NAN, INF, -INF, None)
MOMENTS = (datetime(2015, 1, 1), datetime(2020, 5, 5, 23, 59, 59), datetime(2031, 1, 1), datetime.max, None)

_pick = st.sampled_from

_person: st.SearchStrategy[Row] = st.tuples(
    _pick(PERSONS),
    _pick(RANGS),
    _pick(("F", "M", "X", None)),
    _pick((1900, 1950, 1951, 2030, 1899, 2031, None)),
    _pick(("east", "north", "west", "", None)),
    _pick((True, False, None)),
    _pick((0.0, 10.0, 3.3, NAN, INF, 11.0, None)),
)
_visit: st.SearchStrategy[Row] = st.tuples(
    _pick((1, 2, 3, 4, 5, 6, 7, 8, None)),
    _pick(PERSONS),
    _pick(RANGS),
    _pick(("er", "in", "out", "zz", None)),
    _pick(DAYS),
    _pick(DAYS),
    _pick(COSTS),
    _pick(WEIGHTS),
    _pick((1, 2, 3, 2**60, None)),
    _pick(("x", "y", "", "x|y", None)),
    _pick(DAYS),
    _pick((0, 1, 2, 3, 4, 7, None)),
    _pick(("A", "B", "O", "C", None)),
    _pick((1, 2, 3, 99, None)),
)
_act: st.SearchStrategy[Row] = st.tuples(
    _pick((1, 2, 3, 4, 5, 6, None)),
    _pick((1, 2, 3, 4, 5, 6, 7, 8, 99, None)),
    _pick(("A00", "B99", "I10", "ZZZ", None)),
    _pick((-50, 0, 1, 500, 501, 2**62, None)),
    _pick((-1.0, 1.0, 0.333, 7.0, NAN, -INF, None)),
    _pick(MOMENTS),
)
_line: st.SearchStrategy[Row] = st.tuples(
    _pick((1, 2, 3, 4, 5, 6, 99, None)), _pick(("bed", "drug", None)), _pick((0.0, 99.9, 100.1, NAN, None))
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A dirty world; at times one of its visits stands in it many times over."""
    visit = draw(st.lists(_visit, min_size=1, max_size=14))
    if draw(st.booleans()):
        visit += [draw(_pick(visit))] * draw(_pick((4, 40)))
    return World(
        person=tuple(draw(st.lists(_person, max_size=8))),
        visit=tuple(visit),
        act=tuple(draw(st.lists(_act, max_size=14))),
        line=tuple(draw(st.lists(_line, max_size=8))),
    )
