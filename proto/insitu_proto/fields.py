"""What a field of a protobuf message may hold: refused where it is missing or too long (B1)."""

from __future__ import annotations

from insitu_privacy.errors import AccessRefused

from insitu_proto import messages as m


def malformed(reason: str) -> AccessRefused:
    """The error for bytes that are not a message."""
    return AccessRefused("INSITU-ACCESS-MALFORMED", what="message", reason=reason)


def text(value: str, name: str, limit: int = m.MAX_TEXT_CHARS) -> str:
    """A text that must be there."""
    if not value:
        raise malformed(f"{name} is missing")
    if len(value) > limit:
        raise malformed(f"{name} is longer than {limit}")
    return value


def token(value: str, name: str) -> str:
    """A signed object that must be there."""
    return text(value, name, m.MAX_TOKEN_CHARS)


def optional(value: str, name: str, limit: int = m.MAX_TEXT_CHARS) -> str | None:
    """A text that may be missing."""
    return text(value, name, limit) if value else None
