"""``insitu-authority`` as people run it: good and bad input."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from insitu_access.commands.main import main
from insitu_access.identity import create_keys, load_identity
from insitu_access.keys import save_verifying_key
from insitu_access.release import seal_outcome
from insitu_access.request import seal_request

from tests.testkit.typed import typed
from tests.unit.access.world import NODE, RESEARCHER, STRANGER, release, request

DATASET = """
[dataset]
name = "care"
version = 1
[tables.person]
unit = "person_id"
one_row_per_unit = true
[tables.person.columns]
person_id = { type = "integer" }
"""
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def authority(*arguments: object, cwd: Path) -> SimpleNamespace:
    """Runs the command; ``facts`` are its JSON where it printed any."""
    done = typed(["insitu-authority", *map(str, arguments)], cwd=cwd)
    facts = done.json if done.out.startswith("{") else None
    return SimpleNamespace(code=done.code, out=done.out, err=done.err, facts=facts)


def process(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same as a process of its own."""
    command = [sys.executable, "-W", "error", "-m", "insitu_access.commands.main", *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def inside(home: Path, monkeypatch, capsys):
    """Runs the command in this process: for the many mistakes, where a process each would only take longer."""

    def act(*arguments: object) -> SimpleNamespace:
        monkeypatch.chdir(home)
        monkeypatch.setattr("sys.argv", ["insitu-authority", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        return SimpleNamespace(code=caught.value.code, out=out, err=err, facts=None)

    return act


def works(*arguments: object, cwd: Path) -> dict:
    done = authority(*arguments, "--format", "json", cwd=cwd)
    assert (done.code, done.err) == (0, "")
    return done.facts


def fails(code: str, *arguments: object, cwd: Path, status: int = 2) -> str:
    return told(authority(*arguments, cwd=cwd), code, status)


def told(done: SimpleNamespace, code: str, status: int = 2) -> str:
    """The one line that a failed command wrote, after checking that it is one."""
    assert done.code == status, done.err
    assert done.out == ""
    assert done.err.startswith(f"{code}: ")
    assert done.err.count("\n") == 1
    return done.err


NODE_OPTIONS = ["--role", "node", "--id", "n1", "--organisation", "CHU", "--jurisdiction", "FR"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An authority with a node, a gateway, a researcher, a manifest and a grant."""
    cwd = tmp_path_factory.mktemp("committee")
    (cwd / "dataset.toml").write_text(DATASET)
    works("init", "auth", "--federation", "demo", cwd=cwd)
    works("cert", "auth", *NODE_OPTIONS, "--out", "n1", cwd=cwd)
    works("cert", "auth", "--role", "gateway", "--id", "gw", "--out", "gw", "--address", "127.0.0.1:7443",
          "--operator", "Hub", "--jurisdiction", "FR", "--also", "localhost", cwd=cwd)  # fmt: skip
    works("cert", "auth", "--role", "researcher", "--id", "alice", "--out", "alice", cwd=cwd)
    works("manifest", "auth", "--dataset", "dataset.toml", "--out", "manifest.jws", "--jurisdiction", "EU", cwd=cwd)
    works(*GRANT, "--out", "grant.jwt", cwd=cwd)
    return cwd


GRANT = [
    "grant", "auth", "--project", "stays", "--purpose", "Length of stay", "--reference", "R-1", "--researcher", "alice",
    "--dataset", "care", "--node", "n1", "--epsilon", "20.0", "--delta", "1e-6",
]  # fmt: skip


def test_identities_are_ready_to_use(home: Path) -> None:
    for directory, role, party in (("n1", "node", "n1"), ("gw", "gateway", "gw"), ("alice", "researcher", "alice")):
        identity = load_identity(home / directory)
        assert (identity.role, identity.id) == (role, party)


def test_the_manifest_is_shown_verified(home: Path) -> None:
    facts = works("show", "manifest.jws", "--authority", "auth/authority.pub", cwd=home)
    assert facts["verified"] is True
    assert (facts["kind"], facts["federation"], facts["version"]) == ("manifest", "demo", 1)
    assert [each["id"] for each in facts["nodes"]] == ["n1"]
    assert facts["gateways"][0]["address"] == "127.0.0.1:7443"
    assert (facts["jurisdictions"], facts["gateways"][0]["accepted"]) == (["EU"], True)
    assert facts["datasets"][0]["name"] == "care"


def test_the_grant_is_shown_verified(home: Path) -> None:
    facts = works("show", "grant.jwt", "--authority", "auth/authority.pub", cwd=home)
    assert facts["verified"] is True
    assert (facts["epsilon"], facts["delta"], facts["accounting"]) == ("20", "1/1000000", "zcdp")
    assert facts["datasets"] == [{"name": "care", "tables": None}]
    assert facts["researchers"] == [load_identity(home / "alice").signing.thumbprint]


def test_certificates_are_shown_verified(home: Path) -> None:
    assert works("show", "n1/tls.pem", "--ca", "auth/ca.pem", cwd=home)["verified"] is True
    assert works("show", "n1/tls.pem", cwd=home)["verified"] is False
    shown = {party: works("show", f"{party}/tls.pem", cwd=home)["country"] for party in ("n1", "gw", "alice")}
    assert shown == {"n1": "FR", "gw": "FR", "alice": None}


def test_requests_and_outcomes_are_shown(home: Path) -> None:
    (home / "request.jws").write_text(seal_request(request(), RESEARCHER))
    (home / "release.jws").write_text(seal_outcome(release(), NODE) + "\n")
    save_verifying_key(RESEARCHER.public(), home / "researcher.pub")
    save_verifying_key(NODE.public(), home / "node.pub")
    facts = works("show", "request.jws", "--key", "researcher.pub", cwd=home)
    assert (facts["verified"], facts["kind"], facts["sql"]) == (True, "query request", request().sql)
    facts = works("show", "release.jws", "--key", "node.pub", cwd=home)
    assert (facts["verified"], facts["kind"], facts["cells"]) == (True, "release", [2])


def test_what_is_not_verified_says_so(home: Path) -> None:
    done = authority("show", "grant.jwt", cwd=home)
    assert done.code == 0
    assert "verified: no" in done.out
    assert "NOT verified" in done.err
    assert works("show", "grant.jwt", cwd=home)["verified"] is False


def test_what_does_not_verify_fails(home: Path) -> None:
    save_verifying_key(STRANGER.public(), home / "stranger.pub")
    fails("INSITU-ACCESS-SIGNATURE", "show", "grant.jwt", "--authority", "stranger.pub", cwd=home)
    fails("INSITU-ACCESS-SIGNATURE", "show", "manifest.jws", "--authority", "stranger.pub", cwd=home)
    fails("INSITU-CONFIG-USAGE", "show", "grant.jwt", "--key", "stranger.pub", cwd=home)
    works("init", "other", "--federation", "demo", cwd=home)
    fails("INSITU-CONFIG-FILE", "show", "n1/tls.pem", "--ca", "other/ca.pem", cwd=home)


def test_a_tampered_file_is_refused(home: Path) -> None:
    token = (home / "grant.jwt").read_text().strip()
    header, payload, signature = token.split(".")
    (home / "bad.jwt").write_text(f"{header}.{payload[:-8]}AAAAAAAA.{signature}")
    fails("INSITU-ACCESS-SIGNATURE", "show", "bad.jwt", "--authority", "auth/authority.pub", cwd=home)


@pytest.mark.parametrize("content", ["", "hello", "a.b.c", "-----BEGIN CERTIFICATE-----\nAAAA\n", "\x00\xff"])
def test_other_files_are_not_shown(home: Path, inside, content: str) -> None:
    (home / "other.txt").write_text(content)
    code = "INSITU-ACCESS-PEER" if content.startswith("-----") else "INSITU-CONFIG-FILE"
    told(inside("show", "other.txt"), code)


def test_nothing_is_overwritten(home: Path) -> None:
    assert "not overwritten" in fails("INSITU-CONFIG-FILE", "init", "auth", "--federation", "demo", cwd=home)


def test_keys_made_on_site_never_leave_it(home: Path) -> None:
    create_keys(home / "site")
    arguments = ["--role", "node", "--id", "n2", "--organisation", "B", "--jurisdiction", "DE", "--out", "for-n2"]
    keys = ["--csr", "site/tls.csr", "--signing-key", "site/signing.pub"]
    works("cert", "auth", *arguments, *keys, cwd=home)
    assert sorted(path.name for path in (home / "for-n2").iterdir()) == ["authority.pub", "ca.pem", "tls.pem"]
    for path in (home / "for-n2").iterdir():
        path.rename(home / "site" / path.name)
    assert load_identity(home / "site").id == "n2"
    fails("INSITU-CONFIG-USAGE", "cert", "auth", *arguments, *keys[:2], cwd=home)
    fails("INSITU-CONFIG-USAGE", "cert", "auth", *arguments, *keys[2:], cwd=home)


def test_renewal_keeps_the_keys(home: Path) -> None:
    before = load_identity(home / "n1")
    works("cert", "auth", *NODE_OPTIONS, "--out", "n1", cwd=home)
    after = load_identity(home / "n1")
    assert after.signing == before.signing
    assert after.tls_cert_pem != before.tls_cert_pem


def test_a_name_is_not_taken_over(home: Path) -> None:
    assert "--replace" in fails("INSITU-CONFIG-USAGE", "cert", "auth", *NODE_OPTIONS, "--out", "thief", cwd=home)


def test_revocation_stands_in_the_next_manifest(home: Path) -> None:
    made = works(*GRANT, "--table", "care.person:person_id", "--out", "short.jwt", cwd=home)
    assert made["datasets"] == [{"name": "care", "tables": {"person": ["person_id"]}}]
    assert works("revoke", "auth", "--grant", "short.jwt", cwd=home)["grant"] == made["id"]
    facts = works("manifest", "auth", "--dataset", "dataset.toml", "--out", "next.jws", cwd=home)
    assert facts["revoked_grants"] == [made["id"]]
    assert facts["version"] > 1
    fails("INSITU-CONFIG-USAGE", "revoke", "auth", "--grant", "unknown", cwd=home)


def test_a_grant_is_suspended_and_resumed(home: Path) -> None:
    made = works(*GRANT, "--out", "pausing.jwt", cwd=home)
    assert works("suspend", "auth", "--grant", "pausing.jwt", cwd=home)["suspended"] is True
    facts = works("manifest", "auth", "--dataset", "dataset.toml", "--out", "next.jws", cwd=home)
    assert facts["suspended_grants"] == [made["id"]]
    assert works("resume", "auth", "--grant", made["id"], cwd=home)["suspended"] is False
    facts = works("manifest", "auth", "--dataset", "dataset.toml", "--out", "next.jws", cwd=home)
    assert facts["suspended_grants"] == []
    works("revoke", "auth", "--grant", made["id"], cwd=home)
    fails("INSITU-CONFIG-USAGE", "resume", "auth", "--grant", made["id"], cwd=home)


def test_a_grant_is_amended(home: Path) -> None:
    limits = ["--purpose-code", "ph", "--min-nodes", "1", "--min-units", "20", "--result", "counts", "--result", "sums"]
    made = works(*GRANT, *limits, "--out", "first.jwt", cwd=home)
    assert (made["purpose_code"], made["min_units"], made["results"]) == ("ph", 20, ["counts", "sums"])
    change = ["amend", "auth", "--reference", "R-2", "--epsilon", "30", "--days", "400"]
    amended = works(*change, "--grant", "first.jwt", "--out", "second.jwt", cwd=home)
    kept = (
        "id",
        "project",
        "purpose",
        "purpose_code",
        "researchers",
        "datasets",
        "nodes",
        "delta",
        "accounting",
        "results",
    )
    assert {name: amended[name] for name in kept} == {name: made[name] for name in kept}
    assert (amended["revision"], amended["epsilon"], amended["reference"]) == (2, "30", "R-2")
    assert amended["expires_at"] > made["expires_at"]
    fails("INSITU-CONFIG-USAGE", *change, "--grant", "first.jwt", "--out", "third.jwt", cwd=home)
    facts = works("manifest", "auth", "--dataset", "dataset.toml", "--out", "next.jws", cwd=home)
    assert facts["grant_revisions"] == {made["id"]: 2}
    works("revoke", "auth", "--grant", "second.jwt", cwd=home)
    fails("INSITU-CONFIG-USAGE", *change, "--grant", "second.jwt", "--out", "third.jwt", cwd=home)


def test_dates_of_a_grant(home: Path) -> None:
    made = works(
        *GRANT, "--not-before", "2030-01-01", "--expires", "2030-06-30T12:00:00+02:00", "--out", "f.jwt", cwd=home
    )
    assert (made["not_before"], made["expires_at"]) == ("2030-01-01T00:00:00Z", "2030-06-30T10:00:00Z")


BAD_GRANTS = [
    ["--epsilon", "0"], ["--epsilon", "-1"], ["--epsilon", "lots"], ["--epsilon", "1e99999"], ["--delta", "1"],
    ["--delta", "nan"], ["--accounting", "renyi"], ["--node", "nowhere"], ["--dataset", "other"],
    ["--table", "care"], ["--table", "care.person:"], ["--table", "other.person"], ["--table", "care.Person"],
    ["--table", "care.person", "--table", "care.person:sex"], ["--days", "0"], ["--days", "x"],
    ["--not-before", "soon"], ["--not-before", "2026-01-01T00:00:00"], ["--expires", "2020-01-01"],
    ["--min-nodes", "2"], ["--min-nodes", "0"], ["--min-units", "-1"], ["--result", "rows"], ["--purpose-code", "a b"],
    ["--project", ""], ["--purpose", "a\nb"], ["--reference", "\x1b[31m"],
]  # fmt: skip


@pytest.mark.parametrize("change", BAD_GRANTS, ids=" ".join)
def test_bad_grants_are_not_signed(home: Path, inside, change: list[str]) -> None:
    told(inside(*GRANT, "--out", "bad-grant.jwt", *change), "INSITU-CONFIG-USAGE")
    assert not (home / "bad-grant.jwt").exists()


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("INSITU-CONFIG-USAGE", []),
        ("INSITU-CONFIG-USAGE", ["destroy"]),
        ("INSITU-CONFIG-USAGE", ["init"]),
        ("INSITU-CONFIG-USAGE", ["init", "x", "--federation", "no good"]),
        ("INSITU-CONFIG-USAGE", ["cert", "auth", "--role", "king", "--id", "a", "--out", "x"]),
        ("INSITU-CONFIG-USAGE", ["cert", "auth", "--role", "node", "--id", "a", "--out", "x"]),
        ("INSITU-CONFIG-USAGE", ["cert", "auth", "--role", "gateway", "--id", "a", "--out", "x"]),
        ("INSITU-CONFIG-USAGE", ["cert", "auth", "--role", "researcher", "--id", "a/b", "--out", "x"]),
        ("INSITU-CONFIG-FILE", ["cert", "nowhere", "--role", "researcher", "--id", "a", "--out", "x"]),
        ("INSITU-CONFIG-FILE", ["manifest", "auth", "--dataset", "nowhere.toml", "--out", "next.jws"]),
        ("INSITU-CONFIG-INVALID", ["manifest", "auth", "--dataset", "manifest.jws", "--out", "next.jws"]),
        ("INSITU-CONFIG-USAGE", ["manifest", "auth", "--dataset", "dataset.toml", "--dataset", "dataset.toml", "--out", "next.jws"]),
        ("INSITU-CONFIG-FILE", ["show", "nowhere"]),
        ("INSITU-CONFIG-FILE", ["show", "."]),
        ("INSITU-CONFIG-FILE", [*GRANT, "--researcher", "nobody", "--out", "x"]),
        ("INSITU-CONFIG-FILE", [*GRANT, "--out", "nowhere/x"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)  # fmt: skip
def test_mistakes_are_one_line(inside, code: str, arguments: list[str]) -> None:
    told(inside(*arguments), code)


def test_mistakes_are_one_line_in_a_process_too(home: Path) -> None:
    fails("INSITU-CONFIG-USAGE", *GRANT, "--epsilon", "0", "--out", "x", cwd=home)
    fails("INSITU-CONFIG-USAGE", "destroy", cwd=home)
    fails("INSITU-CONFIG-INVALID", "manifest", "auth", "--dataset", "manifest.jws", "--out", "next.jws", cwd=home)
    fails("INSITU-CONFIG-FILE", "show", "nowhere", cwd=home)


@pytest.mark.parametrize(
    "command", ["init", "cert", "manifest", "grant", "amend", "suspend", "resume", "revoke", "show"]
)
def test_every_command_explains_itself(inside, command: str) -> None:
    done = inside(command, "--help")
    assert done.code == 0
    assert f"insitu-authority {command} " in done.out
    assert "Example" in done.out


def test_version_and_help(home: Path) -> None:
    assert process("--version", cwd=home).stdout == "insitu-authority 0.1.0\n"
    assert "Example" in process("--help", cwd=home).stdout


def test_a_mistake_ends_the_process_with_one_line(home: Path) -> None:
    done = process("show", "nowhere.jwt", cwd=home)
    told(SimpleNamespace(code=done.returncode, out=done.stdout, err=done.stderr), "INSITU-CONFIG-FILE")


def test_help_loads_no_cryptography() -> None:
    code = "import sys, insitu_access.commands.main; sys.exit(sum(n in sys.modules for n in ('cryptography', 'joserfc', 'pydantic')))"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, timeout=60, check=False).returncode == 0
