"""Cells, tables, Arrow and pandas: what a result looks like, whatever is in it."""

from __future__ import annotations

import io
import json
import math
from datetime import date, datetime
from fractions import Fraction
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu.noise import half_width, laplace_tail
from insitu.output import FACT_SUFFIXES, cell_text, check_target, choose_format, json_bytes, table_text, write_result
from insitu.progress import Reporter
from insitu.result import Column, Evidence, NodeStatus, Result, Spent
from insitu_privacy.dataset import DatasetBundle
from insitu_privacy.errors import ConfigInvalid

TYPES = ("text", "integer", "decimal", "boolean", "date", "timestamp")
ROW = ('é, "x"', 1312, 2.5, True, "2024-02-29", "2024-02-29T12:30:00")


def result(rows: tuple[tuple[object, ...], ...] = (ROW, (None,) * 6), **changes: object) -> Result:
    interval = (None, (1290, 1334), (2.25, 2.75), None, None, None)
    values = {
        "query_id": "q",
        "dataset": "care",
        "columns": tuple(Column(name=f"c_{kind}", type=kind, noisy=kind in ("integer", "decimal")) for kind in TYPES),
        "rows": rows,
        "intervals": tuple(interval if row[0] is not None else (None,) * 6 for row in rows),
        "level": 0.95,
        "nodes": (
            NodeStatus(id="a", status="released", code=None),
            NodeStatus(id="b", status="absent", code="INSITU-NODE-ABSENT"),
        ),
        "clipping": (None,) * 6,
        "spent": Spent(epsilon=Fraction(1), delta=Fraction(0)),
        "replayed": False,
        "verified": True,
        "warnings": (),
        "evidence": Evidence(
            manifest="m",
            grant="g",
            request="r",
            outcomes={"a": "o"},
            bundle=DatasetBundle(toml=b"t", files={"f": b"1"}),
        ),
    }
    return Result(**(values | changes))


@pytest.mark.parametrize(
    ("cell", "interval", "text"),
    [
        (1312, (1290, 1334), "1,312 ± 22"),
        (1312, (1280, 1334), "1,312 ± 32"),
        (1234567, None, "1234567"),
        (0.51234, (0.4911, 0.5336), "0.512 ± 0.021"),
        (51234.5, (41234.5, 61234.5), "51,234 ± 10,000"),
        (-3, (-5, 2), "-3 ± 5"),
        (2.0, (2.0, 2.0), "2.000000 ± 0.000000"),
        (None, None, "∅"),
        (None, (1, 2), "∅"),
        ("text", None, "text"),
        ("a\x1b[2Jb\nc", None, "a\ufffd[2Jb\ufffdc"),
        (1.5e20, (1e20, 2e20), "1.5e+20 ± 5e+19"),
        (1.7e308, (-1.7e308, 1.7e308), "1.7e+308 ± ∞"),
        (True, None, "True"),
    ],
)
def test_a_cell_reads_as_value_and_reach(cell: object, interval: object, text: str) -> None:
    assert cell_text(cell, interval) == text


@given(st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False))
def test_noise_without_an_interval_never_looks_exact(cell: float) -> None:
    assert cell_text(cell, None, noisy=True).endswith(" ± ?")


@given(
    st.integers(-(2**64), 2**64) | st.floats(allow_nan=False, allow_infinity=False),
    st.floats(0, 1e300),
    st.floats(0, 1e300),
)
def test_every_number_can_be_shown(cell: float, low: float, high: float) -> None:
    assert "±" in cell_text(cell, (-low, high))


def test_a_table_says_who_is_missing() -> None:
    text = table_text(result())
    assert "1,312 ± 22" in text
    assert "missing: b absent INSITU-NODE-ABSENT" in text
    assert "1 of 2 nodes (a)" in text
    assert str(result()) == text
    assert "nothing new" in table_text(result(replayed=True))
    assert "evidence" not in repr(result())


def test_markup_in_data_is_not_markup() -> None:
    row = ("[red]x[/red] \\[", *ROW[1:])
    assert "[red]x[/red] \\[" in table_text(result((row,)))


def test_arrow_has_types() -> None:
    table = result().to_arrow()
    assert table.schema.types == [
        pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.date32(), pa.timestamp("us"),
    ]  # fmt: skip
    assert table.to_pylist()[0]["c_date"] == date(2024, 2, 29)
    assert table.to_pylist()[0]["c_timestamp"] == datetime(2024, 2, 29, 12, 30)
    assert set(table.to_pylist()[1].values()) == {None}
    wide = result().to_arrow(intervals=True)
    assert wide.column_names[6:] == ["c_integer_low", "c_integer_high", "c_decimal_low", "c_decimal_high"]
    assert wide.to_pylist()[0]["c_integer_low"] == 1290


def test_pandas_has_types() -> None:
    frame = result().to_pandas()
    assert list(frame.columns) == [f"c_{kind}" for kind in TYPES]
    assert frame["c_date"][0] == datetime(2024, 2, 29)
    assert frame["c_integer"][0] == 1312
    assert frame["c_date"].isna().tolist() == [False, True]


def test_an_empty_result_has_every_format(tmp_path: Path) -> None:
    empty = result(())
    for form in ("table", "json", "csv", "parquet", "arrow"):
        write_result(empty, form, tmp_path / form)
    assert pyarrow.parquet.read_table(tmp_path / "parquet").num_rows == 0
    assert json.loads((tmp_path / "json").read_text())["rows"] == []
    assert (tmp_path / "csv").read_text().count("\n") == 1
    assert empty.to_pandas().shape == (0, 6)


def test_csv_quotes_and_leaves_null_empty(tmp_path: Path) -> None:
    write_result(result(), "csv", tmp_path / "x.csv")
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[1] == '"é, ""x""",1312,2.5,true,2024-02-29,2024-02-29T12:30:00,1290,1334,2.25,2.75'
    assert lines[2] == "," * 9


def test_formats_follow_the_suffix_unless_named(tmp_path: Path) -> None:
    assert choose_format(None, None) == "table"
    assert choose_format(None, Path("x.PARQUET")) == "parquet"
    assert choose_format(None, Path("x.txt")) == "table"
    assert choose_format("csv", Path("x.json")) == "csv"
    assert choose_format(None, Path("x")) == "table"
    assert choose_format("table", Path("x.xlsx")) == "table"
    with pytest.raises(ConfigInvalid, match=r"\.json, \.csv, \.parquet, \.arrow, \.txt.*--format"):
        choose_format(None, Path("x.xlsx"))
    with pytest.raises(ConfigInvalid, match=r"are \.json, \.txt\."):
        choose_format(None, Path("x.csv"), FACT_SUFFIXES)
    with pytest.raises(ConfigInvalid):
        check_target("json", tmp_path)


def test_not_a_number_is_never_written() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        json_bytes({"x": float("nan")})


def test_progress_reports_a_change_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter() as reporter:
        for stage in ("sent", "sent", "released"):
            reporter("a", stage)
    with Reporter(quiet=True) as reporter:
        reporter("a", "sent")
    assert capsys.readouterr() == ("", "a: sent\na: released\n")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_is_live_and_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Reporter() as reporter:
        reporter("chu-lille", "sent")
    assert "chu-lille" in terminal.getvalue()
    assert capsys.readouterr().out == ""


# -- the noise of several nodes --------------------------------------------------------------------------------------


def test_quantiles_of_laplace_sums_are_exact() -> None:
    assert half_width("laplace", Fraction(1), 1) == pytest.approx(-math.log(0.05) + 0.5)
    # two: P(S > x) = exp(-x) (2 + x) / 4
    x = half_width("laplace", Fraction(1), 2) - 0.5
    assert math.exp(-x) * (2 + x) / 4 == pytest.approx(0.025)
    assert laplace_tail(7, 0.0) == pytest.approx(0.5)
    assert half_width("laplace", Fraction(0), 3) == 0.0


@given(st.integers(1, 59), st.floats(0, 200))
def test_tails_fall_and_stay_probabilities(nodes: int, x: float) -> None:
    assert 0 <= laplace_tail(nodes, x + 1) <= laplace_tail(nodes, x) <= 0.5 + 1e-9


def test_gaussian_and_many_nodes() -> None:
    assert half_width("gaussian", Fraction(10), 4) == pytest.approx(1.959964 * 20 + 0.5, rel=1e-5)
    assert half_width("laplace", Fraction(1), 60) == pytest.approx(half_width("laplace", Fraction(1), 59), rel=0.03)
