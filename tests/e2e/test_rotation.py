"""Every key is changed while the federation runs: overlap, no restart, no request that fails, no budget that comes back."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from insitu_access.identity import load_identity

from tests.e2e.small import TOTAL, Parties, build, stop

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parties]:
    started = build(Path(tmp_path_factory.mktemp("rotation")))
    try:
        started.keep_receipt("before")
        yield started
    finally:
        stop(started)


@contextmanager
def asked_throughout(parties: Parties) -> Iterator[None]:
    """A researcher's process that asks all the time, and whose every answer is whole."""
    import insitu

    stopping, failures, answers = threading.Event(), list[BaseException](), list[int]()

    def ask() -> None:
        with insitu.connect(parties.dir / "profile") as federation:
            while not stopping.is_set():
                try:
                    found = federation.query(
                        f"SELECT COUNT(*) AS n FROM person WHERE birth_year > {1800 + len(answers) % 90}", epsilon=1e9
                    )
                    answers.append(int(found.rows[0][0]))
                except BaseException as error:
                    failures.append(error)
                time.sleep(0.2)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
        time.sleep(1)
    finally:
        stopping.set()
        thread.join(60)
    assert failures == []
    assert set(answers) == {TOTAL}
    assert len(answers) > 5


def publish(parties: Parties) -> None:
    parties.works("authority", "insitu-authority manifest authority --out manifest.jws")
    parties.wait_for_manifest(15)


def thumbprint(parties: Parties, who: str) -> str:
    return load_identity(parties.where(who) / ("identity" if " " in who else ".")).signing.thumbprint


def change(parties: Parties, who: str, rotate: str, install: str, *, before_install: str | None = None) -> None:
    request = "next/request.jws" if who == "researcher" else "identity/next/request.jws"
    parties.works(who, rotate)
    parties.carry(who, request, "authority", "party.request")
    parties.works("authority", "insitu-authority enrol authority party.request --out party.answer")
    if before_install:
        publish(parties)
    parties.carry("authority", "party.answer", who, "party.answer")
    parties.works(who, install)
    if not before_install:
        publish(parties)
    time.sleep(2)


@pytest.mark.parametrize("order", ["manifest first", "answer first"])
def test_a_node_changes_its_keys(parties: Parties, tmp_path: Path, order: str) -> None:
    before = thumbprint(parties, "node alpha")
    saved = parties.dir / f"{order[:6]}.json"
    parties.works(
        "authority", f"insitu query 'SELECT COUNT(*) AS n FROM person' --epsilon 1e9 -q --profile profile -o {saved}"
    )
    with asked_throughout(parties):
        change(
            parties, "node alpha", "insitu-node key rotate --config node.toml",
            "insitu-node key install party.answer --config node.toml",
            before_install=order if order == "manifest first" else None,
        )  # fmt: skip
    assert thumbprint(parties, "node alpha") != before
    manifest = parties.works("authority", "insitu-authority show manifest.jws --format json")
    (alpha,) = (node for node in manifest["nodes"] if node["id"] == "alpha")
    assert alpha["key"] == thumbprint(parties, "node alpha")
    assert before in [each["key"] for each in alpha["former_keys"]]
    # the same question is a replay, signed by the new key; the saved answer, signed by the former, verifies still
    again = parties.run(
        "authority", "insitu query 'SELECT COUNT(*) AS n FROM person' --epsilon 1e9 -q --format json --profile profile"
    )
    assert again.json["replayed"] is True
    parties.works("authority", f"insitu verify {saved} --profile profile")
    assert parties.alive()


def test_the_gateway_changes_its_keys(parties: Parties) -> None:
    before = (parties.where("gateway") / "identity" / "tls.pem").read_bytes()
    with asked_throughout(parties):
        change(parties, "gateway gateway", "insitu-gateway key rotate", "insitu-gateway key install party.answer")
    assert (parties.where("gateway") / "identity" / "tls.pem").read_bytes() != before
    assert parties.count() == TOTAL
    assert parties.alive()


def test_a_researcher_changes_keys_and_the_grant_follows(parties: Parties) -> None:
    before = thumbprint(parties, "researcher")
    change(parties, "researcher", "insitu key rotate --keys .", "insitu key install party.answer --keys .")
    assert thumbprint(parties, "researcher") != before
    spent = _spent(parties)
    assert parties.count() == TOTAL  # the grant names the former key alone, which is kept for it
    parties.works(
        "authority", "insitu-authority reseal authority --grant grant.jwt --researcher researcher --out grant.jwt"
    )
    parties.carry("authority", "grant.jwt", "researcher", "new-grant.jwt")
    parties.works("researcher", f"insitu connect . --gateway {parties.address} --identity . --grant new-grant.jwt")
    (parties.where("researcher") / "former" / "signing.key").unlink()
    assert parties.count() == TOTAL
    assert _spent(parties) > spent > 0  # the same account


def test_the_authority_changes_its_key_and_everybody_follows(parties: Parties, tmp_path: Path) -> None:
    before = parties.thumbprint()
    late = Path(shutil.copytree(parties.where("researcher"), tmp_path / "late"))
    with asked_throughout(parties):
        parties.works("authority", "insitu-authority rotate authority --key")
        publish(parties)
        time.sleep(3)
    assert parties.thumbprint() != before
    assert parties.count() == TOTAL  # a grant of the former key still counts, and a researcher follows when asking
    for who, command in (
        ("node alpha", "insitu-node key show --config node.toml --format json"),
        ("researcher", "insitu key show --keys . --format json"),
        ("gateway gateway", "insitu-gateway key show --format json"),
    ):
        parties.wait(
            lambda who=who, command=command: parties.works(who, command)["authority_key"] == parties.thumbprint(), 10
        )
        assert parties.works(who, command)["pinned_authority_key"] == before
    # it counts no longer once that key is retired
    parties.works("authority", "insitu-authority retire authority --key")
    publish(parties)
    time.sleep(1)
    assert "INSITU-ACCESS-SIGNATURE" in parties.ask().err
    parties.works("authority", "insitu-authority reseal authority --grant grant.jwt --out grant.jwt")
    parties.carry("authority", "grant.jwt", "researcher", "new-grant.jwt")
    parties.works("researcher", f"insitu connect . --gateway {parties.address} --identity . --grant new-grant.jwt")
    assert parties.count() == TOTAL
    # who was away all the time follows as well
    shutil.copy(parties.where("authority") / "grant.jwt", late / "grant.jwt")
    assert parties.run("authority", f"insitu budget --profile {late} -q").code == 0
    assert parties.alive()


def test_a_new_node_and_a_new_researcher_enrol_by_invitation(parties: Parties) -> None:
    new = parties.dir / "gamma"
    parties.works(
        "authority",
        "insitu-authority invite authority --role node --id gamma --organisation Gamma --jurisdiction FR --out g.inv",
    )
    line = "insitu-node init --token g.inv --out gamma --format json"
    refused = parties.run("authority", line)
    assert refused.err.startswith("INSITU-CONFIG-USAGE"), refused.err  # nobody has compared the key
    assert parties.run("authority", f"{line} --fingerprint wrong").err.startswith("INSITU-KEY-FINGERPRINT")
    assert not new.exists()
    made = parties.works("authority", f"{line} --fingerprint {parties.thumbprint()}")
    assert (
        parties.run(
            "authority", "insitu-authority enrol authority gamma/identity/request.jws --out g.answer --fingerprint x"
        ).code
        == 2
    )
    enrolled = parties.works(
        "authority", "insitu-authority enrol authority gamma/identity/request.jws --out g.answer --format json"
    )
    assert enrolled["key"] == made["key"]
    # the very request is answered again, with the key it has; another one by the same invitation is not
    line = "insitu-authority enrol authority {}/identity/request.jws --out {}.answer --format json"
    assert parties.works("authority", line.format("gamma", "again"))["key"] == made["key"]
    thief = f"insitu-node init --token g.inv --out thief --fingerprint {parties.thumbprint()} --format json"
    assert parties.works("authority", thief)["key"] != made["key"]
    stolen = parties.run("authority", line.format("thief", "thief"))
    assert stolen.err.startswith("INSITU-KEY-ENROLMENT"), stolen.err
    config = (new / "node.toml").read_text()
    assert f'address = "{parties.address}"' in config
    (new / "care").mkdir()
    shutil.copy(parties.dir.parent / "care" / "dataset.toml", new / "care" / "dataset.toml")
    shutil.copy(parties.dir.parent / "beta.duckdb", new / "care.duckdb")
    (new / "node.toml").write_text(
        config.replace("# person", "person")
        .replace("FROM patients WHERE NOT opted_out", "FROM person")
        .replace("id AS person_id, sex, birth_year", "*")
    )
    parties.works("authority", "insitu-node key install g.answer --config gamma/node.toml")
    checked = parties.works("authority", "insitu-node check --config gamma/node.toml --format json")
    assert checked["key"] == made["key"]
    publish(parties)
    assert load_identity(new / "identity").id == "gamma"


def test_a_new_gateway_is_made_by_invitation(parties: Parties) -> None:
    parties.works(
        "authority",
        "insitu-authority invite authority --role gateway --id second --operator Hub --jurisdiction FR"
        " --address 127.0.0.1:7999 --also localhost --out s.inv",
    )
    line = f"insitu-gateway init --token s.inv --out second --fingerprint {parties.thumbprint()}"
    parties.works("authority", line)
    parties.works("authority", "insitu-authority enrol authority second/identity/request.jws --out s.answer")
    parties.works("authority", "insitu-gateway key install s.answer --config second/gateway.toml")
    publish(parties)
    shutil.copy(parties.dir / "manifest.jws", parties.dir / "second" / "manifest.jws")
    (parties.dir / "second" / "care").mkdir()
    shutil.copy(parties.dir.parent / "care" / "dataset.toml", parties.dir / "second" / "care" / "dataset.toml")
    found = parties.works("authority", "insitu-gateway check --config second/gateway.toml --format json")
    assert (found["listen"], found["warnings"]) == ("0.0.0.0:7999", [])


def test_the_evidence_of_before_and_after_verifies(parties: Parties) -> None:
    """E12, E11: nodes, gateway and authority have other keys than they had when they sealed and answered."""
    parties.keep_receipt("after")
    parties.evidence_holds()


def _spent(parties: Parties) -> float:
    found = parties.works("authority", "insitu budget --profile profile --format json -q")
    return sum(float(node["epsilon_spent"]) for node in found["nodes"])
