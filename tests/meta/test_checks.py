"""B6, B7: the checks of `make check` on code and dependencies, and that each can fail."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).parent / "ruff"
PACKAGES = (
    "access/insitu_access",
    "client/insitu",
    "compose/insitu_compose",
    "gateway/insitu_gateway",
    "node_agent/insitu_node",
    "privacy/insitu_privacy",
    "proto/insitu_proto",
)
FORBIDDEN = [
    ("import pickle", "TID251"),
    ("from pickle import loads", "TID251"),
    ("import marshal", "TID251"),
    ("import shelve", "TID251"),
    ("import yaml", "TID251"),
    ("import tomllib", "TID251"),
    ("import json\n\njson.loads('1')", "TID251"),
    ("eval('1')", "S307"),
    ("exec('1')", "S102"),
    ("import os\n\nos.system('true')", "S605"),
    ("import os\n\nos.popen('true')", "S605"),
    ("import subprocess\n\nsubprocess.run('true', shell=True, check=True)", "S602"),
]


def loaded(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


DEPENDENCIES, AUDIT = loaded("docs/generate_dependencies.py"), loaded("tools/audit.py")


@pytest.mark.attacks("B6")
@pytest.mark.parametrize(("code", "rule"), FORBIDDEN, ids=[code.splitlines()[-1] for code, _ in FORBIDDEN])
def test_what_makes_code_of_data_is_found(code: str, rule: str) -> None:
    for package in PACKAGES:
        done = subprocess.run(
            [RUFF, "check", "--output-format", "concise", "--stdin-filename", f"{package}/some.py", "-"],
            input=code + "\n",
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        assert f" {rule} " in done.stdout, (package, done.stdout, done.stderr)


def test_the_lock_is_what_is_installed() -> None:
    packages = list(DEPENDENCIES.locked(DEPENDENCIES.LOCKS[0].read_text()))
    assert len(packages) > 50
    assert DEPENDENCIES.faults(packages) == []
    for lock in DEPENDENCIES.LOCKS:
        assert DEPENDENCIES.unhashed(lock) == []


@pytest.mark.attacks("B7")
def test_a_package_without_a_hash_is_found(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text("rich==1.0 \\\n    --hash=sha256:00\n    # via typer\ntyper==2\n    # via -r some.in\nclick\n")
    assert DEPENDENCIES.unhashed(lock) == ["some.lock: click has no hash", "some.lock: typer has no hash"]
    first = next(DEPENDENCIES.locked(lock.read_text()))
    assert (first.name, first.via) == ("rich", ("typer",))


@pytest.mark.parametrize(
    ("name", "licence", "allowed"),
    [
        ("some", "MIT", True),
        ("some", "GPL-3.0-only OR MIT", True),
        ("some", "GPL-3.0-only AND MIT", False),
        ("some", "LGPL-3.0-only", False),
        ("some", "", False),
        ("psycopg", "LGPL-3.0-only", True),
        ("psycopg", "GPL-3.0-only", False),
    ],
)
def test_a_licence_is_allowed_or_it_is_not(name: str, licence: str, allowed: bool) -> None:
    assert DEPENDENCIES.is_allowed(name, licence) is allowed


@pytest.mark.attacks("B7")
def test_another_version_and_a_package_for_no_reason_are_found() -> None:
    one = DEPENDENCIES.Locked(name="click", version="0", hashes=1, via=())
    assert len(DEPENDENCIES.faults([one])) == 2


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        ("", 0, "cannot be had"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 0, "cannot be had"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "of 1 packages of 1"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]}]}', 1, "a 1: PYSEC-1"),
    ],
)
def test_the_audit_fails_for_a_vulnerability_alone(output: str, code: int, said: str) -> None:
    found = AUDIT.verdict(output)
    assert found[0] == code
    assert said in found[1]
