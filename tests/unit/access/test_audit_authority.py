"""The authority's audit log, and ``insitu-authority audit`` over files that parties hand in."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from insitu_access import authority as acts
from insitu_access.audit import files, of_authority
from insitu_access.audit.chain import check_lines
from insitu_access.audit.entry import Party
from insitu_access.audit.log import AuditLog, Note
from insitu_access.audit.receipts import read_receipts
from insitu_access.grant import grant_sha256, seal_grant
from insitu_access.identity import load_identity
from insitu_access.keys import SigningKey, generate_signing_key, load_verifying_key, read_verifying_key
from insitu_access.manifest import FormerKey, seal_manifest
from insitu_access.release import seal_outcome
from insitu_access.request import request_sha256, seal_request
from insitu_privacy.errors import AccessRefused, ConfigInvalid, IntegrityFailed

from tests.testkit.audit_logs import entries, kinds
from tests.unit.access.test_commands import DATASET, GRANT, NODE_OPTIONS, authority, fails, works
from tests.unit.access.world import NODE, NOW, RESEARCHER, STRANGER, grant, manifest, node, release, request

GATEWAY_OPTIONS = ["--role", "gateway", "--id", "gw", "--address", "h:1", "--operator", "Hub", "--jurisdiction", "FR"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    cwd = tmp_path_factory.mktemp("committee")
    (cwd / "dataset.toml").write_text(DATASET)
    works("init", "auth", "--federation", "demo", cwd=cwd)
    works("cert", "auth", *NODE_OPTIONS, "--out", "n1", cwd=cwd)
    works("cert", "auth", *GATEWAY_OPTIONS, "--out", "gw", cwd=cwd)
    works("cert", "auth", "--role", "researcher", "--id", "alice", "--out", "alice", cwd=cwd)
    works("manifest", "auth", "--dataset", "dataset.toml", "--out", "manifest.jws", cwd=cwd)
    works(*GRANT, "--out", "grant.jwt", cwd=cwd)
    works("revoke", "auth", "--grant", "grant.jwt", cwd=cwd)
    return cwd


def party_log(home: Path, name: str, role: str, folder: str) -> AuditLog:
    key = load_identity(home / name).signing
    return AuditLog(home / folder, Party(role=role, id=name), key, clock=lambda: datetime.now(UTC))


def test_every_act_is_in_the_log_and_sealed(home: Path) -> None:
    shown = works("audit", "show", "auth", cwd=home)
    told = [(entry["kind"], entry["fields"]) for entry in shown["entries"] if entry["kind"] != "seal"]
    assert [kind for kind, _ in told] == [
        "log-begun", "certified", "certified", "certified", "manifest-published", "grant-issued", "grant-revoked",
    ]  # fmt: skip
    assert shown["entries"][-1]["kind"] == "seal"
    for (_, fields), name in zip(told[1:4], ("n1", "gw", "alice"), strict=True):
        assert read_verifying_key(fields["key"], "key") == load_identity(home / name).signing.public()
    issued = told[5][1]
    assert issued["sha256"] == grant_sha256((home / "grant.jwt").read_text().strip())
    assert (issued["purpose"], issued["reference"], issued["epsilon"]) == ("Length of stay", "R-1", "20")
    assert works("audit", "verify", "auth", cwd=home)["holds"] is True


def test_export_and_seal(home: Path) -> None:
    works("audit", "seal", "auth", "--out", "seal.jws", cwd=home)
    assert works("audit", "verify", "auth", "--seal", "seal.jws", cwd=home)["holds"] is True
    works("audit", "export", "auth", "--out", "auth.jsonl", cwd=home)
    assert kinds(home / "auth.jsonl")[-2:] == ["exported", "seal"]


def test_logs_that_agree(home: Path) -> None:
    for name, role in (("n1", "node"), ("gw", "gateway")):
        log = party_log(home, name, role, f"good-{name}/audit")
        log.record(Note(kind=f"{role}-stopped"))
        log.seal()
    done = works("audit", "reconcile", "auth", "--node", "good-n1", "--gateway", "good-gw", cwd=home)
    assert (done["agree"], done["discrepancies"], done["receipts"]) == (True, [], 0)
    assert [log["party"] for log in done["logs"]] == ["node n1", "gateway gw"]
    said = authority("audit", "reconcile", "auth", "--node", "good-n1", cwd=home)
    assert said.out == "1 log and 0 receipts, 1 comparison: they agree\n"


@pytest.mark.attacks("E6")
def test_a_broken_copy_is_one_line_each_and_exit_4(home: Path) -> None:
    log = party_log(home, "n1", "node", "bad/audit")
    log.record(Note(kind="node-stopped"), Note(kind="node-stopped"))
    log.seal()
    whole = b"".join(files.lines(home / "bad/audit")).splitlines(keepends=True)
    (home / "bad.jsonl").write_bytes(b"".join([whole[0], *whole[2:]]))
    done = authority("audit", "reconcile", "auth", "--node", "bad.jsonl", cwd=home)
    assert done.code == 4
    lines = done.out.splitlines()
    assert lines[0].startswith("log-broken bad.jsonl: the log of node n1 does not verify at entry 3: ")
    assert lines[-1].endswith(": 1 discrepancy")
    (home / "tail.jsonl").write_bytes(b"".join(whole[:-1]))
    done = authority("audit", "reconcile", "auth", "--node", "tail.jsonl", "--format", "json", cwd=home)
    assert done.code == 4
    assert "does not end with a seal" in done.facts["discrepancies"][0]["text"]


def test_a_log_sealed_with_another_key_does_not_pass(home: Path) -> None:
    key = load_identity(home / "gw").signing
    folder = home / "false" / "audit"
    AuditLog(folder, Party(role="node", id="n1"), key, clock=lambda: datetime.now(UTC)).seal()
    done = authority("audit", "reconcile", "auth", "--node", "false", "--format", "json", cwd=home)
    assert done.code == 4
    assert {each["code"] for each in done.facts["discrepancies"]} == {"log-broken"}


def test_mistakes_are_one_line(home: Path) -> None:
    party_log(home, "n1", "node", "log/audit").seal()
    key = load_identity(home / "n1").signing
    AuditLog(home / "strange", Party(role="node", id="n9"), key, clock=lambda: datetime.now(UTC)).seal()
    reconcile = ("audit", "reconcile", "auth")
    fails("INSITU-CONFIG-USAGE", *reconcile, cwd=home)
    assert "log of node n1, not of a gateway" in fails("INSITU-CONFIG-FILE", *reconcile, "--gateway", "log", cwd=home)
    assert "is no audit log" in fails("INSITU-CONFIG-FILE", *reconcile, "--node", "grant.jwt", cwd=home)
    assert "too" in fails("INSITU-CONFIG-FILE", *reconcile, "--node", "log", "--node", "log", cwd=home)
    fails("INSITU-CONFIG-FILE", *reconcile, "--node", "nowhere", cwd=home)
    assert "--key" in fails("INSITU-CONFIG-FILE", *reconcile, "--node", "strange", cwd=home)
    works(*reconcile, "--node", "strange", "--key", "n1/signing.pub", cwd=home)
    fails("INSITU-CONFIG-INVALID", *reconcile, "--receipt", "auth/register.json", cwd=home)


def sealed_at(folder: Path, key: SigningKey, at: datetime) -> None:
    AuditLog(folder, Party(role="node", id="n1"), key, clock=lambda: at).seal()


def test_a_key_that_was_replaced_seals_until_then(tmp_path: Path) -> None:
    """E12: a thief of the former key dates its seals back, or is refused."""
    works("init", "auth", "--federation", "demo", cwd=tmp_path)
    works("cert", "auth", *NODE_OPTIONS, "--out", "old", cwd=tmp_path)
    works("cert", "auth", *NODE_OPTIONS, "--replace", "--out", "new", cwd=tmp_path)
    key, now = load_identity(tmp_path / "old").signing, datetime.now(UTC)
    for name, at, holds in (("before", now - timedelta(days=1), True), ("after", now + timedelta(days=1), False)):
        sealed_at(tmp_path / name / "audit", key, at)
        done = authority("audit", "reconcile", "auth", "--node", name, "--format", "json", cwd=tmp_path)
        assert [log["holds"] for log in done.facts["logs"]] == [holds]
        assert (done.code == 0) == holds
    assert "given up before" in done.facts["discrepancies"][0]["text"]


def test_a_receipt_of_before_verifies_by_the_authority_s_key_of_then(tmp_path: Path) -> None:
    authority_key, after = generate_signing_key(), generate_signing_key()
    issued = manifest(authority_keys=(authority_key.public(),))
    told = grant(nodes=("chu-lille",))
    grant_jwt = seal_grant(told, authority_key)
    asked = request(grant_sha256=grant_sha256(grant_jwt), nodes=("chu-lille",))
    request_jws = seal_request(asked, RESEARCHER)
    signed = release(request_sha256=request_sha256(request_jws), request_id=asked.request_id)
    evidence = {
        "manifest": seal_manifest(issued, authority_key),
        "grant": grant_jwt,
        "request": request_jws,
        "outcomes": {"chu-lille": seal_outcome(signed, NODE)},
    }
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"evidence": evidence}))
    for former, holds in (
        (FormerKey(key=authority_key.public(), until=NOW), True),
        (FormerKey(key=authority_key.public(), until=issued.issued_at - timedelta(hours=1)), False),
        (FormerKey(key=STRANGER.public(), until=NOW), False),
    ):
        keys = (after.public(), former)
        if holds:
            (found,) = read_receipts(path, keys)
            assert found.outcomes.keys() == {"chu-lille"}
        else:
            with pytest.raises(AccessRefused):
                read_receipts(path, keys)


def test_a_first_look_has_a_receipt_of_its_own(tmp_path: Path) -> None:
    key = generate_signing_key()
    grant_jwt = seal_grant(grant(nodes=("chu-lille",)), key)
    parts = []
    for place in range(2):
        told = request(grant_sha256=grant_sha256(grant_jwt), nodes=("chu-lille",), request_id=f"{place:032x}")
        token = seal_request(told, RESEARCHER)
        signed = release(request_sha256=request_sha256(token), request_id=told.request_id)
        parts.append({"request": token, "outcomes": {"chu-lille": seal_outcome(signed, NODE)}})
    whole = {"manifest": seal_manifest(manifest(authority_keys=(key.public(),)), key), "grant": grant_jwt, **parts[0]}
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"evidence": {**whole, "first_look": parts[1]}}))
    found = read_receipts(path, [key.public()])
    assert [int(one.request_id, 16) for one in found] == [0, 1]
    path.write_text(json.dumps({"evidence": {**whole, "first_look": {**parts[1], "outcomes": parts[0]["outcomes"]}}}))
    with pytest.raises(IntegrityFailed):
        read_receipts(path, [key.public()])
    path.write_text(json.dumps({"evidence": {**whole, "first_look": {"request": 7}}}))
    with pytest.raises(ConfigInvalid):
        read_receipts(path, [key.public()])


def test_a_forged_receipt_is_a_discrepancy(home: Path) -> None:
    evidence = {"manifest": "a.b.c", "grant": "a.b.c", "request": "a.b.c", "outcomes": {}}
    (home / "forged.json").write_text(json.dumps({"evidence": evidence}))
    done = authority("audit", "reconcile", "auth", "--receipt", "forged.json", "--format", "json", cwd=home)
    assert done.code == 4
    assert [each["code"] for each in done.facts["discrepancies"]] == ["receipt-broken"]


def test_what_a_crash_left_out_is_derived_from_the_register(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "authority"
    acts.init_authority(folder, "demo", now=NOW)

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with acts.opened(folder) as authority_:
        object.__setattr__(authority_, "register", authority_.register.with_node(node("chu-lille")))
        monkeypatch.setattr(of_authority, "issued", crash)
        with pytest.raises(KeyboardInterrupt):
            acts.issue_grant(authority_, grant(nodes=("chu-lille",)))
        monkeypatch.undo()
    with acts.opened(folder) as authority_:
        monkeypatch.setattr(of_authority, "published", crash)
        with pytest.raises(KeyboardInterrupt):
            acts.publish_manifest(authority_, [], now=NOW, lifetime=timedelta(days=1))
        monkeypatch.undo()
    with acts.opened(folder):
        pass
    derived = [entry for entry in entries(folder / "audit") if entry.fields.get("derived")]
    assert [entry.kind for entry in derived] == ["grant-issued", "manifest-published"]
    assert derived[0].fields["grant_id"] == "grant-1"
    party, pinned = Party(role="authority", id="demo"), load_verifying_key(folder / "authority.pub")
    assert check_lines(files.lines(folder / "audit"), party, [pinned])[0].holds


@pytest.mark.parametrize("name", ["show", "verify", "export", "seal", "reconcile"])
def test_help_has_an_example(tmp_path: Path, name: str) -> None:
    shown = authority("audit", name, "--help", cwd=tmp_path)
    assert shown.code == 0
    assert f"insitu-authority audit {name}" in shown.out.split("Example")[1]
