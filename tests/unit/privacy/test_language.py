"""Errors in English and French: chosen where they are shown, the same facts in both, and English as they travel."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_privacy.catalogue import CATALOGUE
from insitu_privacy.catalogue_fr import FRENCH, in_french, read_back
from insitu_privacy.errors import AccessRefused, LegalRefused, RemoteError, SqlRefused
from insitu_privacy.language import Language, Phrase, language_of, speak

CROSSED = Phrase(
    "commune of residence (b.com); exact date of care (e.day)",
    "commune de résidence (b.com); date exacte des soins (e.day)",
)


@pytest.fixture
def french() -> Iterator[None]:
    speak("fr")
    yield
    speak("en")


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        ({"LANG": "fr_FR.UTF-8"}, "fr"),
        ({"LANG": "fr"}, "fr"),
        ({"LANG": "FR-be"}, "fr"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "fro_FR"}, "en"),
        ({"LANG": "en_GB.UTF-8", "LC_MESSAGES": "fr_CA.UTF-8"}, "fr"),
        ({"LANG": "fr_FR.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "fr_FR.UTF-8", "LC_ALL": "", "LC_MESSAGES": ""}, "fr"),
        ({"LANG": "de_DE", "LC_TIME": "fr_FR"}, "en"),
    ],
)
def test_the_environment_says_the_language_as_posix_reads_it(
    environment: Mapping[str, str], language: Language
) -> None:
    assert language_of(environment) == language


def refusal() -> LegalRefused:
    return LegalRefused("INSITU-LEGAL-IDENTIFIERS", count=2, limit=1, what=CROSSED)


def test_a_refusal_in_english() -> None:
    assert str(refusal()) == refusal().line()
    assert (
        refusal()
        .line()
        .startswith(
            "INSITU-LEGAL-IDENTIFIERS: the query uses 2 potential identifiers together, and this dataset allows 1: "
            "commune of residence (b.com); exact date of care (e.day). Leave one out"
        )
    )


def test_the_same_refusal_in_french_which_still_travels_in_english(french: None) -> None:
    assert str(refusal()) == refusal().line()
    assert (
        refusal()
        .line()
        .startswith(
            "INSITU-LEGAL-IDENTIFIERS: la requête croise 2 identifiants potentiels, et ce jeu de données en permet 1 : "
            "commune de résidence (b.com); date exacte des soins (e.day). Retirez-en un"
        )
    )
    assert refusal().text.startswith("the query uses 2 potential identifiers")
    assert refusal().remedy.startswith("Leave one out")


def test_never_released_and_purpose_in_french(french: None) -> None:
    never = LegalRefused("INSITU-LEGAL-NEVER-RELEASED", name="t.c")
    assert "la colonne t.c n'est jamais restituée" in str(never)
    purpose = AccessRefused("INSITU-ACCESS-PURPOSE", name="snds", what=Phrase("none", "aucune"), known="a, b")
    assert "finalité de cette autorisation : aucune. Il peut l'être pour : a, b." in str(purpose)


def test_what_a_node_says_is_shown_in_the_language_of_the_researcher(french: None) -> None:
    said = AccessRefused("INSITU-ACCESS-NOT-GRANTED", what="table act")
    assert str(RemoteError(said.code, said.text, said.remedy)) == str(said)
    assert "l'autorisation ne couvre pas : table act" in str(said)


@pytest.mark.parametrize(
    "remote",
    [
        RemoteError("INSITU-ACCESS-NOT-GRANTED", "another version's words", "Ask."),
        RemoteError("INSITU-NEWER-CODE", "a code of another version", "Ask."),
    ],
)
def test_words_of_another_version_are_shown_as_they_came(french: None, remote: RemoteError) -> None:
    assert remote.line() == f"{remote.code}: {remote.text}. {remote.remedy}"


def test_what_has_no_french_is_shown_in_english(french: None) -> None:
    error = SqlRefused("INSITU-SQL-NOT-ONE", count=2)
    assert str(error) == "INSITU-SQL-NOT-ONE: expected one statement, found 2. Send one SELECT at a time."


def names(*texts: str) -> list[str]:
    return sorted({name for text in texts for _, name, _, _ in Formatter().parse(text) if name is not None})


def test_every_legal_and_access_code_has_french() -> None:
    assert {code for code, entry in CATALOGUE.items() if entry.category in ("legal", "access")} <= FRENCH.keys()


@pytest.mark.parametrize("code", FRENCH)
def test_both_languages_say_the_same_fields(code: str) -> None:
    entry = CATALOGUE[code]
    assert names(*FRENCH[code]) == names(entry.text, entry.remedy)
    assert not FRENCH[code][0].endswith(".")
    assert FRENCH[code][1].endswith(".")


@pytest.mark.parametrize("code", CATALOGUE)
@given(data=st.data())
def test_fields_are_read_back_out_of_the_english_texts(code: str, data: st.DataObject) -> None:
    """Where a text holds a separator of its own, the words may fall to another field: the texts are still the same."""
    entry = CATALOGUE[code]
    plain = st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=12)
    fields = {name: data.draw(plain) for name in names(entry.text, entry.remedy)}
    text, remedy = entry.text.format(**fields), entry.remedy.format(**fields)
    found = read_back(code, text, remedy)
    assert found is not None
    assert entry.text.format(**found) == text


def test_words_of_a_hostile_peer_take_no_time() -> None:
    """A pattern that tries every split of these would take hours."""
    entry = CATALOGUE["INSITU-LEGAL-IDENTIFIERS"]
    for words in (" potential identifiers together, and this dataset allows ", ": ", "the query uses "):
        assert read_back("INSITU-LEGAL-IDENTIFIERS", "the query uses " + words * 5000, entry.remedy + "x") is None


def test_braces_in_a_field_are_words(french: None) -> None:
    assert "{0.__class__}" in str(AccessRefused("INSITU-ACCESS-NOT-GRANTED", what="table {0.__class__}"))
    assert in_french("INSITU-ACCESS-NOT-GRANTED", {"what": "{what}"}) is not None


@pytest.mark.parametrize(("language", "says"), [("fr_FR.UTF-8", "l'autorisation a été révoquée"), ("C", "the grant has been revoked")])  # fmt: skip
def test_a_command_line_speaks_the_language_of_its_environment(language: str, says: str) -> None:
    program = (
        "import typer; from insitu_access.cli import new_app, run; from insitu_privacy.errors import AccessRefused\n"
        "app = new_app('x', '1', 'x')\n"
        "@app.command()\ndef ask():\n    raise AccessRefused('INSITU-ACCESS-GRANT-REVOKED')\n"
        "run(app)"
    )
    import os

    environment = {**os.environ, "LC_ALL": language, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, "ask"], env=environment, capture_output=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"INSITU-ACCESS-GRANT-REVOKED: {says}.")
