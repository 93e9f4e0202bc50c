"""The error tree of insitu, its stable codes and its one table of public texts.

    InsituError
    ├── Refused                 asked for something that is not allowed or not possible; nothing was spent
    │   ├── SqlRefused          the SQL itself, with the clause to underline
    │   ├── LegalRefused        the SQL crosses a legal rule that the dataset declares
    │   ├── ParameterRefused    a number, a date or an option of the request
    │   ├── BudgetRefused       the privacy filter stopped it
    │   └── AccessRefused       grant, signature, manifest: the chain of trust does not hold
    ├── ConfigInvalid           a file or a command line of whoever runs this process
    ├── Unavailable             another party is away, slow or too few
    ├── ExecutionFailed         after private data was read: one constant text, whatever happened
    └── IntegrityFailed         something another party signed does not verify

Texts never hold a data value: their fields are names, limits and positions that the person who reads them wrote
or may know. The text of every code stands in ``catalogue``; raising a code that is not there is a KeyError, and
a test raises each. ``text`` and ``remedy`` are English, in which errors travel and are logged; ``line``, and so an
error's ``str``, is in the language of the process that shows it (``language``).
What is not here: exit codes and gRPC status (``insitu_proto.status``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from insitu_privacy.catalogue import CATALOGUE, Category, Entry
from insitu_privacy.catalogue_fr import in_french, read_back
from insitu_privacy.language import spoken

__all__ = [
    "CATALOGUE",
    "AccessRefused",
    "BudgetRefused",
    "ConfigInvalid",
    "Entry",
    "ExecutionFailed",
    "InsituError",
    "IntegrityFailed",
    "LegalRefused",
    "ParameterRefused",
    "Refused",
    "RemoteError",
    "Span",
    "SqlRefused",
    "Unavailable",
    "underline",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where in the researcher's SQL an error lies: character offsets, ``end`` exclusive."""

    start: int
    end: int


class InsituError(Exception):
    """Base of all errors that insitu raises on purpose.

    ``code`` is stable; ``text`` and ``remedy`` are public; ``span`` marks the researcher's SQL where one applies.
    """

    categories: ClassVar[frozenset[Category]] = frozenset()

    def __init__(self, code: str, *, span: Span | None = None, **fields: object) -> None:
        entry = CATALOGUE[code]
        if entry.category not in type(self).categories:
            raise TypeError(f"{code} is not a {type(self).__name__}")
        self.code = code
        self.span = span
        self.text = entry.text.format(**fields)
        self.remedy = entry.remedy.format(**fields)
        self._fields: Mapping[str, object] | None = fields
        super().__init__(self.line())

    def shown(self) -> tuple[str, str]:
        """What was wrong and what to do, in the language of this process where the catalogue has it; else English."""
        french = spoken() == "fr" and self._fields is not None
        return (in_french(self.code, self._fields or {}) if french else None) or (self.text, self.remedy)

    def line(self) -> str:
        """The error on one line: code, what was wrong, what to do."""
        text, remedy = self.shown()
        return _printable(" ".join(f"{self.code}: {text}. {remedy}".split()))


class Refused(InsituError):
    """Not allowed or not possible; nothing was read and nothing was spent."""


class SqlRefused(Refused):
    """The SQL asks for something that cannot be answered privately, or cannot be understood."""

    categories: ClassVar[frozenset[Category]] = frozenset({"sql"})


class LegalRefused(Refused):
    """The SQL crosses a legal rule that the dataset declares."""

    categories: ClassVar[frozenset[Category]] = frozenset({"legal"})


class ParameterRefused(Refused):
    """A parameter of the request is out of range."""

    categories: ClassVar[frozenset[Category]] = frozenset({"parameter"})


class BudgetRefused(Refused):
    """The privacy filter of a node does not admit the query's loss."""

    categories: ClassVar[frozenset[Category]] = frozenset({"budget"})


class AccessRefused(Refused):
    """The chain authority, manifest, grant, researcher, request does not hold."""

    categories: ClassVar[frozenset[Category]] = frozenset({"access"})


class ConfigInvalid(InsituError):
    """A configuration file or command line of the party that runs this process."""

    categories: ClassVar[frozenset[Category]] = frozenset({"config"})


class Unavailable(InsituError):
    """Another party is away, slow, or too few answered."""

    categories: ClassVar[frozenset[Category]] = frozenset({"unavailable"})


class ExecutionFailed(InsituError):
    """Something failed after private data may have been read. Says nothing of what."""

    categories: ClassVar[frozenset[Category]] = frozenset({"execution"})


class IntegrityFailed(InsituError):
    """A signed object of another party does not verify."""

    categories: ClassVar[frozenset[Category]] = frozenset({"integrity"})


class RemoteError(InsituError):
    """An error that another party reported: its code and texts as they came over the wire, in English.

    What they were filled in with is read back out of them, so that they can be shown in another language. Where they
    are not those of this version's catalogue they are shown as they came.
    """

    def __init__(self, code: str, text: str, remedy: str, span: Span | None = None) -> None:
        self.code, self.text, self.remedy, self.span = code, text, remedy, span
        self._fields = read_back(code, text, remedy)
        Exception.__init__(self, self.line())


def _printable(text: str) -> str:
    """B5: what a peer, a file or a query put into a text plays no tricks on the terminal or log that shows it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else "\ufffd" for one in text)


_EXCERPT = 200


def underline(sql: str, span: Span) -> str:
    """The line of ``sql`` where ``span`` starts, and a second line of carets under the span.

    Of a long line, what stands around the start.
    """
    last = len(sql)  # B4: a peer may have given any numbers, and would have as many blanks and carets
    span = Span(start=min(span.start, last), end=min(max(span.start, span.end), last))
    start = sql.rfind("\n", 0, span.start) + 1
    end = sql.find("\n", span.start)
    line = sql[start:] if end < 0 else sql[start:end]
    width = max(1, min(span.end, start + len(line)) - span.start)
    before = span.start - start
    if len(line) <= _EXCERPT:
        return f"{line}\n{' ' * before}{'^' * width}"
    left = max(0, before - _EXCERPT // 3)
    shown = line[left : left + _EXCERPT]
    marks = "^" * min(width, len(shown) - (before - left))
    return (
        f"{'…' * (left > 0)}{shown}{'…' * (left + _EXCERPT < len(line))}\n{' ' * (before - left + (left > 0))}{marks}"
    )
