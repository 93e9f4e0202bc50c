"""The keys of a node and of a gateway by their own commands: each is told in the audit log, which goes on verifying."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from insitu_access.files import write_private_file
from insitu_access.keys import load_verifying_key

from tests.testkit.audit_logs import entries, kinds

INVITE = {
    "node": "--organisation CHU --jurisdiction FR",
    "gateway": "--operator Hub --jurisdiction FR --address gw.example.org:7443",
}


@dataclass
class Town:
    """An authority and one party, each command as typed."""

    root: Path
    type_: Callable[[str], tuple[int, str, str]]
    role: str
    config: str

    def works(self, line: str) -> Any:
        code, out, err = self.type_(line)
        assert (code, err) == (0, ""), line
        return json.loads(out) if out.startswith("{") else out

    def own(self, line: str) -> Any:
        return self.works(f"insitu-{self.role} {line} {self.config}")

    def invite(self, name: str) -> str:
        thumbprint = self.works("insitu-authority keys auth --format json")["authority_key"]
        self.works(f"insitu-authority invite auth --role {self.role} --id p {INVITE[self.role]} --out {name}")
        return f"--token {name} --fingerprint {thumbprint}"

    def answer(self, request: str) -> str:
        self.works(f"insitu-authority enrol auth p/identity/{request} --out p.answer")
        return "p.answer"

    @property
    def log(self) -> Path:
        return self.root / "p" / "state" / "audit"

    @property
    def key(self) -> str:
        return load_verifying_key(self.root / "p" / "identity" / "signing.pub").thumbprint

    def acts(self) -> list[str]:
        return [str(entry.fields["command"]) for entry in entries(self.log) if entry.kind == "administered"]


@pytest.fixture(params=["node", "gateway"])
def town(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Town:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE", raising=False)

    def type_(line: str) -> tuple[int, str, str]:
        words = line.split()
        package = {"insitu-authority": "insitu_access"}.get(words[0], words[0].replace("-", "_"))
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as caught:
            import_module(f"{package}.commands.main").main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    made = Town(root=tmp_path, type_=type_, role=request.param, config=f"--config p/{request.param}.toml")
    made.works("insitu-authority init auth --federation demo")
    made.works(f"insitu-{made.role} init --out p {made.invite('first.inv')}")
    return made


def test_every_change_of_keys_is_an_entry_and_all_seals_verify(town: Town) -> None:
    first = town.key
    town.own(f"key install {town.answer('request.jws')}")
    town.own("audit seal --out before.jws")
    town.own("key rotate")
    town.own(f"key install {town.answer('next/request.jws')}")
    second = town.key
    assert town.acts() == ["init", "key install", "key rotate", "key install"]
    assert kinds(town.log).count("key-changed") == 1
    (changed,) = [entry.fields for entry in entries(town.log) if entry.kind == "key-changed"]
    assert changed == {"former": first, "key": second}
    assert town.own("audit verify --seal before.jws --format json")["holds"] is True
    town.works("insitu-authority rotate auth --key")
    thumbprint = load_verifying_key(town.root / "auth" / "authority.pub").thumbprint
    town.own(f"trust auth/authority.pub --fingerprint {thumbprint}")
    assert town.acts()[-1] == "trust"
    assert [entry for entry in entries(town.log) if entry.kind == "administered"][-1].fields["about"] == {
        "key": thumbprint
    }
    told = [entry.fields for entry in entries(town.log) if entry.kind == "administered"]
    assert [one["about"].get("vouched_by") for one in told if one["command"] == "key rotate"] == ["present key"]
    assert all(one["by"] for one in told)
    # the authority knows which key was the party's when
    town.own("audit export --out copy.jsonl")
    reconciled = town.works(f"insitu-authority audit reconcile auth --{town.role} copy.jsonl --format json")
    assert [log["holds"] for log in reconciled["logs"]] == [True]
    assert town.works("insitu-authority audit verify auth --format json")["holds"] is True


@pytest.mark.parametrize("gone", [(), ("signing.key",), ("signing.key", "tls.key", "tls.pem")])
def test_lost_keys_do_not_end_the_log(town: Town, gone: tuple[str, ...]) -> None:
    town.own(f"key install {town.answer('request.jws')}")
    for name in gone:
        (town.root / "p" / "identity" / name).unlink()
    town.own(f"key rotate {town.invite('second.inv')}")
    told = town.acts()
    assert told[2:] == ([] if gone else ["key rotate"])  # who has no key cannot go on with its log
    town.own(f"key install {town.answer('next/request.jws')}")
    assert town.acts()[len(told) :] == ["key install"]
    assert kinds(town.log)[-2:] == ["key-changed", "seal"]
    assert town.own("audit verify --format json")["holds"] is True
    town.own("audit export --out copy.jsonl")
    reconciled = town.works(f"insitu-authority audit reconcile auth --{town.role} copy.jsonl --format json")
    assert [log["holds"] for log in reconciled["logs"]] == [True]


def test_a_log_that_cannot_be_continued_stops_the_command(town: Town) -> None:
    town.own(f"key install {town.answer('request.jws')}")
    for path in town.log.glob("*.jsonl"):
        path.write_bytes(path.read_bytes().replace(b"key install", b"key shuffle"))
    code, _, err = town.type_(f"insitu-{town.role} key rotate {town.config}")
    assert (code, err.split(":")[0]) == (4, "INSITU-AUDIT-BROKEN")
    assert not (town.root / "p" / "identity" / "next").exists()


def test_evidence_is_read_without_the_passphrase_and_sealed_with_it(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_private_file(town.root / "pass", b"correct horse battery\n")
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(town.root / "pass"))
    town.works(f"insitu-{town.role} init --out q --passphrase-file pass {town.invite('q.inv')}")
    town.works("insitu-authority enrol auth q/identity/request.jws --out q.answer")
    town.config = town.config.replace("p/", "q/")
    town.own("key install q.answer")
    monkeypatch.delenv("INSITU_PASSPHRASE_FILE")
    assert town.own("audit verify --format json")["holds"] is True
    assert town.own("audit show --format json")["holds"] is True
    for line in ("audit seal", "audit export --out copy", "key rotate"):
        assert town.type_(f"insitu-{town.role} {line} {town.config}")[2].startswith("INSITU-KEY-LOCKED"), line
    monkeypatch.setenv("INSITU_PASSPHRASE_FILE", str(town.root / "pass"))
    town.own("audit seal --out q.seal")
