"""Pictures of results: what is drawn, and that nothing that is not known looks as if it were."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from insitu.result import Column, Interval, Result, Suppression
from insitu_privacy.dataset import ColumnType
from insitu_privacy.errors import ConfigInvalid

from tests.unit.client.test_output import ROW, result

Row = tuple[object, ...]


def column(name: str, kind: ColumnType, *, noisy: bool = False) -> Column:
    return Column(name=name, type=kind, noisy=noisy)


def counted(
    rows: list[Row],
    *keys: Column,
    suppressed: tuple[int, ...] = (),
    unbounded: tuple[int, ...] = (),
    kind: ColumnType = "integer",
) -> Result:
    """Rows of keys and a count, which reaches 5 to each side but where it is ``unbounded``."""

    def interval(place: int, value: object) -> Interval:
        return (value - 5, value + 5) if isinstance(value, (int, float)) and place not in unbounded else None

    return result(
        tuple(rows),
        columns=(*keys, column("n", kind, noisy=True)),
        intervals=tuple((*(None,) * len(keys), interval(place, row[-1])) for place, row in enumerate(rows)),
        clipping=(None,) * (len(keys) + 1),
        suppression=Suppression(below=11, rows=suppressed) if suppressed else None,
    )


def drawn(answer: Result, kind: str) -> list[ET.Element]:
    return [one for one in ET.fromstring(answer.plot().svg).iter() if one.get("class") == kind]


def texts(answer: Result) -> list[str]:
    return [one.text or "" for one in ET.fromstring(answer.plot().svg).iter() if one.tag.endswith("text")]


def test_a_plot_is_well_formed_whatever_the_labels(tmp_path: Path) -> None:
    rows = (("<b>&\x00", *ROW[1:]), ("x" * 100, -5, *ROW[2:]), (None,) * 6)
    plot = result(rows).plot()
    assert ET.fromstring(plot.svg).tag.endswith("svg")
    assert len(drawn(result(rows), "value")) == 2
    assert result(rows).plot("c_decimal").svg != plot.svg
    plot.save(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text() == plot.svg == plot._repr_svg_()
    with pytest.raises(ConfigInvalid):
        result().plot("c_text")


def test_a_suppressed_cell_is_hatched_and_told_from_zero_and_null() -> None:
    answer = counted([("a", 0), ("b", None), ("c", None), ("d", 90)], column("kind", "text"), suppressed=(1,))
    (hatched,) = drawn(answer, "suppressed")
    assert hatched.get("fill") == "url(#insitu-hatch)"
    assert hatched.get("width") == "400", "over the whole plot: it shows no value"
    assert len(drawn(answer, "value")) == 2
    assert {"suppressed", "∅", "suppressed: below 11 by the noisy count"} <= set(texts(answer))
    plain = counted([("a", 0)], column("kind", "text"))
    assert not drawn(plain, "suppressed")
    assert not any("suppressed" in one for one in texts(plain))


def test_a_value_without_a_bounded_interval_is_hollow() -> None:
    answer = counted([("a", 50), ("b", 60)], column("kind", "text"), unbounded=(1,))
    (hollow,) = drawn(answer, "uncertain")
    assert (hollow.get("fill"), hollow.get("stroke-dasharray")) == ("#fff", "4 3")
    assert len(drawn(answer, "value")) == len(drawn(answer, "interval")) == 1
    assert "± ?: noise without a bounded interval" in texts(answer)
    assert "95% interval over the noise of all nodes" in texts(answer)


def test_an_exact_column_is_not_uncertain() -> None:
    answer = result((("a", 3),), columns=(column("k", "text"), column("n", "integer")), intervals=((None, None),))
    svg = answer.plot("n").svg
    assert 'class="value"' in svg
    assert "uncertain" not in svg
    assert "±" not in svg


def test_an_empty_result_says_so() -> None:
    answer = counted([], column("kind", "text"))
    assert texts(answer) == ["n", "no rows: there is nothing to draw"]


def test_the_axis_has_round_numbers() -> None:
    assert {"0", "200", "400"} <= set(texts(counted([("a", 430)], column("kind", "text"))))
    assert {"0.00", "0.05"} <= set(
        texts(counted([("a", 0.21)], column("kind", "text"), unbounded=(0,), kind="decimal"))
    )
    dates = result((("2020-01-05", "2020-01-05"),), columns=(column("k", "text"), column("d", "date", noisy=True)),
                   intervals=((None, ("2020-01-01", "2020-01-11")),))  # fmt: skip
    assert "2020-01-05" in ET.tostring(ET.fromstring(dates.plot().svg), encoding="unicode")
    assert any(one.startswith("2020-01-0") for one in texts(dates) if "(" not in one)


# -- series over time --------------------------------------------------------------------------------------------------

YEARS: list[Row] = [(year, 100 + year % 7) for year in range(2010, 2020)]


@pytest.mark.parametrize(
    ("keys", "kind"),
    [
        (range(2010, 2018), "integer"),
        (["2020-01-01", "2020-02-01", "2020-04-01"], "date"),
        (["2020-01-01T00:00:00", "2020-01-01T06:00:00", "2020-01-02T00:00:00"], "timestamp"),
    ],
)
def test_a_series_over_time_is_a_line_with_a_band(keys: list[object], kind: ColumnType) -> None:
    answer = counted([(key, 100) for key in keys], column("time", kind))
    assert len(drawn(answer, "value")) == len(keys)
    assert len(drawn(answer, "line")) == len(keys) - 1
    assert [one.tag.rpartition("}")[2] for one in drawn(answer, "interval")] == ["polygon"]
    assert {"time", str(keys[0]).removesuffix("T00:00:00")} <= set(texts(answer))


@pytest.mark.parametrize(
    ("rows", "keys"),
    [
        (YEARS[:7], [column("code", "integer")]),
        ([*YEARS, (2025, 3)], [column("code", "integer")]),
        ([*YEARS, (None, 3)], [column("year", "integer")]),
        ([*YEARS, YEARS[0]], [column("year", "integer")]),
        (
            [(*row[:1], f"s{place}", 1) for place, row in enumerate(YEARS)],
            [column("year", "integer"), column("s", "text")],
        ),
        (
            [(row[0], "a", "b", 1) for row in YEARS],
            [column("year", "integer"), column("s", "text"), column("t", "text")],
        ),
        ([("a", 1)], [column("s", "text")]),
        ([(1,)], []),
    ],
    ids=["few numbers", "a gap", "a total", "twice", "many series", "three keys", "text", "no key"],
)
def test_all_else_is_bars(rows: list[Row], keys: list[Column]) -> None:
    answer = counted(rows, *keys)
    assert not drawn(answer, "line")
    assert [one.tag.rpartition("}")[2] for one in drawn(answer, "value")] == ["rect"] * len(rows)


def test_series_have_a_line_each_and_their_names() -> None:
    rows: list[Row] = [(year, sex, 100) for year in range(2010, 2018) for sex in ("F", "M")]
    answer = counted(rows, column("year", "integer"), column("sex", "text"))
    assert len(drawn(answer, "line")) == 2 * 7
    assert {"F", "M"} <= set(texts(answer))
    assert len({one.get("stroke") for one in drawn(answer, "line")}) == 2


def test_a_line_breaks_where_a_row_is_suppressed_missing_or_null() -> None:
    rows: list[Row] = [(year, None if year in (2012, 2016) else 100) for year in range(2010, 2020)]
    answer = counted(rows, column("year", "integer"), suppressed=(2,))
    assert len(drawn(answer, "line")) == 1 + 2 + 2
    assert len(drawn(answer, "suppressed")) == 1
    assert len(drawn(answer, "value")) == 8
    rows = [(year, sex, 1) for year in range(2010, 2018) for sex in ("F", "M") if (year, sex) != (2013, "F")]
    assert len(drawn(counted(rows, column("year", "integer"), column("sex", "text")), "line")) == 7 + 5


def test_what_leads_to_a_point_without_an_interval_is_dashed() -> None:
    answer = counted(YEARS, column("year", "integer"), unbounded=(1,))
    assert [one.get("stroke-dasharray") for one in drawn(answer, "line")] == ["4 3", "4 3"] + [None] * 7
    assert [one.get("fill") for one in drawn(answer, "uncertain")] == ["#fff"]
    whisker, band = drawn(answer, "interval")
    assert (whisker.tag.rpartition("}")[2], band.tag.rpartition("}")[2]) == ("path", "polygon")


@example([None] * 7 + [6.457911762546565e16], True)
@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=12), st.booleans())
def test_whatever_the_numbers_the_picture_has_places_for_them(values: list[float | None], by_year: bool) -> None:
    rows: list[Row] = [(place if by_year else str(place), value) for place, value in enumerate(values)]
    svg = counted(rows, column("k", "integer" if by_year else "text"), kind="decimal").plot().svg
    ET.fromstring(svg)
    places = [one.get(name) or "0" for one in ET.fromstring(svg).iter() for name in ("x", "y", "cx", "cy", "width")]
    assert all(-1 <= float(place) <= 2000 for place in places)
