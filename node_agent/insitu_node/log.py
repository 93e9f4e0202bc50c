"""The custodian's log: JSON lines on standard error.

It tells who asked and what was decided, never what the data said (W4): no value, no count of rows, no duration of a
statement, no text of a database's error (P5). Whoever collects logs centrally collects nothing that is private.
"""

from __future__ import annotations

import logging
import sys

import structlog


def log_to_stderr(node_id: str) -> None:
    """Sets structlog up for this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(node=node_id)
