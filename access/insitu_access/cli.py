"""What every insitu command shares: how it starts, how it fails, how it prints facts.

Errors are one line on standard error, ``INSITU-…: what. remedy``, in the language that the environment asks for where
the catalogue has it, with the SQL underlined where the error carries ``sql`` and a span. Exit codes: 0 only on success;
2 refused or wrongly configured or called; 3 another party is away; 4 something does not verify, or failed after private
data was read. A mistake of the user never shows a traceback; a fault in insitu itself does. Not here: gRPC status codes
(``insitu_proto.status``), tables in colour (the client).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, NoReturn

import typer
from insitu_privacy.errors import (
    ConfigInvalid,
    ExecutionFailed,
    InsituError,
    IntegrityFailed,
    RemoteError,
    Unavailable,
    underline,
)
from insitu_privacy.language import language_of, speak

from insitu_access.payload import Malformed

EXIT_REFUSED, EXIT_UNAVAILABLE, EXIT_INTEGRITY, EXIT_INTERRUPTED = 2, 3, 4, 130


class Format(StrEnum):
    """How facts are printed: for people, or one JSON document."""

    TEXT = "text"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print: text, or one JSON document.")]


def new_app(program: str, version: str, summary: str) -> typer.Typer:
    """A typer app with ``--version``, plain help, and no help of its own on errors."""
    app = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )

    def show_version(asked: bool) -> None:
        if asked:
            typer.echo(f"{program} {version}")
            raise typer.Exit

    # as a default, not in Annotated: annotations are looked up where a local name cannot be seen
    asked = typer.Option(False, "--version", callback=show_version, is_eager=True, help="Show the version and exit.")

    @app.callback(help=summary)
    def main(*, version: bool = asked) -> None:
        """Options before the command; their callbacks do the work."""

    return app


def run(app: typer.Typer, program: str | None = None) -> NoReturn:
    """Run a command line and exit with its code. ``program`` names the command in help and hints."""
    speak(language_of(os.environ))
    try:
        code = app(prog_name=program, standalone_mode=False)
    except InsituError as error:
        sys.exit(fail(error))
    except Malformed as error:
        sys.exit(fail(usage(error.reason, f"See `{program or 'the command'} --help`.")))
    except typer.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except typer.TyperException as error:
        sys.exit(fail(_usage(error, program)))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone: nobody is left to tell
        sys.exit(1)
    except OSError as error:
        sys.exit(fail(_file_error(error)))
    sys.exit(code if isinstance(code, int) else 0)


def fail(error: InsituError) -> int:
    """Print an error on standard error and return the exit code it stands for."""
    print(printable(error.line()), file=sys.stderr)
    sql = getattr(error, "sql", None)
    if error.span is not None and isinstance(sql, str):
        print(printable(underline(sql, error.span)), file=sys.stderr)
    return exit_code(error)


def exit_code(error: InsituError) -> int:
    """The exit code that an error stands for; a remote error by the category its code has in the catalogue."""
    if isinstance(error, Unavailable):
        return EXIT_UNAVAILABLE
    if isinstance(error, (IntegrityFailed, ExecutionFailed)):
        return EXIT_INTEGRITY
    if isinstance(error, RemoteError):
        return _remote_exit_code(error.code)
    return EXIT_REFUSED


def usage(reason: str, hint: str) -> ConfigInvalid:
    """The error of a command line that cannot be right."""
    return ConfigInvalid("INSITU-CONFIG-USAGE", reason=reason.rstrip("."), hint=hint)


def print_facts(facts: Mapping[str, object], format_: Format) -> None:
    """Print facts on standard output: one JSON document, or indented ``name: value`` lines."""
    if format_ is Format.JSON:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo("\n".join(_lines(facts, 0)))


def printable(text: str) -> str:
    """``text`` without control characters, which could rewrite what a terminal shows; newlines stay."""
    return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text.expandtabs(1))


def _remote_exit_code(code: str) -> int:
    from insitu_privacy.errors import CATALOGUE

    entry = CATALOGUE.get(code)
    if entry is not None and entry.category == "unavailable":
        return EXIT_UNAVAILABLE
    return EXIT_INTEGRITY if entry is not None and entry.category in ("execution", "integrity") else EXIT_REFUSED


def _usage(error: typer.TyperException, program: str | None) -> ConfigInvalid:
    context = getattr(error, "ctx", None)
    command = getattr(context, "command_path", None) or program or "the command"
    return usage(error.format_message(), f"See `{command} --help`.")


def _file_error(error: OSError) -> ConfigInvalid:
    reason = error.strerror or type(error).__name__
    return ConfigInvalid("INSITU-CONFIG-FILE", path=error.filename or "a file", reason=reason)


def _lines(facts: Mapping[str, object], depth: int) -> Iterable[str]:
    for name, value in facts.items():
        label = f"{'  ' * depth}{name.replace('_', ' ')}:"
        if isinstance(value, Mapping):
            yield label
            yield from _lines(value, depth + 1)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            yield label
            for item in value:
                yield from _bullet(item, depth + 1)
        else:
            yield f"{label} {_shown(value)}"


def _bullet(item: Mapping[str, object], depth: int) -> Iterable[str]:
    for index, line in enumerate(_lines(item, depth + 1)):
        yield f"{'  ' * depth}- {line.lstrip()}" if index == 0 else line


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "-"
    return printable(str(value))
