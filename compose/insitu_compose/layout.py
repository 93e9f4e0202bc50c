"""Where everything of one federation stands: one directory, all of its state, nothing outside it.

    DIR/
      compose.json        what made this directory, and the gateway's address        (marker; see ``record``)
      lock                held while `up` starts or `down` stops
      authority/          the access committee's keys and register
      manifest.jws  grant.jwt
      gateway/            gateway.toml  identity/  state/
      nodes/ID/           node.toml  identity/  state/
      researcher/         identity/
      profile/            what `insitu connect` wrote: the directory for --profile
      logs/NAME.log       what each process wrote to standard error
      run/NAME.json       the process: id and start time; run/stopping while `down` is at work

The directory holds the keys of all parties, so it and all in it is for its owner only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

GATEWAY = "gateway"
"""Name of the gateway's process; nodes are called ``node-ID``, so the two never meet."""


def node_process(node: str) -> str:
    """The name of a node's process."""
    return f"node-{node}"


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths under one federation's directory."""

    root: Path

    @property
    def record(self) -> Path:
        return self.root / "compose.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def authority(self) -> Path:
        return self.root / "authority"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.jws"

    @property
    def grant(self) -> Path:
        return self.root / "grant.jwt"

    @property
    def gateway(self) -> Path:
        return self.root / "gateway"

    @property
    def gateway_config(self) -> Path:
        return self.gateway / "gateway.toml"

    @property
    def gateway_identity(self) -> Path:
        return self.gateway / "identity"

    @property
    def nodes(self) -> Path:
        return self.root / "nodes"

    def node_config(self, node: str) -> Path:
        return self.nodes / node / "node.toml"

    def node_identity(self, node: str) -> Path:
        return self.nodes / node / "identity"

    @property
    def researcher_identity(self) -> Path:
        return self.root / "researcher" / "identity"

    @property
    def profile(self) -> Path:
        return self.root / "profile"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, process: str) -> Path:
        return self.logs / f"{process}.log"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def stopping(self) -> Path:
        """There while ``down`` is at work, so that an ``up`` in the foreground takes no end for a failure."""
        return self.run / "stopping"

    def made(self) -> tuple[Path, ...]:
        """What a start makes anew, and so may clear away: never the record, the lock or a log."""
        return (
            self.authority,
            self.manifest,
            self.grant,
            self.gateway,
            self.nodes,
            self.root / "researcher",
            self.profile,
            self.run,
        )
