"""Makes the file paths in a site's mapping absolute, so that a node may be configured and run in another folder.

A mapping is a table, a view, a query of the site's own, or a file. Of a query only the text of file names changes:
the literals in ``read_parquet('…')`` and its like, and ``FROM 'file.parquet'``. Every other character stays as the
site wrote it. URLs and absolute paths stay as they are.
"""

from __future__ import annotations

from pathlib import Path

from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError
from sqlglot.tokenizer_core import Token, TokenType

_READERS = frozenset(
    {"read_parquet", "parquet_scan", "read_csv", "read_csv_auto", "read_json", "read_json_auto", "read_ndjson"}
)
_FILE_ENDINGS = (".parquet", ".csv", ".csv.gz", ".json", ".ndjson")
_OPENERS = frozenset({TokenType.L_PAREN, TokenType.L_BRACKET, TokenType.COMMA, TokenType.STRING})


def absolute_database(database: str | None, folder: Path) -> str | None:
    """The database with its path absolute; a URL, ``:memory:`` and none as they are."""
    if database is None or "://" in database or database == ":memory:":
        return None if database == ":memory:" else database
    return str(folder / database)


def absolute_mapping(text: str, folder: Path) -> str:
    """``text`` with the relative file names in it made absolute."""
    if " " not in text.strip() and text.strip().lower().endswith(_FILE_ENDINGS):
        return _absolute(text.strip(), folder)
    try:
        tokens = DuckDB().tokenize(text)
    except SqlglotError:
        return text  # the node says what is wrong with it
    for index in reversed(range(len(tokens))):
        token = tokens[index]
        if token.token_type is TokenType.STRING and _names_file(tokens, index):
            path = _absolute(token.text, folder).replace("'", "''")
            text = f"{text[: token.start]}'{path}'{text[token.end + 1 :]}"
    return text


def _absolute(name: str, folder: Path) -> str:
    return name if "://" in name else str(folder / name)


def _names_file(tokens: list[Token], index: int) -> bool:
    """Whether the string at ``index`` is a file: after FROM or JOIN, or first in a function that reads files."""
    before = index - 1
    if before >= 0 and tokens[before].token_type in (TokenType.FROM, TokenType.JOIN):
        return True
    in_list = False
    while before >= 0 and tokens[before].token_type in _OPENERS:
        if tokens[before].token_type is TokenType.L_PAREN:
            listed = in_list or before == index - 1
            return listed and before > 0 and tokens[before - 1].text.lower() in _READERS
        in_list = in_list or tokens[before].token_type is TokenType.L_BRACKET
        before -= 1
    return False
