"""The legal rules in ``dataset.toml``: what they give, and each way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from insitu_privacy.dataset_file import parse_dataset
from insitu_privacy.errors import ConfigInvalid
from insitu_privacy.language import Phrase
from insitu_privacy.rules import Identifier, Read, Rules

from tests.testkit.care import care
from tests.testkit.snds import HEAD, RULES, TABLES, TOML, bundle, snds


def test_a_dataset_says_its_rules() -> None:
    rules = snds().rules
    assert rules.at_most_identifiers == 1
    assert rules.purposes == ("public-health-research", "quality-of-care")
    assert rules.never_released == {("ir_ben_r", "ben_hid_sco"), ("ir_ben_r", "ben_hid_cod")}
    assert rules.identifiers[0] == Identifier(
        name=Phrase("commune of residence", "commune de résidence"),
        parts=(frozenset({("ir_ben_r", "ben_res_com"), ("er_prs_f", "ben_res_com")}),),
        finer_than=None,
    )
    assert len(rules.identifiers[1].parts) == 2
    assert rules.identifiers[3].finer_than == "month"


def test_a_dataset_without_rules_has_none() -> None:
    assert care().rules == Rules()


def test_without_a_french_name_there_is_one_name() -> None:
    rules = snds(TOML.replace('french = "commune de résidence"\n', "")).rules
    assert rules.identifiers[0].name == Phrase("commune of residence", "commune of residence")


@pytest.mark.attacks("D4")
def test_the_digest_covers_the_rules() -> None:
    looser = bundle(TOML.replace("at_most_identifiers = 1", "at_most_identifiers = 2"))
    assert looser.digest() != bundle().digest()


def test_identifiers_of_one_name_count_once() -> None:
    day = Read("ir_ben_r", "ben_nai_dte", "month")
    halves = {Read("er_prs_f", "ben_nai_ann", "exact"), Read("ir_ben_r", "ben_nai_moi", "exact")}
    crossed = snds().rules.crossed({day, *halves})
    assert [name.english for name in crossed] == ["month and year of birth"]
    assert not snds().rules.crossed({Read("ir_ben_r", "ben_nai_dte", "year")})
    assert not snds().rules.crossed({Read("ir_ben_r", "ben_nai_moi", "exact")})


def test_the_example_of_the_docs_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "legal.md").read_text(encoding="utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    rules = parse_dataset(bundle(example + TABLES)).rules
    assert [one.name.english for one in rules.identifiers] == [
        "commune of residence", "month and year of birth", "exact date of care", "exact date of death", "commune of death",
    ]  # fmt: skip
    assert all(one.name.french != one.name.english for one in rules.identifiers)
    assert rules.at_most_identifiers == 1


def entry(text: str) -> str:
    return f"{HEAD}\n[[dataset.identifiers]]\n{text}\n{TABLES}"


ACTS = HEAD + TABLES + '[tables.acts]\nunit_path = { through = "er_prs_f", on = ["prs_id"] }\n'
COLUMN = 'columns = ["ir_ben_r.ben_res_com"]'
BAD = {
    "an unknown key": (entry(f'name = "x"\n{COLUMN}\nprecision = "month"'), "dataset.identifiers.0.precision"),
    "an unknown rule": (HEAD + "[dataset.rules]\nat_most = 1\n" + TABLES, "dataset.rules.at_most"),
    "a rule of nothing": (HEAD + "[dataset.rules]\nat_most_identifiers = 1\n" + TABLES, "no identifiers to count"),
    "a negative number": (TOML.replace("at_most_identifiers = 1", "at_most_identifiers = -1"), "at_most_identifiers"),
    "a number as text": (TOML.replace("at_most_identifiers = 1", 'at_most_identifiers = "1"'), "at_most_identifiers"),
    "no name": (entry(COLUMN), "dataset.identifiers.0.name"),
    "a name of two lines": (entry(f'name = "x\\ny"\n{COLUMN}'), "dataset.identifiers.0.name"),
    "no columns": (entry('name = "x"'), "say columns, or together"),
    "columns and together": (entry(f'name = "x"\n{COLUMN}\ntogether = [["er_prs_f.prs_id"], ["er_prs_f.flx_dis"]]'), "say columns, or together"),
    "an empty list": (entry('name = "x"\ncolumns = []'), "dataset.identifiers.0.columns"),
    "together of one": (entry('name = "x"\ntogether = [["ir_ben_r.ben_res_com"]]'), "dataset.identifiers.0.together"),
    "no such table": (entry('name = "x"\ncolumns = ["ir_ben.ben_res_com"]'), "ir_ben.ben_res_com is not table.column"),
    "no such column": (entry('name = "x"\ncolumns = ["ir_ben_r.commune"]'), "ir_ben_r.commune is not table.column"),
    "a column without its table": (entry('name = "x"\ncolumns = ["ben_res_com"]'), "ben_res_com is not table.column"),
    "a column twice": (entry('name = "x"\ncolumns = ["ir_ben_r.ben_res_com", "ir_ben_r.ben_res_com"]'), "a column stands twice"),
    "a column in two parts": (entry('name = "x"\ntogether = [["ir_ben_r.ben_res_com"], ["ir_ben_r.ben_res_com"]]'), "a column stands twice"),
    "a public column": (entry('name = "x"\ncolumns = ["communes.code"]'), "communes.code is public"),
    "the unit": (entry('name = "x"\ncolumns = ["ir_ben_r.ben_nir_psa"]'), "leads to the privacy unit"),
    "the way to the unit": (ACTS + '[[dataset.identifiers]]\nname = "x"\ncolumns = ["acts.prs_id"]', "leads to the privacy unit"),
    "the other end of that way": (ACTS + '[[dataset.identifiers]]\nname = "x"\ncolumns = ["er_prs_f.prs_id"]', "leads to the privacy unit"),
    "a period of what is no date": (entry(f'name = "x"\n{COLUMN}\nfiner_than = "month"'), "ir_ben_r.ben_res_com is none"),
    "another period": (entry('name = "x"\ncolumns = ["er_prs_f.flx_dis"]\nfiner_than = "week"'), "dataset.identifiers.0.finer_than"),
    "two French names": (RULES and TOML.replace('french = "mois et année de naissance"\ncolumns', 'french = "naissance"\ncolumns'), "two French forms"),
    "release of something else": (TOML.replace('release = "never"', 'release = "sometimes"'), "ben_hid_sco.release"),
    "release of a public column": (TOML.replace("number = { type", 'number = { release = "never", type'), "communes.number is public"),
    "release of the unit": (TOML.replace("ben_rng_gem = { type", 'ben_rng_gem = { release = "never", type'), "leads to the privacy unit"),
    "no purposes": (TOML.replace('purposes = ["public-health-research", "quality-of-care"]', "purposes = []"), "dataset.purposes"),
    "a purpose twice": (TOML.replace('"quality-of-care"]', '"public-health-research"]'), "a code stands twice"),
    "a purpose in words": (TOML.replace('"quality-of-care"]', '"Quality of care"]'), "dataset.purposes"),
}  # fmt: skip


@pytest.mark.attacks("D4")
@pytest.mark.parametrize("name", BAD)
def test_rules_that_could_not_work_are_refused(name: str) -> None:
    toml, reason = BAD[name]
    with pytest.raises(ConfigInvalid) as caught:
        parse_dataset(bundle(toml))
    assert caught.value.code == "INSITU-CONFIG-INVALID"
    assert reason in caught.value.text
