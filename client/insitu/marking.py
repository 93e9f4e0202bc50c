"""Puts the SQL beside an error that points into it, so that whoever shows the error can underline the clause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from insitu_privacy.errors import InsituError


@contextmanager
def marking(sql: str) -> Iterator[None]:
    """Within this block, an InsituError with a span gets the attribute ``sql``."""
    try:
        yield
    except InsituError as error:
        if error.span is not None:
            error.sql = sql  # type: ignore[attr-defined]
        raise
