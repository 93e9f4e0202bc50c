"""Files that people are handed or write: configurations, profiles, keys, dataset folders."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from insitu.profile import read_profile
from insitu_access.bundle import read_bundle
from insitu_access.keys import generate_signing_key, load_signing_key, load_verifying_key, signing_key_pem
from insitu_access.sealed_key import seal
from insitu_access.site import read_invitation
from insitu_compose.federation import load_federation
from insitu_gateway.config import load_config as load_gateway
from insitu_node.config import load_config as load_node

from tests.fuzz.targets import Target
from tests.testkit.care import TOML, bundle
from tests.unit.access import world as w
from tests.unit.gateway.test_config import GOOD as GATEWAY
from tests.unit.node.test_config import GOOD as NODE

_POLICY = """
[policy]
max_epsilon = 5
max_delta = "1e-6"
quiet_hours = ["22:00-06:00"]
time_zone = "Europe/Paris"
manifest_max_age_hours = 72
[[policy.approve]]
purposes = ["public-health"]
results = ["counts"]
max_epsilon = 1
[audit]
retention_days = 3650
"""
_FEDERATION = """
[federation]
name = "demo"
datasets = ["dataset.toml"]
[[node]]
id = "chu-lille"
[node.datasets.care]
engine = "duckdb"
[node.datasets.care.tables]
person = "SELECT 1"
[grant]
epsilon = 20.0
delta = 1e-6
"""
_PROFILE = '[profile]\nfederation = "demo"\ngateways = ["gw.test:8443"]\ndataset = "care"\n'
_PASSPHRASE = b"fourteen letters and more"
_KEY = signing_key_pem(generate_signing_key())


def _file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Reads bytes as a file of that name, in a folder that holds the dataset of the tests."""

    def run(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "dataset.toml").write_text(TOML)
            (Path(folder) / "icd.csv").write_bytes(bundle().files["icd.csv"])
            path = Path(folder) / name
            path.write_bytes(data)
            path.chmod(0o600)
            return read(path)

    return run


TARGETS = (
    Target(name="node-config", run=_file("node.toml", load_node), seeds=[(NODE + _POLICY).encode()], examples=100),
    Target(name="gateway-config", run=_file("gateway.toml", load_gateway), seeds=[GATEWAY.encode()]),
    Target(name="federation", run=_file("federation.toml", load_federation), seeds=[_FEDERATION.encode()]),
    Target(
        name="profile", run=_file("profile.toml", lambda path: read_profile(path.parent)), seeds=[_PROFILE.encode()]
    ),
    Target(name="bundle", run=_file("dataset.toml", read_bundle), seeds=[TOML.encode()]),
    Target(
        name="key-file",
        run=_file("signing.key", lambda path: load_signing_key(path, lambda _: _PASSPHRASE)),
        seeds=[_KEY, seal(_KEY, _PASSPHRASE)],
        examples=40,
    ),
    Target(name="public-key", run=_file("signing.pub", load_verifying_key), seeds=[w.NODE.public().pem()]),
    Target(
        name="invitation-file",
        run=_file("invitation.jws", lambda path: read_invitation(path, None, now=w.NOW)),
        seeds=[b"a.b.c"],
        examples=20,
    ),
)
