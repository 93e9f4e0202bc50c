"""``insitu-node status``: what this node would answer to now, from its state directory alone."""

from __future__ import annotations

import fcntl
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from insitu_access.cli import Format, FormatOption, print_facts

from insitu_node.commands.jurisdictions import jurisdiction_facts, manifest_of
from insitu_node.commands.options import ConfigOption

if TYPE_CHECKING:
    from insitu_access.manifest import Manifest

    from insitu_node.config import NodeConfig


def status(config: ConfigOption, format_: FormatOption = Format.TEXT) -> None:
    """Show whether the node runs, its manifest, where gateways may be, whether it is halted, and its projects.

    \b
    Example: insitu-node status --config node.toml --format json
    """
    from insitu_node.config import load_config

    loaded = load_config(config)
    facts: dict[str, object] = {
        "node": loaded.node_id,
        "running": _is_running(loaded.state),
        "gateways": list(loaded.gateways),
    }
    manifest = manifest_of(loaded)
    facts["jurisdictions"] = jurisdiction_facts(loaded, manifest)
    print_facts({**facts, **_manifest(manifest), **_custody(loaded)}, format_)


def _is_running(state: Path) -> bool:
    path = state / "lock"
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        return False


def _manifest(manifest: Manifest | None) -> dict[str, object]:
    if manifest is None:
        return {"manifest": None}
    times = {"issued_at": manifest.issued_at, "expires_at": manifest.expires_at}
    return {
        "manifest": {
            "version": manifest.version,
            **{name: f"{moment:%Y-%m-%dT%H:%M:%SZ}" for name, moment in times.items()},
        }
    }


def _custody(loaded: NodeConfig) -> dict[str, object]:
    from insitu_node.commands.projects import opened, row

    with opened(loaded.path) as (_, store):
        halt = store.halt()
        standings = Counter(str(row(project, loaded)["status"]) for project in store.all())
    halted = halt is not None and halt.halted
    return {
        "halted": halted,
        "halt_reason": halt.reason if halted and halt is not None else None,
        "projects": dict(sorted(standings.items())),
    }
