"""The dataset file: what it gives, and each way in which it can be wrong."""

from __future__ import annotations

from datetime import date, datetime
from fractions import Fraction

import pytest
from insitu_privacy.dataset import ContributionBounds, DatasetBundle, UnitPath
from insitu_privacy.dataset_file import parse_dataset, source_names
from insitu_privacy.errors import ConfigInvalid

from tests.testkit.care import TOML, bundle, care, care_pairs, changed


def test_a_table_says_its_unit_and_a_composite_unit_says_several() -> None:
    assert care().tables["visit"].unit == ("person_id",)
    assert care_pairs().tables["visit"].unit == ("person_id", "rang")
    assert care().tables["act"].unit == ()
    assert care().tables["act"].unit_path == UnitPath(through="visit", on=("visit_id",))


def test_columns_are_constant_where_declared_where_unit_and_in_one_row_tables() -> None:
    visit, person = care().tables["visit"].columns, care().tables["person"].columns
    assert {name for name, column in visit.items() if column.constant_per_unit} == {"person_id", "blood"}
    assert all(column.constant_per_unit for column in person.values())


def test_bounds_and_domains_are_exact_and_sorted() -> None:
    visit = care().tables["visit"].columns
    assert (visit["cost"].minimum, visit["cost"].maximum) == (Fraction(0), Fraction(1000))
    assert (visit["start"].minimum, visit["start"].maximum) == (date(2015, 1, 1), date(2024, 12, 31))
    assert care().tables["act"].columns["at"].maximum == datetime(2025, 1, 1)
    assert visit["kind"].values == ("er", "in", "out")
    assert visit["weight"].minimum is None
    exact = parse_dataset(changed(("max = 1000", "max = 0.1"))).tables["visit"].columns["cost"]
    assert exact.maximum == Fraction(1, 10)


def test_a_domain_may_come_from_a_public_code_list() -> None:
    assert care().tables["act"].columns["code"].values == ("A00", "B99", "I10", "I21", "J45")
    assert source_names(TOML.encode()) == ("icd.csv",)


def test_contribution_bounds_are_one_in_one_row_tables_and_none_where_undeclared() -> None:
    assert care().tables["person"].bounds == ContributionBounds(max_rows_per_group=1, max_groups=1)
    assert care().tables["visit"].bounds == ContributionBounds(max_rows_per_group=3, max_groups=2)
    half = parse_dataset(
        changed(("max_rows_per_group = 3\nmax_groups = 2\n[tables.visit.columns]", "[tables.visit.columns]"))
    )
    assert half.tables["visit"].bounds is None


def test_the_digest_covers_every_byte_of_the_file_and_of_its_sources() -> None:
    plain = bundle()
    again = DatasetBundle(toml=plain.toml, files=dict(plain.files))
    assert parse_dataset(plain).digest == parse_dataset(again).digest
    others = [
        DatasetBundle(toml=plain.toml + b"\n", files=plain.files),
        DatasetBundle(toml=plain.toml, files={"icd.csv": plain.files["icd.csv"] + b"Z00,other,1\n"}),
        DatasetBundle(toml=plain.toml, files={**plain.files, "more.csv": b""}),
        DatasetBundle(toml=plain.toml, files={"icd2.csv": plain.files["icd.csv"]}),
    ]
    assert len({plain.digest(), *(other.digest() for other in others)}) == 5


def test_a_table_is_protected_unless_it_says_that_it_is_public() -> None:
    tables = care().tables
    assert {name for name, table in tables.items() if table.public} == {"icd"}


_PERSON = '[tables.person]\nunit = "person_id"\n'
_BAD = {
    "not TOML": ([("[dataset]", "[dataset")], "Expected"),
    "unknown key": ([("min_units = 0", "min_units = 0\nepsilon = 3")], "dataset.epsilon"),
    "unknown key of a column": ([('type = "integer", min = 1900', 'typ = "x", type = "integer", min = 1900')], "birth_year.typ"),
    "unknown type": ([('birth_year = { type = "integer"', 'birth_year = { type = "bigint"')], "birth_year.type"),
    "no version": ([("version = 1\n", "")], "dataset.version"),
    "version zero": ([("version = 1\n", "version = 0\n")], "dataset.version"),
    "negative min_units": ([("min_units = 0", "min_units = -1")], "dataset.min_units"),
    "name with a quote": ([('name = "care"', "name = 'a\"b'")], "dataset.name"),
    "column with a quote": ([("sex        =", "'se\"x' =")], "se\"x"),
    "neither unit nor public": ([(_PERSON, "[tables.person]\n")], "exactly one of unit, unit_path and public"),
    "unit and public": ([(_PERSON, _PERSON + "public = true\n")], "exactly one of unit, unit_path and public"),
    "empty unit": ([(_PERSON, "[tables.person]\nunit = []\n")], "exactly one of unit"),
    "unit not a column": ([(_PERSON, '[tables.person]\nunit = "nir"\n')], "nir is not one of its columns"),
    "empty entity key": ([('entity_keys = [["visit_id"]]', "entity_keys = [[]]")], "entity_keys"),
    "key not a column": ([('key = ["code"]', 'key = ["kode"]')], "kode is not one of its columns"),
    "source of a protected table": ([(_PERSON, _PERSON + 'source = "icd.csv"\n')], "source and key are for public tables"),
    "bounds of a public table": ([("public = true\n", "public = true\nmax_groups = 3\n")], "a public table has no unit"),
    "path through nothing": ([('through = "visit"', 'through = "stay"')], "unit_path.through"),
    "path through a public table": ([('through = "visit", on = ["visit_id"]', 'through = "icd", on = ["code"]')], "unit_path.through"),
    "path on no entity key": ([('on = ["visit_id"]', 'on = ["code"]')], "unit_path"),
    "path on nothing": ([('on = ["visit_id"]', "on = []")], "unit_path.on"),
    "path in a circle": (
        [('unit_path = { through = "visit", on = ["visit_id"] }', 'unit_path = { through = "act", on = ["act_id"] }')],
        "never reaches a table with a unit",
    ),
    "rows below one": ([("max_rows_per_group = 3", "max_rows_per_group = 0")], "max_rows_per_group"),
    "rows as text": ([("max_rows_per_group = 3", 'max_rows_per_group = "3"')], "max_rows_per_group"),
    "min above max": ([("min = 1900, max = 2030", "min = 2030, max = 1900")], "min is above max"),
    "fraction as bound of an integer": ([("min = 1900", "min = 1900.5")], "bounds of an integer column"),
    "infinite bound": ([("max = 1000", "max = inf")], "finite decimal numbers"),
    "bound that is no number": ([("max = 1000", "max = nan")], "finite decimal numbers"),
    "bound beyond 2^53": ([("min = 1900, max = 2030", "min = 0, max = 9007199254740993")], "below 2^53"),
    "text as bound": ([("min = 1900", 'min = "1900"')], "bounds do not fit"),
    "boolean as bound": ([("min = 1900", "min = true")], "bounds do not fit"),
    "number as bound of a date": ([("min = 2015-01-01, max = 2024-12-31 }\nfinish", "min = 3 }\nfinish")], "bounds do not fit"),
    "bound of a text": ([('diagnosis = { type = "text"', 'diagnosis = { type = "text", min = 3')], "bounds do not fit"),
    "time zone": ([("max = 2025-01-01", "max = 2025-01-01T00:00:00Z")], "no time zone"),
    "empty domain": ([('values = ["F", "M"]', "values = []")], "values is empty"),
    "domain of another type": ([('values = ["F", "M"]', "values = [1, 2]")], "must be of that type"),
    "domain of a decimal": ([("cost      = { type = \"decimal\", min = 0", "cost = { type = \"decimal\", values = [1.5], min = 0")], "must be of that type"),
    "boolean in a domain of integers": ([("stage     = { type = \"integer\", min = 0", "stage = { type = \"integer\", values = [true], min = 0")], "must be of that type"),
    "two domains": ([('values = ["F", "M"]', 'values = ["F"], values_from = "icd.code"')], "not both"),
    "domain from a protected table": ([('values_from = "icd.code", nullable', 'values_from = "visit.kind", nullable')], "values_from must name"),
    "domain from an unknown column": ([('values_from = "icd.code", nullable', 'values_from = "icd.kode", nullable')], "values_from must name"),
    "reference to no entity key": ([("visit_id = { type = \"integer\" }\ncode", "visit_id = { type = \"integer\", references = \"visit.kind\" }\ncode")], "references must name"),
    "reference to nothing": ([("visit_id = { type = \"integer\" }\ncode", "visit_id = { type = \"integer\", references = \"visit\" }\ncode")], "references must name"),
    "unit of two types": ([('person_id  = { type = "integer" }', 'person_id  = { type = "text" }')], "give both the same type"),
    "reference of another type": ([("visit_id = { type = \"integer\" }\ncode", "visit_id = { type = \"integer\" }\nold = { type = \"text\", references = \"visit.visit_id\" }\ncode")], "tables.act.columns.old is text, and visit.visit_id is integer"),
    "unit path of another type": ([("visit_id = { type = \"integer\" }\ncode", "visit_id = { type = \"text\" }\ncode")], "tables.act: its unit_path.on is text"),
    "reserved name": ([("ward      =", "_unit_0 =")], "_unit_"),
}  # fmt: skip


@pytest.mark.parametrize("name", _BAD)
def test_a_bad_file_is_refused_with_its_place_and_reason(name: str) -> None:
    edits, reason = _BAD[name]
    with pytest.raises(ConfigInvalid) as refused:
        parse_dataset(changed(*edits))
    assert refused.value.code == "INSITU-CONFIG-INVALID"
    assert reason in refused.value.text
    assert "\n" not in refused.value.line()


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"icd.csv": b"kode,chapter\nA00,x\n"},
        {"icd.csv": b"\xff\xfe\x00"},
        {"icd.csv": b"code,chapter,severity\n"},
        {"icd.csv": b"code,chapter,severity\nA00\n"},
    ],
)
def test_a_bad_code_list_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        parse_dataset(DatasetBundle(toml=bundle().toml, files=files))
    assert refused.value.code == "INSITU-CONFIG-INVALID"


@pytest.mark.parametrize("cell", [b"x", b"", b"1.5"])
def test_a_code_list_of_integers_holds_integers(cell: bytes) -> None:
    toml = changed(
        ('code     = { type = "text" }', 'code     = { type = "integer" }'),
        ('code     = { type = "text", values', 'code     = { type = "integer", values'),
    ).toml
    header = b"code,chapter,severity\n"
    good = DatasetBundle(toml=toml, files={"icd.csv": header + b"12,a,1\n3,b,1\n"})
    assert parse_dataset(good).tables["act"].columns["code"].values == (3, 12)
    for line in (cell + b",a,1\n", b"12,a,1\n\n" + cell):
        with pytest.raises(ConfigInvalid):
            parse_dataset(DatasetBundle(toml=toml, files={"icd.csv": header + line + b",\n"}))
    short = DatasetBundle(
        toml=toml.replace(b'"icd.chapter"', b'"icd.severity"').replace(
            b'chapter  = { type = "text"', b'chapter = { type = "integer"'
        ),
        files={"icd.csv": header + b"12\n"},
    )
    with pytest.raises(ConfigInvalid):
        parse_dataset(short)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        source_names(b"\xff\xff")


def test_entity_keys_and_a_public_sources_columns_need_no_declaration() -> None:
    toml = b"""
    [dataset]
    name = "care"
    version = 1
    [tables.visit]
    unit = "person_id"
    entity_keys = [["visit_id"]]
    [tables.visit.columns]
    person_id = { type = "integer" }
    [tables.act]
    unit_path = { through = "visit", on = ["visit_id"] }
    [tables.act.columns]
    code = { type = "text", values_from = "chapter.code" }
    [tables.chapter]
    public = true
    source = "chapter.csv"
    key = ["code"]
    """
    csv = b"code,label,pages,since\nB,Blood,12,2001-01-01\nA,Infections,7,1999-12-31\n"
    dataset = parse_dataset(DatasetBundle(toml=toml, files={"chapter.csv": csv}))
    assert dataset.tables["visit"].columns["visit_id"].type == "integer"
    assert dataset.tables["act"].columns["code"].values == ("A", "B")
    kinds = {name: column.type for name, column in dataset.tables["chapter"].columns.items()}
    assert kinds == {"code": "text", "label": "text", "pages": "integer", "since": "date"}


def test_the_key_of_a_public_table_is_unique_in_its_file() -> None:
    toml = b"""
    [dataset]
    name = "d"
    version = 1
    [tables.person]
    unit = "id"
    [tables.person.columns]
    id = { type = "integer" }
    [tables.code]
    public = true
    key = ["code"]
    source = "code.csv"
    """
    assert parse_dataset(DatasetBundle(toml=toml, files={"code.csv": b"code,label\nA,a\nB,a\n"})).tables["code"].key
    with pytest.raises(ConfigInvalid, match=r"its key code stands in more than one row of code\.csv"):
        parse_dataset(DatasetBundle(toml=toml, files={"code.csv": b"code,label\nA,a\nA,b\n"}))
    with pytest.raises(ConfigInvalid, match="code is not one of its columns"):
        parse_dataset(DatasetBundle(toml=toml, files={"code.csv": b"kode,label\nA,a\n"}))


def test_a_column_may_hold_keys_of_several_entities() -> None:
    """As a bill's event is an act or a visit: joined to either, both rows are of one person."""
    text = 'previous  = { type = "integer", nullable = true, references = ["visit.visit_id", "act.act_id"] }'
    dataset = parse_dataset(
        changed(('previous  = { type = "integer", nullable = true, references = "visit.visit_id" }', text))
    )
    assert dataset.tables["visit"].columns["previous"].references == (("visit", "visit_id"), ("act", "act_id"))
