"""What commands share: one line per error, exit codes by kind, nothing that rewrites a terminal."""

from __future__ import annotations

import json

import pytest
import typer
from insitu_access.cli import Format, exit_code, fail, new_app, print_facts, printable, run
from insitu_access.payload import Malformed
from insitu_privacy.errors import (
    CATALOGUE,
    AccessRefused,
    ConfigInvalid,
    ExecutionFailed,
    InsituError,
    IntegrityFailed,
    RemoteError,
    Span,
    SqlRefused,
    Unavailable,
)


def program(act) -> typer.Typer:
    app = new_app("insitu-test", "1.2.3", "A test.")

    @app.command()
    def go(*, count: int = 1) -> None:
        act(count)

    @app.command()
    def other() -> None:
        """Another, so that commands have names."""

    return app


def outcome(monkeypatch, capsys, act, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["insitu-test", *arguments])
    with pytest.raises(SystemExit) as caught:
        run(program(act), "insitu-test")
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def raising(error: BaseException):
    def act(_: int) -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AccessRefused("INSITU-ACCESS-WRONG-KEY"), 2),
        (ConfigInvalid("INSITU-CONFIG-FILE", path="x", reason="y"), 2),
        (Unavailable("INSITU-NODE-BUSY"), 3),
        (ExecutionFailed("INSITU-NODE-FAILED"), 4),
        (IntegrityFailed("INSITU-VERIFY-RESULT", reason="x"), 4),
        (RemoteError("INSITU-NODE-BUSY", "x", "y"), 3),
        (RemoteError("INSITU-NODE-FAILED", "x", "y"), 4),
        (RemoteError("INSITU-SQL-SYNTAX", "x", "y"), 2),
        (RemoteError("INSITU-OF-A-LATER-VERSION", "x", "y"), 2),
    ],
)
def test_errors_are_one_line_and_a_code(monkeypatch, capsys, error: InsituError, code: int) -> None:
    assert exit_code(error) == code
    status, out, err = outcome(monkeypatch, capsys, raising(error), "go")
    assert (status, out, err) == (code, "", error.line() + "\n")


def test_the_sql_is_underlined_where_it_is_known(capsys) -> None:
    error = SqlRefused("INSITU-SQL-ROW-OUTPUT", span=Span(start=7, end=11))
    error.sql = "SELECT name FROM person"
    assert fail(error) == 2
    assert capsys.readouterr().err.splitlines()[1:] == ["SELECT name FROM person", "       ^^^^"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["nothing"], ["go", "--count", "x"], ["go", "--bad"], ["go", "extra"], ["--bad"], ["go", "--count"]],
)
def test_usage_errors_are_one_line(monkeypatch, capsys, arguments: list[str]) -> None:
    status, out, err = outcome(monkeypatch, capsys, lambda _: None, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("INSITU-CONFIG-USAGE: ")
    assert err.count("\n") == 1
    assert "--help" in err


def test_what_the_user_mistyped_is_a_usage_error(monkeypatch, capsys) -> None:
    status, _, err = outcome(monkeypatch, capsys, raising(Malformed("id must be a name")), "go")
    assert (status, err.split(":")[0]) == (2, "INSITU-CONFIG-USAGE")


def test_a_file_that_fails_is_told(monkeypatch, capsys) -> None:
    error = PermissionError(13, "Permission denied", "/some/file")
    status, _, err = outcome(monkeypatch, capsys, raising(error), "go")
    assert status == 2
    assert err.startswith("INSITU-CONFIG-FILE: cannot read /some/file: Permission denied.")


def test_an_interrupt_is_no_traceback(monkeypatch, capsys) -> None:
    assert outcome(monkeypatch, capsys, raising(KeyboardInterrupt()), "go")[0] == 130


def test_success_and_chosen_codes(monkeypatch, capsys) -> None:
    assert outcome(monkeypatch, capsys, lambda _: None, "go")[0] == 0
    assert outcome(monkeypatch, capsys, raising(typer.Exit(7)), "go")[0] == 7
    assert outcome(monkeypatch, capsys, lambda _: None, "--version")[:2] == (0, "insitu-test 1.2.3\n")
    assert outcome(monkeypatch, capsys, lambda _: None, "go", "--help")[0] == 0


def test_a_fault_of_insitu_shows_where(monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["insitu-test", "go"])
    with pytest.raises(ZeroDivisionError):
        run(program(raising(ZeroDivisionError())), "insitu-test")


def test_nothing_rewrites_the_terminal(capsys) -> None:
    assert printable("a\x1b[2J\u202eb\tc\nd\r") == "a\ufffd[2J\ufffdb c\nd\ufffd"
    fail(RemoteError("INSITU-X", "a\x1b]0;owned\x07", "b"))
    assert "\x1b" not in capsys.readouterr().err


FACTS = {
    "kind": "x", "none": None, "yes": True, "list": ["a", "b"], "empty": [], "inner": {"a_b": 1},
    "rows": [{"id": "n\x1b", "deep": {"z": 2}}],
}  # fmt: skip


def test_facts_as_json_are_one_document(capsys) -> None:
    print_facts(FACTS, Format.JSON)
    assert json.loads(capsys.readouterr().out) == FACTS


def test_facts_as_text_are_for_people(capsys) -> None:
    print_facts(FACTS, Format.TEXT)
    assert capsys.readouterr().out == (
        "kind: x\nnone: -\nyes: yes\nlist: a, b\nempty: -\ninner:\n  a b: 1\nrows:\n  - id: n\ufffd\n    deep:\n      z: 2\n"
    )


def test_every_code_has_an_exit_code() -> None:
    for code in CATALOGUE:
        assert exit_code(RemoteError(code, "", "")) in {2, 3, 4}
