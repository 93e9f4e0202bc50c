"""D1 and D2: what crosses a dataset's legal rules is refused, however it is written; what does not is planned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from insitu_privacy.errors import LegalRefused
from insitu_privacy.plan import Scope

from tests.testkit.care import plan as plan_care
from tests.testkit.snds import RULES, TOML, plan, snds

IDENTIFIERS, NEVER = "INSITU-LEGAL-IDENTIFIERS", "INSITU-LEGAL-NEVER-RELEASED"
B, E = "ir_ben_r", "er_prs_f"
UNIT = "ben_nir_psa, ben_rng_gem"
ON = "b.ben_nir_psa = e.ben_nir_psa AND b.ben_rng_gem = e.ben_rng_gem"
BOTH = f"{B} b JOIN {E} e ON {ON}"


def refused(sql: str) -> LegalRefused:
    with pytest.raises(LegalRefused) as caught:
        plan(sql)
    return caught.value


ONE = {
    "commune": f"SELECT ben_res_com, COUNT(*) FROM {B} GROUP BY 1",
    "commune in two tables is one identifier": f"SELECT COUNT(*) FROM {BOTH} WHERE b.ben_res_com = e.ben_res_com",
    "birth": f"SELECT ben_nai_ann, ben_nai_moi, COUNT(*) FROM {B} GROUP BY 1, 2",
    "birth in two ways is one identifier": f"SELECT COUNT(*) FROM {B} WHERE MONTH(ben_nai_dte) = ben_nai_moi AND YEAR(ben_nai_dte) = ben_nai_ann",
    "care": f"SELECT exe_soi_dtd, COUNT(*) FROM {E} GROUP BY 1",
    "dates of care are one identifier": f"SELECT AVG(exe_soi_dtf - exe_soi_dtd) FROM {E} WHERE flx_dis > exe_soi_dtd",
    "death": f"SELECT COUNT(*) FROM {B} WHERE ben_dcd_dte = DATE '2020-03-17'",
    "commune of death": f"SELECT ben_dcd_com, COUNT(*) FROM {B} GROUP BY 1",
    "none": f"SELECT ben_sex_cod, COUNT(*) FROM {B} GROUP BY 1",
}
COARSE = {
    "year of birth alone": f"SELECT ben_res_com, ben_nai_ann, COUNT(*) FROM {B} GROUP BY 1, 2",
    "month of birth alone": f"SELECT ben_res_com, ben_nai_moi, COUNT(*) FROM {B} GROUP BY 1, 2",
    "year of a birth date": f"SELECT ben_res_com, YEAR(ben_nai_dte), COUNT(*) FROM {B} GROUP BY 1, 2",
    "age at care": f"SELECT ben_res_com, AVG(YEAR(exe_soi_dtd) - ben_nai_ann) FROM {E} GROUP BY 1",
    "year and month of care": f"SELECT ben_res_com, YEAR(exe_soi_dtd), MONTH(exe_soi_dtd), COUNT(*) FROM {E} GROUP BY 1, 2, 3",
    "truncated": f"SELECT ben_res_com, DATE_TRUNC('month', exe_soi_dtd) AS m, COUNT(*) FROM {E} GROUP BY 1, 2",
    "written out": f"SELECT ben_res_com, STRFTIME(exe_soi_dtd, '%Y-%m') AS m, COUNT(*) FROM {E} GROUP BY 1, 2",
    "last day of the month": f"SELECT ben_res_com, LAST_DAY(exe_soi_dtd) AS m, COUNT(*) FROM {E} GROUP BY 1, 2",
    "months between": f"SELECT ben_res_com, AVG(date_diff('month', exe_soi_dtd, exe_soi_dtf)) FROM {E} GROUP BY 1",
    "whole years": f"SELECT ben_res_com, COUNT(*) FROM {E} WHERE exe_soi_dtd >= DATE '2019-01-01' AND exe_soi_dtd < DATE '2020-01-01' GROUP BY 1",
    "BETWEEN whole months": f"SELECT ben_res_com, COUNT(*) FROM {E} WHERE exe_soi_dtd BETWEEN DATE '2019-02-01' AND DATE '2020-02-29' GROUP BY 1",
    "literal first": f"SELECT ben_res_com, COUNT(*) FROM {E} WHERE DATE '2019-03-01' <= exe_soi_dtd AND DATE '2019-03-31' >= exe_soi_dtd GROUP BY 1",
    "a timestamp": f"SELECT ben_res_com, COUNT(*) FROM {E} WHERE flx_dis >= TIMESTAMP '2019-01-01 00:00:00' AND CAST(flx_dis AS DATE) <= DATE '2019-12-31' GROUP BY 1",
    "whether somebody died": f"SELECT ben_res_com, COUNT(*) FROM {B} WHERE ben_dcd_dte IS NOT NULL GROUP BY 1",
    "how many died": f"SELECT ben_res_com, COUNT(ben_dcd_dte) FROM {B} GROUP BY 1",
    "the first year of care": f"SELECT ben_res_com, y, COUNT(*) FROM (SELECT {UNIT}, ben_res_com, YEAR(MIN(exe_soi_dtd)) AS y FROM {E} GROUP BY 1, 2, 3) f GROUP BY 1, 2",
    "the year of the first day, outside": f"SELECT ben_res_com, YEAR(d), COUNT(*) FROM (SELECT {UNIT}, ben_res_com, MIN(exe_soi_dtd) AS d FROM {E} GROUP BY 1, 2, 3) f GROUP BY 1, 2",
    "the month of either date": f"SELECT ben_res_com, DATE_TRUNC('month', COALESCE(exe_soi_dtf, exe_soi_dtd)) AS m, COUNT(*) FROM {E} GROUP BY 1, 2",
    "a date that is carried and not read": f"WITH c AS (SELECT * FROM {E}) SELECT ben_res_com, COUNT(*) FROM c GROUP BY 1",
    "a cohort by year": f"SELECT ben_res_com, COUNT(*) FROM {B} b WHERE ({UNIT}) IN (SELECT {UNIT} FROM {E} WHERE YEAR(exe_soi_dtd) = 2020) GROUP BY 1",
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_one_identifier_is_allowed_in_every_use(name: str) -> None:
    assert plan(ONE[name]).releases


@pytest.mark.parametrize("name", COARSE)
def test_a_coarse_use_beside_an_identifier_is_allowed(name: str) -> None:
    assert plan(COARSE[name]).releases


FINE = {
    "the day of the month": "DAY(exe_soi_dtd) = 3",
    "the day of the year": "EXTRACT(DOY FROM exe_soi_dtd) = 3",
    "the week": "WEEK(exe_soi_dtd) = 3",
    "the day of the week": "EXTRACT(DOW FROM exe_soi_dtd) = 3",
    "truncated to the week": "DATE_TRUNC('week', exe_soi_dtd) = DATE '2019-01-07'",
    "equal": "exe_soi_dtd = DATE '2019-01-01'",
    "IN": "exe_soi_dtd IN (DATE '2019-01-01', DATE '2019-02-01')",
    "a range inside a month": "exe_soi_dtd >= DATE '2019-01-01' AND exe_soi_dtd < DATE '2019-01-15'",
    "up to a first day": "exe_soi_dtd <= DATE '2019-01-01'",
    "after a first day": "exe_soi_dtd > DATE '2019-01-01'",
    "from a last day": "exe_soi_dtd >= DATE '2019-12-31'",
    "a first day that is on the left": "DATE '2019-01-01' >= exe_soi_dtd",
    "a timestamp's last day": "flx_dis <= TIMESTAMP '2019-12-31 00:00:00'",
    "a timestamp within a day": "flx_dis >= TIMESTAMP '2019-01-01 00:00:01'",
    "the hour": "HOUR(flx_dis) = 3",
    "seconds": "EPOCH(flx_dis) > 1500000000",
    "the year of a shifted date": "YEAR(exe_soi_dtd + 14) = 2019",
    "the year of a day moved by a month": "YEAR(exe_soi_dtd + INTERVAL 1 MONTH) = 2019",
    "days between": "date_diff('day', exe_soi_dtd, exe_soi_dtf) > 3",
    "days since a literal": "exe_soi_dtd - DATE '2019-01-01' < 3",
    "another date": "exe_soi_dtd < exe_soi_dtf",
    "written out": "STRFTIME(exe_soi_dtd, '%Y%m%d') = '20190101'",
    "NULLIF": "YEAR(NULLIF(exe_soi_dtd, DATE '2019-01-05')) = 2019",
    "the year of one, chosen by the day of another": "YEAR(CASE WHEN DAY(exe_soi_dtf) = 1 THEN exe_soi_dtd END) = 2019",
    "an order": f"({UNIT}) IN (SELECT {UNIT} FROM (SELECT {UNIT}, prs_nat_ref, ROW_NUMBER() OVER (PARTITION BY {UNIT} ORDER BY exe_soi_dtd) AS r FROM {E}) w WHERE r = 1 AND prs_nat_ref = 1111)",
    "distinct days": f"({UNIT}) IN (SELECT {UNIT} FROM (SELECT {UNIT}, COUNT(DISTINCT exe_soi_dtd) AS n FROM {E} GROUP BY 1, 2) w WHERE n > 3)",
    "rows by day": f"({UNIT}) IN (SELECT {UNIT} FROM (SELECT {UNIT}, COUNT(*) AS n FROM {E} GROUP BY 1, 2, exe_soi_dtd) w WHERE n > 3)",
    "DISTINCT of days": f"({UNIT}) IN (SELECT {UNIT} FROM (SELECT DISTINCT {UNIT}, exe_soi_dtd AS d FROM {E}) w WHERE YEAR(d) = 2019)",
}  # fmt: skip


@pytest.mark.attacks("D1")
@pytest.mark.parametrize("name", FINE)
def test_a_finer_use_of_a_date_is_the_exact_date(name: str) -> None:
    plan(f"SELECT COUNT(*) FROM {E} WHERE {FINE[name]}")
    found = refused(f"SELECT ben_res_com, COUNT(*) FROM {E} WHERE {FINE[name]} GROUP BY 1")
    assert found.code == IDENTIFIERS
    assert "exact date of care" in found.text


SELF = f"{B} a JOIN {B} b ON a.ben_nir_psa = b.ben_nir_psa AND a.ben_rng_gem = b.ben_rng_gem"
AROUND = {
    "two keys": f"SELECT ben_res_com, ben_dcd_com, COUNT(*) FROM {B} GROUP BY 1, 2",
    "two conditions": f"SELECT COUNT(*) FROM {B} WHERE ben_res_com = '59350' AND ben_dcd_com = '75056'",
    "aliases": f"WITH z AS (SELECT {UNIT}, ben_res_com AS ben_sex_cod, ben_dcd_com AS ben_nai_ann FROM {B} AS er_prs_f) SELECT ben_sex_cod, ben_nai_ann, COUNT(*) FROM z GROUP BY 1, 2",
    "quoted names in capitals": 'SELECT "BEN_RES_COM", Ben_Dcd_Com, COUNT(*) FROM "IR_BEN_R" GROUP BY 1, 2',
    "a derived table": f"SELECT x, COUNT(*) FROM (SELECT {UNIT}, ben_res_com AS x, ben_dcd_com AS y FROM {B}) d WHERE y LIKE '59%' GROUP BY 1",
    "condition inside, key outside": f"SELECT x, COUNT(*) FROM (SELECT {UNIT}, ben_res_com AS x FROM {B} WHERE ben_dcd_com IS NULL) d GROUP BY 1",
    "text": f"SELECT CAST(ben_nai_moi AS VARCHAR) || CAST(ben_nai_ann AS VARCHAR), ben_res_com, COUNT(*) FROM {B} GROUP BY 1, 2",
    "CONCAT of the two": f"SELECT CONCAT(ben_res_com, ben_dcd_com) AS c, COUNT(*) FROM {B} GROUP BY 1",
    "CASE": f"SELECT CASE WHEN ben_res_com = '59350' THEN ben_dcd_com END AS c, COUNT(*) FROM {B} GROUP BY 1",
    "COALESCE": f"SELECT COALESCE(ben_dcd_com, ben_res_com) AS c, COUNT(*) FROM {B} GROUP BY 1",
    "compared": f"SELECT COUNT(*) FROM {B} WHERE ben_res_com = ben_dcd_com",
    "COUNT": f"SELECT COUNT(ben_res_com), COUNT(ben_dcd_com) FROM {B}",
    "COUNT_IF and FILTER": f"SELECT COUNT_IF(ben_res_com = '1'), COUNT(*) FILTER (WHERE ben_dcd_com = '2') FROM {B}",
    "SUM of CASE": f"SELECT SUM(CASE WHEN ben_res_com = '1' THEN 1 ELSE 0 END), SUM(CASE WHEN ben_dcd_com = '2' THEN 1 ELSE 0 END) FROM {B}",
    "MEDIAN": f"SELECT ben_res_com, MEDIAN(ben_nai_ann + ben_nai_moi / 12) FROM {B} GROUP BY 1",
    "a join": f"SELECT b.ben_dcd_com, COUNT(*) FROM {BOTH} WHERE DAY(e.exe_soi_dtd) = 1 GROUP BY 1",
    "a self-join": f"SELECT a.ben_res_com, COUNT(*) FROM {SELF} WHERE b.ben_dcd_com = '1' GROUP BY 1",
    "a left join": f"SELECT ben_res_com, COUNT(*) FROM {E} e LEFT JOIN (SELECT {UNIT}, ben_dcd_com AS c FROM {B}) b ON {ON} AND c = '1' GROUP BY 1",
    "a public table": f"SELECT c.region, COUNT(*) FROM {B} b JOIN communes c ON c.code = b.ben_res_com JOIN communes d ON d.code = b.ben_dcd_com GROUP BY 1",
    "IN": f"SELECT ben_res_com, COUNT(*) FROM {B} WHERE ({UNIT}) IN (SELECT {UNIT} FROM {B} WHERE ben_dcd_com = '1') GROUP BY 1",
    "NOT EXISTS": f"SELECT ben_res_com, COUNT(*) FROM {B} b WHERE NOT EXISTS (SELECT 1 FROM {E} e WHERE {ON} AND e.exe_soi_dtd > b.ben_dcd_dte) GROUP BY 1",
    "HAVING of a person": f"SELECT COUNT(*) FROM (SELECT {UNIT}, MAX(exe_soi_dtd) AS d FROM {E} WHERE ben_res_com = '1' GROUP BY 1, 2 HAVING MAX(exe_soi_dtd) > DATE '2019-05-05') f",
    "an aggregate of a person": f"SELECT n, COUNT(*) FROM (SELECT {UNIT}, MIN(ben_res_com) AS n, MAX(DAY(exe_soi_dtd)) AS d FROM {E} GROUP BY 1, 2) f WHERE d = 31 GROUP BY 1",
    "UNION ALL": f"SELECT c, COUNT(*) FROM (SELECT {UNIT}, ben_res_com AS c FROM {B} UNION ALL SELECT {UNIT}, ben_dcd_com FROM {B}) u GROUP BY 1",
    "EXCEPT": f"SELECT COUNT(*) FROM (SELECT {UNIT}, ben_res_com FROM {B} EXCEPT SELECT {UNIT}, ben_dcd_com FROM {B}) u",
    "a window's order": f"SELECT COUNT(*) FROM (SELECT ben_res_com, ROW_NUMBER() OVER (PARTITION BY {UNIT} ORDER BY exe_soi_dtd) AS r FROM {E}) w WHERE r = 1",
    "a window's partition": f"SELECT COUNT(*) FROM (SELECT ROW_NUMBER() OVER (PARTITION BY {UNIT}, ben_res_com ORDER BY exe_soi_dtd) AS r FROM {E}) w WHERE r = 1",
    "a window's value": f"SELECT x, COUNT(*) FROM (SELECT LAG(ben_res_com) OVER (PARTITION BY {UNIT} ORDER BY prs_id) AS x, DAY(exe_soi_dtd) AS d FROM {E}) w WHERE d = 1 GROUP BY 1",
    "QUALIFY": f"SELECT COUNT(*) FROM (SELECT ben_res_com FROM {E} QUALIFY ROW_NUMBER() OVER (PARTITION BY {UNIT} ORDER BY exe_soi_dtd) = 1) w WHERE ben_res_com = '1'",
    "grouping sets": f"SELECT ben_res_com, ben_dcd_com, COUNT(*) FROM {B} GROUP BY GROUPING SETS ((ben_res_com), (ben_dcd_com))",
    "two releases": f"SELECT * FROM (SELECT COUNT(*) AS n FROM {B} WHERE ben_res_com = '1') a, (SELECT COUNT(*) AS m FROM {B} WHERE ben_dcd_com = '1') b",
    "a scalar subquery above": f"SELECT ben_res_com, COUNT(*), (SELECT COUNT(*) FROM {B} WHERE ben_dcd_com = '1') FROM {B} GROUP BY 1",
    "parts of a date that make it up": f"SELECT ben_res_com, YEAR(exe_soi_dtd), MONTH(exe_soi_dtd), DAY(exe_soi_dtd), COUNT(*) FROM {E} GROUP BY 1, 2, 3, 4",
    "the halves of birth in two tables": f"SELECT e.ben_res_com, COUNT(*) FROM {BOTH} WHERE e.ben_nai_ann = 1960 AND b.ben_nai_moi = 3 GROUP BY 1",
    "the halves of birth in two releases": f"SELECT * FROM (SELECT ben_res_com, ben_nai_ann, COUNT(*) AS n FROM {B} GROUP BY 1, 2) a, (SELECT ben_nai_moi, COUNT(*) AS m FROM {B} GROUP BY 1) b",
    "month of a birth date": f"SELECT ben_res_com, COUNT(*) FROM {B} WHERE MONTH(ben_nai_dte) = 3 GROUP BY 1",
    "an order by month, whose ties the day breaks": f"SELECT COUNT(*) FROM (SELECT ben_res_com, ROW_NUMBER() OVER (PARTITION BY {UNIT} ORDER BY DATE_TRUNC('month', flx_dis)) AS r FROM {E}) w WHERE r = 1 AND ben_res_com = '1'",
    "an order that reads all columns": f"SELECT COUNT(*) FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {UNIT} ORDER BY prs_id) AS r FROM {E}) w WHERE r = 1",
}  # fmt: skip


@pytest.mark.attacks("D1")
@pytest.mark.parametrize("name", AROUND)
def test_there_is_no_way_around(name: str) -> None:
    assert refused(AROUND[name]).code == IDENTIFIERS


def test_a_refusal_names_the_identifiers_with_their_columns_and_underlines_the_one_too_many() -> None:
    sql = f"SELECT x AS y, COUNT(*) FROM (SELECT {UNIT}, ben_res_com AS x, DAY(exe_soi_dtd) AS d FROM {E}) f WHERE d = 1 GROUP BY 1"
    found = refused(sql)
    assert found.text == (
        "the query uses 2 potential identifiers together, and this dataset allows 1: "
        "commune of residence (er_prs_f.ben_res_com); exact date of care (er_prs_f.exe_soi_dtd)"
    )
    assert found.span is not None
    assert sql[found.span.start : found.span.end] == "exe_soi_dtd"


def test_a_dataset_may_allow_more_or_none() -> None:
    two = snds(TOML.replace("at_most_identifiers = 1", "at_most_identifiers = 2"))
    assert plan(AROUND["two keys"], dataset=two).releases
    none = snds(TOML.replace("at_most_identifiers = 1", "at_most_identifiers = 0"))
    assert plan(ONE["none"], dataset=none).releases
    with pytest.raises(LegalRefused):
        plan(ONE["commune"], dataset=none)


def test_where_identifiers_are_declared_one_is_allowed_unless_the_dataset_says_otherwise() -> None:
    silent = snds(TOML.replace("[dataset.rules]\nat_most_identifiers = 1\n", ""))
    with pytest.raises(LegalRefused):
        plan(AROUND["two keys"], dataset=silent)


def test_a_dataset_without_rules_refuses_nothing_and_plans_are_the_same() -> None:
    free = snds(TOML.replace(RULES, "").replace(', release = "never"', ""))
    assert plan(AROUND["two keys"], dataset=free).releases
    assert plan_care("SELECT sex, region, COUNT(*) FROM person GROUP BY 1, 2", scope=Scope(accounting="zcdp")).releases
    assert plan(ONE["commune"]).releases == plan(ONE["commune"], dataset=free).releases


# -- columns never to be released ------------------------------------------------------------------------------------

FILTERED = {
    "WHERE": f"SELECT ben_sex_cod, COUNT(*) FROM {B} WHERE ben_hid_sco > 50 GROUP BY 1",
    "ON": f"SELECT COUNT(*) FROM {BOTH} AND b.ben_hid_cod IN (1, 2)",
    "FILTER": f"SELECT COUNT(*) FILTER (WHERE ben_hid_cod = 3), SUM(ben_nai_ann) FILTER (WHERE ben_hid_cod = 3) FROM {B}",
    "COUNT_IF": f"SELECT COUNT_IF(ben_hid_sco > 3) FROM {B}",
    "how many have a value": f"SELECT COUNT(ben_hid_sco) FROM {B}",
    "a cohort": f"SELECT prs_nat_ref, COUNT(*) FROM {E} WHERE ({UNIT}) IN (SELECT {UNIT} FROM {B} WHERE ben_hid_cod = 1) GROUP BY 1",
    "a tied column that is not shown": f"SELECT ben_sex_cod, COUNT(*) FROM {B} WHERE ben_hid_cod < ben_nai_moi GROUP BY 1",
    "a filter beside conditions on what is summed": f"SELECT SUM(ben_nai_moi) FILTER (WHERE ben_hid_cod = 3 AND ben_nai_moi > 2), COUNT_IF(ben_hid_cod < ben_nai_moi) FROM {B}",
    "a public table on something else": f"SELECT c.region, COUNT(*) FROM {B} b JOIN communes c ON c.code = b.ben_res_com WHERE ben_hid_cod = 3 GROUP BY 1",
    "a correlated cohort that is tied to another column": f"SELECT b.ben_sex_cod, COUNT(*) FROM {B} b WHERE EXISTS (SELECT 1 FROM {E} e WHERE {ON} AND e.prs_pai_mnt > b.ben_hid_sco) GROUP BY 1",
    "the first care of those chosen": f"SELECT n, YEAR(d), COUNT(*) FROM (SELECT prs_nat_ref AS n, exe_soi_dtd AS d, ROW_NUMBER() OVER (PARTITION BY {UNIT} ORDER BY exe_soi_dtd) AS r FROM {E} WHERE ({UNIT}) IN (SELECT {UNIT} FROM {B} WHERE ben_hid_sco > 3)) f WHERE r = 1 GROUP BY 1, 2",
    "carried and not read": f"WITH c AS (SELECT * FROM {B}) SELECT ben_sex_cod, COUNT(*) FROM c GROUP BY 1",
}  # fmt: skip
SHOWN = {
    "a key": f"SELECT ben_hid_cod, COUNT(*) FROM {B} GROUP BY 1",
    "DISTINCT": f"SELECT DISTINCT ben_hid_cod FROM {B}",
    "a computed key": f"SELECT ben_hid_cod % 2, COUNT(*) FROM {B} GROUP BY 1",
    "a condition as a key": f"SELECT ben_hid_cod = 3, COUNT(*) FROM {B} GROUP BY 1",
    "codes as a key": f"SELECT CASE ben_hid_cod WHEN 1 THEN 'a' WHEN 2 THEN 'b' END AS c, COUNT(*) FROM {B} GROUP BY 1",
    "an alias": f"SELECT ben_sex_cod, COUNT(*) FROM (SELECT {UNIT}, ben_hid_cod AS ben_sex_cod FROM {B}) b GROUP BY 1",
    "SUM": f"SELECT SUM(ben_hid_sco) FROM {B}",
    "AVG of a part": f"SELECT AVG(LEAST(ben_hid_sco, 50) * 2 + ben_nai_ann) FROM {B}",
    "VARIANCE": f"SELECT VARIANCE(ben_hid_cod) FROM {B}",
    "CORR": f"SELECT CORR(ben_hid_cod, ben_nai_moi) FROM {B}",
    "MIN": f"SELECT MIN(ben_hid_sco) FROM {B}",
    "MEDIAN": f"SELECT MEDIAN(ben_hid_sco) FROM {B}",
    "a filtered sum": f"SELECT SUM(ben_hid_sco) FILTER (WHERE ben_sex_cod = 1) FROM {B}",
    "grouping sets": f"SELECT ben_hid_cod, ben_sex_cod, COUNT(*) FROM {B} GROUP BY ROLLUP (ben_sex_cod, ben_hid_cod)",
    "a person's maximum": f"SELECT m, COUNT(*) FROM (SELECT {UNIT}, MAX(ben_hid_cod) AS m FROM {B} GROUP BY 1, 2) f GROUP BY 1",
    "a person's count": f"SELECT m, COUNT(*) FROM (SELECT {UNIT}, COUNT_IF(ben_hid_cod = 3) AS m FROM {B} GROUP BY 1, 2) f GROUP BY 1",
    "a window": f"SELECT m, COUNT(*) FROM (SELECT FIRST_VALUE(ben_hid_cod) OVER (PARTITION BY {UNIT} ORDER BY ben_nai_ann) AS m FROM {B}) f GROUP BY 1",
    "a rank": f"SELECT m, COUNT(*) FROM (SELECT RANK() OVER (PARTITION BY {UNIT} ORDER BY ben_hid_cod) AS m FROM {B}) f GROUP BY 1",
    "UNION ALL": f"SELECT c, COUNT(*) FROM (SELECT {UNIT}, ben_nai_moi AS c FROM {B} UNION ALL SELECT {UNIT}, ben_hid_cod FROM {B}) u GROUP BY 1",
    "INTERSECT": f"SELECT c, COUNT(*) FROM (SELECT {UNIT}, ben_nai_moi AS c FROM {B} INTERSECT SELECT {UNIT}, ben_hid_cod FROM {B}) u GROUP BY 1",
    "an equal column": f"SELECT ben_nai_moi, COUNT(*) FROM {B} WHERE ben_nai_moi = ben_hid_cod GROUP BY 1",
    "a public table's column": f"SELECT c.number, COUNT(*) FROM {B} b JOIN communes c ON c.number = b.ben_hid_cod GROUP BY 1",
    "a public table's other column": f"SELECT c.region, COUNT(*) FROM {B} b JOIN communes c ON c.number = b.ben_hid_cod GROUP BY 1",
    "two steps": f"SELECT d.region, COUNT(*) FROM {B} b JOIN communes c ON c.number = b.ben_hid_cod JOIN communes d ON d.code = c.code GROUP BY 1",
    "values written out": f"SELECT v.y, COUNT(*) FROM {B} b JOIN (VALUES (1, 'a'), (2, 'b')) v(x, y) ON v.x = b.ben_hid_cod GROUP BY 1",
    "decoded by OR": f"SELECT v.y, COUNT(*) FROM {B} b JOIN (VALUES (1), (2)) v(y) ON (v.y = 1 AND b.ben_hid_sco < 50) OR (v.y = 2 AND b.ben_hid_sco >= 50) GROUP BY 1",
    "a left join": f"SELECT c.region, COUNT(*) FROM {B} b LEFT JOIN communes c ON c.number = b.ben_hid_cod GROUP BY 1",
    "IN a column": f"SELECT ben_nai_moi, COUNT(*) FROM {B} WHERE (ben_nir_psa, ben_rng_gem, ben_nai_moi) IN (SELECT {UNIT}, ben_hid_cod FROM {B}) GROUP BY 1",
    "decoded by a computed column": f"SELECT k, COUNT(*) FROM (SELECT v.k AS k, CASE WHEN b.ben_hid_cod = v.k THEN 1 ELSE 0 END AS same FROM {B} b JOIN (VALUES (1), (2)) v(k) ON v.k > 0) f WHERE same = 1 GROUP BY 1",
    "the nearest of public values": f"SELECT k, COUNT(*) FROM (SELECT v.k AS k, ROW_NUMBER() OVER (PARTITION BY {UNIT} ORDER BY ABS(b.ben_hid_cod - v.k)) AS r FROM {B} b JOIN (VALUES (1), (2)) v(k) ON v.k > 0) f WHERE r = 1 GROUP BY 1",
    "an equal column, computed": f"SELECT m, COUNT(*) FROM (SELECT ben_nai_moi AS m, ben_hid_cod = ben_nai_moi AS same FROM {B}) f WHERE same GROUP BY 1",
    "a correlated cohort": f"SELECT b.ben_nai_moi, COUNT(*) FROM {B} b WHERE EXISTS (SELECT 1 FROM {B} c WHERE c.ben_nir_psa = b.ben_nir_psa AND c.ben_rng_gem = b.ben_rng_gem AND c.ben_hid_cod = b.ben_nai_moi) GROUP BY 1",
    "a filter on an equal column": f"SELECT SUM(ben_nai_moi) FILTER (WHERE ben_sex_cod = 1 AND ben_nai_moi = ben_hid_cod) FROM {B}",
    "a sum of a case of an equal column": f"SELECT SUM(m) FROM (SELECT CASE WHEN ben_nai_moi = ben_hid_cod THEN ben_nai_moi END AS m FROM {B}) f",
    "a public number by a case": f"SELECT SUM(CASE WHEN c.number = b.ben_hid_cod THEN c.number END) FROM {B} b JOIN communes c ON c.number > 0",
    "a sum of an equal column": f"SELECT SUM(ben_nai_moi) FROM {B} WHERE ben_nai_moi = ben_hid_cod",
}  # fmt: skip


@pytest.mark.parametrize("name", FILTERED)
def test_a_column_never_released_may_choose_rows(name: str) -> None:
    assert plan(FILTERED[name]).releases


@pytest.mark.attacks("D2")
@pytest.mark.parametrize("name", SHOWN)
def test_a_column_never_released_does_not_come_out(name: str) -> None:
    found = refused(SHOWN[name])
    assert found.code == NEVER
    assert "ir_ben_r.ben_hid_" in found.text


def test_what_is_never_released_is_underlined() -> None:
    sql = f"SELECT AVG(b.ben_hid_sco) FROM {B} b"
    found = refused(sql)
    assert found.span is not None
    assert sql[found.span.start : found.span.end] == "b.ben_hid_sco"


# -- wrapped at random -----------------------------------------------------------------------------------------------

TEXTS: list[Callable[[str], str]] = [
    "{}".format,
    "COALESCE({}, 'none')".format,
    "CASE WHEN {0} = '59350' THEN 'a' ELSE {0} END".format,
    "CONCAT('x', {})".format,
    "LOWER(SUBSTRING({}, 1, 2))".format,
    "NULLIF({}, '75056')".format,
    "REPLACE({}, '5', '6')".format,
    "CASE WHEN {} IS NULL THEN 'f' ELSE 't' END".format,
    "CAST(LENGTH({}) AS VARCHAR)".format,
]


@st.composite
def wrapped(draw: st.DrawFn) -> str:
    """A query by commune of residence and commune of death, under names and derived tables that say nothing of it."""
    source = f"(SELECT ben_nir_psa AS u, ben_rng_gem AS g, ben_res_com AS x0, ben_dcd_com AS y0 FROM {B})"
    for depth in range(draw(st.integers(1, 4))):
        x, y = (draw(st.sampled_from(TEXTS))(f"s.{name}{depth}") for name in "xy")
        columns = f"s.u, s.g, {x} AS x{depth + 1}, {y} AS y{depth + 1}"
        kind = draw(st.sampled_from(["plain", "distinct", "twice", "per person", "window", "joined"]))
        if kind == "plain":
            source = f"(SELECT {columns} FROM {source} s)"
        elif kind == "distinct":
            source = f"(SELECT DISTINCT {columns} FROM {source} s)"
        elif kind == "twice":
            source = f"(SELECT {columns} FROM {source} s UNION ALL SELECT {columns} FROM {source} s)"
        elif kind == "per person":
            source = f"(SELECT s.u, s.g, MIN({x}) AS x{depth + 1}, MAX({y}) AS y{depth + 1} FROM {source} s GROUP BY s.u, s.g)"
        elif kind == "window":
            over = "OVER (PARTITION BY s.u, s.g ORDER BY s.u)"
            source = f"(SELECT s.u, s.g, FIRST_VALUE({x}) {over} AS x{depth + 1}, LAST_VALUE({y}) {over} AS y{depth + 1} FROM {source} s)"
        else:
            source = f"(SELECT {columns} FROM {source} s JOIN {source} o ON o.u = s.u AND o.g = s.g)"
    use = draw(
        st.sampled_from(
            [
                "SELECT x{0}, y{0}, COUNT(*) FROM {1} s GROUP BY 1, 2",
                "SELECT x{0}, COUNT(*) FROM {1} s WHERE y{0} = 'a' GROUP BY 1",
                "SELECT COUNT(*) FROM {1} s WHERE x{0} LIKE 'a%' OR y{0} IS NULL",
                "SELECT COUNT(*) FROM {1} s WHERE x{0} = y{0}",
                "SELECT COUNT(x{0}), COUNT_IF(y{0} > 'b') FROM {1} s",
                "SELECT x{0} || y{0} AS z, COUNT(*) FROM {1} s GROUP BY 1",
                "SELECT COUNT(*) FROM {1} s WHERE (u, g) IN (SELECT u, g FROM {1} t WHERE x{0} = 'a') AND y{0} = 'b'",
            ]
        )
    )
    return use.format(depth + 1, source)


@settings(deadline=None, max_examples=150)
@given(sql=wrapped())
def test_no_wrapping_hides_a_column(sql: str) -> None:
    assert refused(sql).code == IDENTIFIERS


@settings(deadline=None, max_examples=50)
@given(sql=wrapped())
def test_and_the_same_wrapping_of_one_identifier_is_planned(sql: str) -> None:
    assert plan(sql.replace("ben_dcd_com", "ben_res_dpt")).releases
