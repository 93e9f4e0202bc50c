"""Every word that a dialect's parser knows, inside itself: finds what doubles the parser's work with each level.

    python -m tests.fuzz.nesting [DIALECT ...]

Not in `make test`: it takes minutes. Run it when sqlglot changes; what it finds goes into ``bombs``.
"""

from __future__ import annotations

import sys

from sqlglot.dialects.dialect import Dialect

from tests.fuzz.targets_privacy import DIALECTS
from tests.fuzz.worker import Worker

_LEVELS = 24
_SECONDS = 1.0
_FORMS = (
    ("{0}(", ")"),
    ("{0}(1, ", ")"),
    ("{0}(1, 1, ", ")"),
    ("{0}<", ">"),
    ("{0} ", ""),
    ("({0} ", ")"),
    ("CAST(1 AS {0}(", "))"),
    ("{0}[", "]"),
    ("{0}{{", "}}"),
    ("{0}(DISTINCT ", ")"),
    ("{0}(SELECT ", ")"),
    ("(SELECT {0} ", ")"),
    ("{0}(x AS ", ")"),
    ("x -> {0}(", ")"),
    ("CASE WHEN {0} THEN ", " END"),
    ("{0} x, ", ""),
    ("{0} (1) ", ""),
)


def words(dialect: str) -> list[str]:
    """Functions, types, keywords and names."""
    reader = Dialect.get_or_raise(dialect)
    parser = type(reader.parser())
    kinds = {token.name for token in (*parser.TYPE_TOKENS, *parser.ID_VAR_TOKENS)}
    return sorted({*parser.FUNCTIONS, *parser.FUNCTION_PARSERS, *kinds, *map(str, reader.tokenizer_class.KEYWORDS)})


def main() -> int:
    """Print what is slow, or no refusal."""
    worker, found = Worker(), 0
    for dialect in sys.argv[1:] or DIALECTS:
        place = bytes([DIALECTS.index(dialect)])
        for word in words(dialect):
            for opening, closing in _FORMS:
                sql = f"SELECT {opening.format(word) * _LEVELS}1{closing.format() * _LEVELS}"
                ran = worker.run("sql-parse", place + sql.encode(), _SECONDS)
                if ran.defect or ran.seconds > _SECONDS:
                    found += 1
                    print(dialect, word, opening, ran.seconds, ran.outcome[-200:], flush=True)
    worker.close()
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
