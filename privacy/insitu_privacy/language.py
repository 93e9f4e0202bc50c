"""The language in which errors are shown: English, or French where whoever looks at them asks for it.

Texts travel, are signed and are logged in English, whatever the language of the machine that wrote them: a node's
language is not its researchers'. Only where an error is shown, ``InsituError.line`` puts it in the language of that
process, which its command line or the SDK sets once, from its environment. Nothing is decided by a language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "fr"]
_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")
"""In the order of POSIX: the first that is set and not empty says it."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words of a dataset or of the catalogue that have a French form. As text they are English, as texts travel."""

    english: str
    french: str

    def __str__(self) -> str:
        return self.english

    def said(self, language: Language) -> str:
        """The words in a language."""
        return self.french if language == "fr" else self.english


def language_of(environment: Mapping[str, str]) -> Language:
    """The language that the environment of a process asks for; English for any that is not here."""
    asked = next((environment[name] for name in _VARIABLES if environment.get(name)), "")
    return "fr" if asked.lower().replace("-", "_").split(".")[0].split("_")[0] == "fr" else "en"


class _Spoken:
    """The one setting of the process; of the edge alone, as the language of a terminal is."""

    language: Language = "en"


def speak(language: Language) -> None:
    """Show errors in a language from now on."""
    _Spoken.language = language


def spoken() -> Language:
    """The language in which this process shows errors."""
    return _Spoken.language
