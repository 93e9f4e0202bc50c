"""The authority's commands for keys, as typed: what they print, and what they refuse. What they do: ``test_ceremonies``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from insitu_access.commands.main import main
from insitu_access.files import write_private_file
from insitu_access.keys import load_verifying_key
from insitu_access.passphrase import asking
from insitu_access.site import change_keys, read_invitation

from tests.testkit.audit_logs import entries

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


GRANT = (
    "grant auth --project stays --purpose Stays --reference R-1 --researcher alice --dataset care --node n1"
    " --epsilon 5 --delta 1e-6"
)


def pinned(cwd: Path) -> str:
    return load_verifying_key(cwd / "auth" / "authority.pub").thumbprint


@pytest.fixture
def type_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE", raising=False)

    def act(line: str) -> SimpleNamespace:
        monkeypatch.setattr("sys.argv", ["insitu-authority", *line.split()])
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        facts = json.loads(out) if out.startswith("{") else None
        return SimpleNamespace(code=caught.value.code, out=out, err=err, facts=facts)

    return act


def works(done: SimpleNamespace) -> SimpleNamespace:
    assert (done.code, done.err) == (0, "")
    return done


def settle(type_) -> None:
    works(type_("init auth --federation demo"))
    settle_parties(type_)


def settle_parties(type_) -> None:
    works(type_("cert auth --role node --id n1 --out n1 --organisation CHU --jurisdiction FR"))
    works(type_("cert auth --role gateway --id gw --out gw --address 127.0.0.1:7443 --operator Hub --jurisdiction FR"))
    works(type_("cert auth --role researcher --id alice --out alice"))


def test_the_authority_s_keys_under_a_passphrase(type_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private_file(tmp_path / "pass", b"correct horse battery\n")
    works(type_("init auth --federation demo --passphrase-file pass"))
    assert type_("keys auth").err.startswith("INSITU-KEY-LOCKED")
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(tmp_path / "pass"))
    works(type_("cert auth --role researcher --id alice --out alice"))
    works(type_("rotate auth --key"))
    works(type_("rotate auth --ca"))
    for name in ("authority.key", "ca.key"):
        assert (tmp_path / "auth" / name).read_bytes().startswith(b"eyJ")
        assert (tmp_path / "auth" / name).stat().st_mode & 0o777 == 0o600
    works(type_("passphrase auth --no-passphrase"))
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE")
    assert works(type_("keys auth --format json")).facts["former_cas"] == 1


def test_a_change_of_the_authority_s_passphrase_that_was_cut_off_is_finished(
    type_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_private_file(tmp_path / "pass", b"correct horse battery\n")
    works(type_("init auth --federation demo"))
    replace = Path.replace

    def cut(path: Path, target: Path) -> Path:
        if target.name == "ca.key":
            raise OSError(28, "No space left on device")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        assert type_("passphrase auth --passphrase-file pass").code == 2
    assert type_("keys auth").err.startswith("INSITU-KEY-LOCKED")
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(tmp_path / "pass"))
    works(type_("rotate auth --key"))
    for name in ("authority.key", "ca.key"):
        assert (tmp_path / "auth" / name).read_bytes().startswith(b"eyJ")
    assert not list((tmp_path / "auth").glob("*relock*"))


def test_the_new_passphrase_is_not_the_present_one(type_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_private_file(tmp_path / "pass", b"correct horse battery\n")
    works(type_("init auth --federation demo --passphrase-file pass"))
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(tmp_path / "pass"))
    before = (tmp_path / "auth" / "authority.key").read_bytes()
    assert "--passphrase-file FILE or spell out" in type_("passphrase auth").err
    assert "is the present one" in type_("passphrase auth --passphrase-file pass").err
    assert (tmp_path / "auth" / "authority.key").read_bytes() == before


def test_new_code_reads_the_keys_under_the_passphrase_too(
    type_, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_private_file(tmp_path / "pass", b"correct horse battery\n")
    works(type_("init auth --federation demo --passphrase-file pass"))
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(tmp_path / "pass"))
    settle_parties(type_)
    works(type_(f"{GRANT} --out g.jwt"))
    acts = (
        "amend auth --grant g.jwt --epsilon 6 --reference R-2 --out g.jwt",
        "suspend auth --grant g.jwt",
        "resume auth --grant g.jwt",
        "revoke auth --grant g.jwt",
        "audit seal auth --out seal.jws",
        "audit export auth --out auth.jsonl",
        "drill ca-key auth",
    )
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE")
    for line in acts:
        assert type_(line).err.startswith("INSITU-KEY-LOCKED"), line
    for line in ("audit verify auth", "audit show auth"):
        works(type_(line))
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(tmp_path / "pass"))
    for line in acts:
        works(type_(line))


def test_every_act_on_keys_is_an_entry(type_, tmp_path: Path) -> None:
    settle(type_)
    (tmp_path / "dataset.toml").write_text(DATASET)
    works(type_("manifest auth --dataset dataset.toml --out m.jws"))
    works(type_(f"{GRANT} --out g.jwt"))
    works(type_("invite auth --role researcher --id alice --out alice.inv"))
    found = read_invitation(tmp_path / "alice.inv", pinned(tmp_path), now=datetime.now(UTC))
    requested = change_keys(tmp_path / "alice", now=datetime.now(UTC), ask=asking(), invitation=found)
    works(type_(f"enrol auth {requested.path} --out alice.answer"))
    for line in (
        "renew auth --role node --id n1 --out n1.answer",
        "reseal auth --grant g.jwt --researcher alice --out g.jwt",
        "rotate auth --ca",
        "rotate auth --key",
        "retire auth --key",
        "retire auth --ca --anyway",
        "drill node-key auth --id n1",
        "rotate auth --key --stolen",
        "passphrase auth --no-passphrase",
    ):
        works(type_(line))
    told = entries(tmp_path / "auth" / "audit")
    administered = [(entry.fields["command"], entry.fields["about"]) for entry in told if entry.kind == "administered"]
    assert [command for command, _ in administered] == [
        "invite", "rotate --ca", "rotate --key", "retire --key", "retire --ca", "drill node-key",
        "rotate --key --stolen", "passphrase",
    ]  # fmt: skip
    assert administered[0][1] == {"role": "researcher", "id": "alice"}
    assert administered[6][1] == {"key": pinned(tmp_path)}
    assert all(entry.fields["by"] for entry in told if entry.kind == "administered")
    certified = [(entry.fields["id"], entry.fields["replaced"]) for entry in told if entry.kind == "certified"]
    assert certified[3:] == [("alice", True), ("n1", False)]
    assert [entry.kind for entry in told].count("grant-issued") == 2  # reseal gave it another text
    assert [entry.kind for entry in told].count("key-changed") == 2


@pytest.mark.parametrize("stolen", ["", " --stolen"])
def test_the_authority_s_seals_verify_after_its_key_has_changed(type_, tmp_path: Path, stolen: str) -> None:
    settle(type_)
    works(type_("audit seal auth --out before.jws"))
    works(type_("audit verify auth --seal before.jws"))
    for _ in range(2):
        works(type_(f"rotate auth --key{stolen}"))
        works(type_("retire auth --key"))
        assert works(type_("audit verify auth --seal before.jws --format json")).facts["holds"] is True
    works(type_("manifest auth --out m.jws"))
    works(type_("audit seal auth --out after.jws"))
    assert works(type_("audit verify auth --seal before.jws --seal after.jws --format json")).facts["findings"] == []


def test_keys_shows_what_counts(type_) -> None:
    settle(type_)
    works(type_("invite auth --role node --id n2 --organisation B --jurisdiction DE --out n2.inv"))
    facts = works(type_("keys auth --format json")).facts
    assert {(each["role"], each["id"]) for each in facts["parties"]} == {
        ("node", "n1"), ("gateway", "gw"), ("researcher", "alice")
    }  # fmt: skip
    assert [each["id"] for each in facts["invitations"]] == ["n2"]
    works(type_("rotate auth --ca"))
    assert not any(each["of_the_present_ca"] for each in type_("keys auth --format json").facts["parties"])
    assert "no certificate of the new CA yet: alice, gw, n1" in type_("retire auth --ca").err
    assert len(works(type_("renew auth --all --out answers --format json")).facts["renewed"]) == 3
    works(type_("retire auth --ca"))
    assert works(type_("keys auth --format json")).facts["former_cas"] == 0


def test_a_known_party_is_invited_by_its_name_alone(type_, tmp_path: Path) -> None:
    settle(type_)
    for role, party in (("node", "n1"), ("gateway", "gw"), ("researcher", "alice")):
        works(type_(f"invite auth --role {role} --id {party} --out {party}.inv"))
        assert (tmp_path / f"{party}.inv").stat().st_mode & 0o777 == 0o600
    assert type_("invite auth --role node --id n1 --out n1.inv").code == 2  # not overwritten
    for line in (
        "invite auth --role node --id n9 --out x", "invite auth --role gateway --id g9 --operator H --out x",
        "invite auth --role node --id n9 --organisation B --jurisdiction Fr --out x",
        "invite auth --role node --id n.9! --organisation B --jurisdiction FR --out x",
        "rotate auth", "rotate auth --key --ca", "rotate auth --ca --stolen", "retire auth", "retire auth --key --ca",
        "renew auth --out x", "renew auth --role node --out x", "renew auth --role node --id nobody --out x",
        "reseal auth --grant auth/authority.pub --out x", "drill node-key auth", "drill node-key auth --id nobody",
        "drill some-key auth", "passphrase auth",
    ):  # fmt: skip
        done = type_(line)
        assert (done.code, done.out) == (2, ""), line
        assert done.err.startswith("INSITU-CONFIG-"), line
        assert done.err.count("\n") == 1
        assert not (tmp_path / "x").exists()


def test_a_manifest_repeats_the_datasets_of_the_last_one(type_, tmp_path: Path) -> None:
    settle(type_)
    (tmp_path / "dataset.toml").write_text(DATASET)
    first = works(type_("manifest auth --dataset dataset.toml --out m.jws --format json")).facts
    works(type_("rotate auth --key"))
    pinned = (tmp_path / "auth" / "authority.pub").read_bytes()
    again = works(type_("manifest auth --out m.jws --format json")).facts
    assert again["datasets"] == first["datasets"] != []
    assert again["version"] == first["version"] + 1
    assert len(again["authority_keys"]) == 2
    (tmp_path / "new.pub").write_bytes(pinned)
    assert works(type_("show m.jws --authority new.pub --format json")).facts["verified"] is True
    assert works(type_("show m.jws --format json")).facts["verified"] is False


def test_nothing_is_done_where_the_file_cannot_be_written(type_, tmp_path: Path) -> None:
    settle(type_)
    (tmp_path / "dataset.toml").write_text(DATASET)
    (tmp_path / "folder").mkdir()
    works(type_("manifest auth --dataset dataset.toml --out m.jws"))
    works(type_(f"{GRANT} --out g.jwt"))
    works(type_("rotate auth --key"))
    works(type_("invite auth --role node --id n1 --out n1.inv"))
    found = read_invitation(tmp_path / "n1.inv", pinned(tmp_path), now=datetime.now(UTC))
    requested = change_keys(tmp_path / "n1", now=datetime.now(UTC), ask=asking(), invitation=found)
    held = {name: (tmp_path / "auth" / name).read_bytes() for name in ("keyring.json", "register.json")}
    for line in (
        "reseal auth --grant g.jwt", f"enrol auth {requested.path}", "invite auth --role node --id n1", GRANT,
        "amend auth --grant g.jwt --epsilon 6 --reference R-2", "manifest auth", "renew auth --role node --id n1",
    ):  # fmt: skip
        for out in ("missing/file", "folder"):
            done = type_(f"{line} --out {out}")
            assert (done.code, done.err[:18]) == (2, "INSITU-CONFIG-FILE"), line
    assert held == {name: (tmp_path / "auth" / name).read_bytes() for name in held}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_drill_is_read_by_people(type_) -> None:
    settle(type_)
    out = works(type_("drill node-key auth --id n1")).out
    invite = next(line for line in out.splitlines() if line.startswith("insitu-authority invite"))
    name = invite.split()[-1]
    assert name.startswith("node-n1-")
    assert f'insitu-node key rotate --config node.toml --token {name} --fingerprint "$THUMBPRINT"' in out
    assert name not in works(type_("drill node-key auth --id n1")).out  # an invitation is never overwritten
    assert pinned(Path()) in out
    stolen = works(type_("drill authority-key auth --grant a.jwt --grant b.jwt")).out
    assert pinned(Path()) not in stolen
    assert "authority_key that step 1 prints" in stolen
    connects = [line.split()[2] for line in stolen.splitlines() if line.startswith("insitu connect")]
    assert len(set(connects)) == len(connects) == 2
    assert "# hand manifest.jws to gateway gw as manifest.jws" in out
    facts = works(type_("drill ca-key auth --format json")).facts
    assert facts["steps"][0]["run"] == "insitu-authority rotate auth --ca"
    assert "retire auth --ca" in facts["steps"][-3]["run"]


@pytest.mark.parametrize(
    "command", ["invite", "enrol", "renew", "keys", "rotate", "retire", "reseal", "passphrase", "drill"]
)
def test_help_has_an_example(type_, command: str) -> None:
    assert "Example:" in works(type_(f"{command} --help")).out
