"""``DIR/compose.json``: what a directory was made from, so that it is never mistaken, mixed or cleared by accident.

absent      the directory is not ours: used only where it is empty
made        keys and configurations are being made, or a first start failed: the next `up` makes them anew
ready       every node was connected once, so the nodes' ledgers count: `up` starts again from what is there,
            and refuses where FEDERATION.toml or a dataset has changed since
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from insitu_access.files import write_file
from insitu_privacy.errors import ConfigInvalid

from insitu_compose.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a federation's directory says about itself."""

    federation: str
    file: str
    """Absolute path of the FEDERATION.toml it was made from."""
    fingerprint: str
    gateway: str
    nodes: tuple[str, ...]
    address: str
    """The gateway's ``host:port``, as the manifest and every configuration name it."""
    ready: bool


def read_record(layout: Layout) -> Record | None:
    """The directory's record; None where there is none. Raises ConfigInvalid where it is not whole."""
    try:
        fields = json.loads(layout.record.read_text(encoding="utf-8"))  # noqa: TID251  our own record
        return Record(**{**fields, "nodes": tuple(fields["nodes"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError):
        raise ConfigInvalid(
            "INSITU-CONFIG-INVALID", path=layout.record, reason="it is not a record of insitu-compose"
        ) from None


def need_record(layout: Layout) -> Record:
    """The directory's record. Raises ConfigInvalid where the directory holds no federation."""
    record = read_record(layout)
    if record is None:
        raise state_error(f"{layout.root} holds no federation", "Pass the --dir that was given to `insitu-compose up`.")
    return record


def write_record(layout: Layout, record: Record) -> None:
    """Replaces the record as a whole."""
    write_file(layout.record, (json.dumps(asdict(record), indent=1) + "\n").encode())


@contextmanager
def locked(layout: Layout, *, wait: bool) -> Iterator[None]:
    """Holds the directory's lock. Raises ConfigInvalid where another command holds it and ``wait`` is false."""
    with layout.lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise state_error(f"another insitu-compose is at work in {layout.root}", "Wait until it is done.") from None
        yield


def claim(root: Path) -> Layout:
    """The layout of a directory that is ours or empty, made where it is missing. Raises ConfigInvalid."""
    layout = Layout(root.absolute())
    try:
        layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        foreign = not layout.record.exists() and any(path != layout.lock for path in layout.root.iterdir())
    except OSError as error:
        raise ConfigInvalid("INSITU-CONFIG-FILE", path=root, reason=(error.strerror or "it fails").lower()) from None
    if foreign:
        raise state_error(f"{root} is not empty and holds no federation", "Pass --dir with a new or empty directory.")
    layout.root.chmod(0o700)
    return layout


def state_error(reason: str, hint: str) -> ConfigInvalid:
    """One line about how things stand here, and what to do."""
    return ConfigInvalid("INSITU-CONFIG-STATE", reason=reason, hint=hint)
