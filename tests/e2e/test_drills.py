"""Compromise drills, by the very commands that `insitu-authority drill` prints, on a federation of real processes.

After each: the lost key is refused, the service goes on, no process was started again, and no budget came back.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from insitu_access.grant import read_grant, seal_grant
from insitu_access.identity import Identity, load_identity
from insitu_access.jose import unverified
from insitu_access.keys import load_signing_key
from insitu_access.release import refusal_of, seal_outcome
from insitu_privacy.errors import AccessRefused
from insitu_proto.messages import Hello
from insitu_proto.status import from_rpc
from insitu_proto.v1 import insitu_pb2 as pb
from insitu_proto.v1.insitu_pb2_grpc import FederationStub, ResearchStub
from insitu_proto.wire import to_node_message

from tests.e2e.small import NODES, TOTAL, Parties, build, stop

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    started = build(Path(tmp_path_factory.mktemp("drills")))
    try:
        started.keep_receipt("before")
        yield started
    finally:
        stop(started)


def copy_of(parties: Parties, who: str, tmp_path: Path) -> Path:
    """What a thief has: the directory of a party's keys as it is now."""
    source = parties.where(who) if who.startswith("researcher") else parties.where(who) / "identity"
    return Path(shutil.copytree(source, tmp_path / "stolen"))


def attach(address: str, identity: Identity, node: str) -> str:
    """What becomes of an attempt to attach as a node: a code, or welcome."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.tls_key_pem, identity.tls_cert_pem)
    with grpc.secure_channel(address, credentials) as channel:
        hello = to_node_message(Hello(node_id=node, manifest_version=0, software="thief"))
        try:
            for _ in FederationStub(channel).Attach(iter([hello]), timeout=10):
                return "welcome"
        except grpc.RpcError as error:
            return str(from_rpc(error, address).code)
    return "ended"


def manifest_by(address: str, identity: Identity) -> str:
    """What becomes of a researcher's first call: a code, or the manifest."""
    credentials = grpc.ssl_channel_credentials(identity.ca_pem, identity.tls_key_pem, identity.tls_cert_pem)
    with grpc.secure_channel(address, credentials) as channel:
        try:
            return str(ResearchStub(channel).GetManifest(pb.GetManifestRequest(), timeout=10).manifest_jws)
        except grpc.RpcError as error:
            return str(from_rpc(error, address).code)


def goes_on(parties: Parties, pids: dict[str, int]) -> None:
    parties.wait_connected()
    assert parties.count() == TOTAL
    assert parties.pids() == pids
    assert parties.alive()


@pytest.mark.attacks("K10")
def test_a_node_key_is_lost(parties: Parties, tmp_path: Path) -> None:
    pids, spent = parties.pids(), _spent(parties)
    stolen = load_identity(copy_of(parties, "node alpha", tmp_path))
    assert attach(parties.address, stolen, "alpha") == "welcome"
    parties.wait_connected()
    parties.play(parties.drill("node-key", "--id alpha"))
    goes_on(parties, pids)
    assert attach(parties.address, stolen, "alpha") == "INSITU-ACCESS-PEER"
    # what it still signs verifies nowhere: the manifest gives another key
    manifest = parties.works("authority", "insitu-authority show manifest.jws --format json")
    (alpha,) = (node for node in manifest["nodes"] if node["id"] == "alpha")
    assert alpha["key"] != stolen.signing.thumbprint
    assert alpha["former_keys"] == []
    assert stolen.signing.thumbprint in manifest["revoked_keys"]
    assert _spent(parties) > spent  # the ledger went on


@pytest.mark.attacks("K10")
def test_a_researcher_key_is_lost(parties: Parties, tmp_path: Path) -> None:
    pids, spent = parties.pids(), _spent(parties)
    stolen = copy_of(parties, "researcher researcher", tmp_path)
    parties.play(parties.drill("researcher-key", "--id researcher", "--grant grant.jwt"))
    goes_on(parties, pids)
    assert _spent(parties) > spent  # the same grant, and its account went on
    assert manifest_by(parties.address, load_identity(stolen)) == "INSITU-ACCESS-PEER"
    # nor does the signature count that the thief makes behind a certificate that is still good
    for name in ("tls.key", "tls.pem", "ca.pem"):
        shutil.copy(parties.where("researcher") / name, stolen / name)
    done = parties.run("authority", f"insitu budget --profile {stolen}")
    assert done.err.startswith("INSITU-ACCESS-WRONG-KEY"), done.err


def test_the_gateway_key_is_lost(parties: Parties, tmp_path: Path) -> None:
    pids = parties.pids()
    stolen = load_identity(copy_of(parties, "gateway gateway", tmp_path))
    parties.play(parties.drill("gateway-key", "--id gateway"))
    goes_on(parties, pids)
    # a server with the stolen certificate is refused by nodes and researchers
    with _server(stolen) as address:
        for who in ("node alpha", "researcher researcher"):
            folder = parties.where(who) / ("identity" if who.startswith("node") else ".")
            present = load_identity(folder)
            root = (parties.where("authority") / "authority" / "ca.pem").read_bytes()
            assert present.ca_pem.startswith(root)
            assert manifest_by(address, _with_ca(present, root)) == "INSITU-GATEWAY-UNREACHABLE"
        profile = Path(shutil.copytree(parties.where("researcher"), tmp_path / "profile"))
        text = (profile / "profile.toml").read_text().replace(parties.address, address)
        (profile / "profile.toml").write_text(text)
        (profile / "datasets").rename(tmp_path / "datasets")
        assert "INSITU-GATEWAY-UNREACHABLE" in parties.run("authority", f"insitu budget --profile {profile}").err


@pytest.mark.attacks("K11")
def test_the_ca_key_is_lost(parties: Parties, tmp_path: Path) -> None:
    pids = parties.pids()
    before = {who: load_identity(copy_of(parties, who, tmp_path / who[:4])) for who in ("node beta", "gateway gateway")}
    parties.play(parties.drill("ca-key"))
    goes_on(parties, pids)
    assert attach(parties.address, before["node beta"], "beta") == "INSITU-GATEWAY-UNREACHABLE"
    present = load_identity(parties.where("node beta") / "identity")
    assert (
        attach(parties.address, _with_certificate(present, before["node beta"]), "beta") == "INSITU-GATEWAY-UNREACHABLE"
    )
    parties.wait_connected()


@pytest.mark.attacks("K9")
def test_the_authority_key_is_stolen(parties: Parties, tmp_path: Path) -> None:
    pids, spent = parties.pids(), _spent(parties)
    stolen = load_signing_key(parties.where("authority") / "authority" / "authority.key")
    former = Path(shutil.copytree(parties.where("researcher"), tmp_path / "former"))
    parties.play(parties.drill("authority-key", "--grant grant.jwt"))
    goes_on(parties, pids)
    assert _spent(parties) > spent
    # whoever still pins the stolen key is not led on, and believes nothing of the new one
    assert "INSITU-ACCESS-SIGNATURE" in parties.run("authority", f"insitu budget --profile {former}").err
    # a grant that the thief signs is refused
    token = (parties.where("authority") / "grant.jwt").read_text().strip()
    forged = tmp_path / "forged.jwt"
    wider = replace(read_grant(unverified(token, "insitu-grant+jwt", "grant")), purpose="Another")
    forged.write_text(seal_grant(wider, stolen))
    line = f"insitu connect {tmp_path}/p --gateway {parties.address} --identity profile --grant {forged}"
    assert "INSITU-ACCESS-SIGNATURE" in parties.run("authority", line).err
    line = f"insitu-authority reseal authority --grant {forged} --out {tmp_path}/resealed.jwt"
    assert parties.run("authority", line).err.startswith("INSITU-CONFIG-USAGE")


def test_the_evidence_of_before_and_after_verifies(parties: Parties) -> None:
    """E12, E11: the lost keys have sealed and answered, and seal nothing any more."""
    parties.keep_receipt("after")
    parties.evidence_holds()


def test_what_a_lost_node_key_signs_is_no_release(parties: Parties) -> None:
    """Of the two keys that alpha had in this file, the manifest knows one."""
    from insitu_access.keys import generate_signing_key, load_verifying_key
    from insitu_access.manifest import verify_manifest
    from insitu_access.release import open_outcome
    from insitu_privacy.errors import IntegrityFailed

    pinned = load_verifying_key(parties.where("authority") / "authority" / "authority.pub")
    manifest = verify_manifest((parties.where("authority") / "manifest.jws").read_text(), pinned)
    entry = manifest.node("alpha")
    assert entry is not None
    refusal = refusal_of(
        AccessRefused("INSITU-ACCESS-STALE"), node="alpha", request_id="0f" * 16, request_sha256="12" * 32,
        issued_at=manifest.issued_at,
    )  # fmt: skip
    with pytest.raises(IntegrityFailed):
        open_outcome(seal_outcome(refusal, generate_signing_key()), entry.keys_at(manifest.issued_at), node="alpha")
    present = load_identity(parties.where("node alpha") / "identity").signing
    assert open_outcome(seal_outcome(refusal, present), entry.keys_at(manifest.issued_at), node="alpha") == refusal


def _spent(parties: Parties) -> float:
    found = parties.works("authority", "insitu budget --profile profile --format json -q")
    assert {node["id"] for node in found["nodes"]} == set(NODES)
    return sum(float(node["epsilon_spent"]) for node in found["nodes"])


def _with_ca(identity: Identity, ca: bytes) -> Identity:
    from dataclasses import replace

    return replace(identity, ca_pem=ca)


def _with_certificate(identity: Identity, other: Identity) -> Identity:
    from dataclasses import replace

    return replace(identity, tls_key_pem=other.tls_key_pem, tls_cert_pem=other.tls_cert_pem)


class _server:
    """A TLS server with a stolen certificate, that would take any client."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def __enter__(self) -> str:
        from concurrent.futures import ThreadPoolExecutor

        self._pool = ThreadPoolExecutor(1)
        self._server = grpc.server(self._pool)
        pair = (self._identity.tls_key_pem, self._identity.tls_cert_pem)
        port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        self._server.start()
        return f"127.0.0.1:{port}"

    def __exit__(self, *exc: object) -> None:
        self._server.stop(0).wait()
        self._pool.shutdown()
