"""``compose.yaml``, the Dockerfile and their scripts name only what exists: commands, flags, files, ports, variables.

No container engine is needed: the services' commands are looked up in this environment, their flags in the commands'
own help, their files in the image as the Dockerfile makes it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from insitu_compose.demo.contract import contract
from insitu_compose.demo.sites import SITES
from insitu_compose.programs import find

from tests.unit.compose.compose_file import read

ROOT = Path(__file__).resolve().parents[3]
COMPOSE = ROOT / "compose"
FILE = read((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
DOCKERFILE = (COMPOSE / "Dockerfile").read_text(encoding="utf-8")
SCRIPTS = sorted((COMPOSE / "docker").glob("*.sh"))
CONFIGS = sorted((COMPOSE / "docker").glob("*.toml"))
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "insitu-demo"}


def in_image(path: str) -> Path | None:
    """The file of this repository that stands at ``path`` in the image, as the Dockerfile copies it."""
    if path.startswith("/etc/insitu/"):
        return COMPOSE / "docker" / path.removeprefix("/etc/insitu/")
    return ROOT / path.removeprefix("/opt/insitu/") if path.startswith("/opt/insitu/") else None


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Mount point to volume."""
    return {target: volume for volume, _, target in (entry.partition(":") for entry in service.get("volumes") or [])}


def is_mounted(path: str, service: dict[str, Any]) -> bool:
    return any(PurePosixPath(path).is_relative_to(target) for target in mounts(service))


def script_commands(script: Path) -> list[list[str]]:
    """The insitu commands of a shell script, with its one variable filled in."""
    text = script.read_text(encoding="utf-8").replace("\\\n", " ").replace("$committee", "/trust/authority")
    lines = [line.strip().removeprefix("exec ") for line in text.splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("insitu")]


def command_lines() -> list[tuple[str, list[str]]]:
    """Every command line of the federation, with where it stands."""
    found = []
    for name, service in OURS.items():
        command = list(service.get("entrypoint") or []) + list(service["command"])
        if command[0] != "/bin/sh":
            found.append((name, command))
        if "healthcheck" in service:
            found.append((f"{name} healthcheck", service["healthcheck"]["test"][1:]))
    for script in SCRIPTS:
        found += [(script.name, command) for command in script_commands(script)]
    return found


def program(command: list[str]) -> list[str]:
    """The command as it can be run here."""
    return [sys.executable if command[0] == "python" else find(command[0]), *command[1:]]


def help_of(command: list[str]) -> str:
    """The help of the subcommand that the command line calls."""
    words = program(command)
    called = words[:3] if words[1] == "-m" else [word for word in words[:2] if not word.startswith("-")]
    done = subprocess.run([*called, "--help"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(("where", "command"), command_lines(), ids=[where for where, _ in command_lines()])
def test_every_command_and_flag_exists(where: str, command: list[str]) -> None:
    text = help_of(command)
    for flag in (word for word in command if word.startswith("--")):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{where}: {command[0]} has no {flag}"


def test_every_file_that_a_service_names_exists_where_it_runs() -> None:
    for name, service in OURS.items():
        for word in service["command"]:
            if not word.startswith("/") or word == "/bin/sh":
                continue
            file = in_image(word)
            assert is_mounted(word, service) if file is None else file.is_file(), f"{name}: {word}"


def test_every_file_that_a_configuration_names_is_in_the_image_or_on_a_volume() -> None:
    for config in CONFIGS:
        service = SERVICES[config.stem]
        text = config.read_text(encoding="utf-8")
        tomllib.loads(text)
        for path in re.findall(r'"(/[^"]*)"', text):
            file = in_image(path)
            assert is_mounted(path, service) if file is None else file.is_file(), f"{config.name}: {path}"


def test_what_the_init_job_writes_is_where_each_party_reads_it() -> None:
    written = {word for command in script_commands(COMPOSE / "docker" / "trust.sh") for word in command}
    trust = mounts(SERVICES["trust"])
    for party in ("gateway", "chu-lille", "chu-rennes", "uz-leuven"):
        assert f"/trust/{party}/identity" in written
        assert mounts(SERVICES[party])["/trust"] == trust[f"/trust/{party}"]
    assert mounts(SERVICES["profile"])["/trust"] == trust["/trust/researcher"]
    assert {"/trust/researcher/identity", "/trust/researcher/grant.jwt"} <= written
    assert 'cp "$committee/manifest.jws" /trust/gateway/manifest.jws' in SCRIPTS[1].read_text()


def test_no_party_mounts_anothers_secrets() -> None:
    for name, service in OURS.items():
        secret = {volume for volume in mounts(service).values() if volume.startswith("trust-")}
        owner = "researcher" if name == "profile" else name
        assert name == "trust" or secret <= {f"trust-{owner}"}


def test_volumes_and_networks_are_declared_and_used() -> None:
    used = {volume for service in SERVICES.values() for volume in mounts(service).values()}
    assert used == set(FILE["volumes"])
    joined = {network for service in SERVICES.values() for network in service.get("networks") or []}
    assert joined == set(FILE["networks"])


def test_every_mount_point_is_made_for_the_user_of_the_image() -> None:
    made = re.search(r"install -d -o insitu -g insitu ((?:[^\n]|(?<=\\)\n)*)", DOCKERFILE)
    assert made is not None
    folders = set(made.group(1).replace("\\\n", " ").split())
    assert {target for service in OURS.values() for target in mounts(service)} <= folders


def test_dependencies_are_services_and_reach_the_state_asked_for() -> None:
    for name, service in SERVICES.items():
        for other, condition in (service.get("depends_on") or {}).items():
            wanted = condition["condition"]
            assert wanted in ("service_completed_successfully", "service_healthy")
            assert wanted != "service_healthy" or "healthcheck" in SERVICES[other], name
            assert wanted != "service_completed_successfully" or "restart" not in SERVICES[other], name


def test_only_the_gateway_listens_and_where_everyone_dials() -> None:
    gateway = tomllib.loads((COMPOSE / "docker" / "gateway.toml").read_text())["gateway"]
    port = gateway["listen"].rpartition(":")[2]
    assert all("ports" not in service for service in SERVICES.values())
    for site in SITES:
        node = tomllib.loads((COMPOSE / "docker" / f"{site.id}.toml").read_text())
        assert [one["address"] for one in node["gateway"]] == [f"gateway:{port}"]
        assert set(SERVICES[site.id]["networks"]) & set(SERVICES["gateway"]["networks"])
    assert f"--address gateway:{port}" in " ".join(" ".join(line) for line in script_commands(SCRIPTS[1]))
    assert f"--gateway gateway:{port}" in " ".join(script_commands(SCRIPTS[0])[0])


def test_the_sites_are_those_of_the_demonstration() -> None:
    dataset = contract()
    for site in SITES:
        node = tomllib.loads((COMPOSE / "docker" / f"{site.id}.toml").read_text())
        source = node["datasets"][dataset.name]
        assert (node["node"]["id"], source["engine"]) == (site.id, site.engine)
        assert in_image(source["contract"]) == COMPOSE / "demo" / "omop" / "dataset.toml"
        protected = {name for name, table in dataset.tables.items() if not table.public}
        assert protected <= source["tables"].keys() <= dataset.tables.keys()
        made = next(command for where, command in command_lines() if where == "trust.sh" and site.id in command)
        assert made[made.index("--organisation") + 1] == site.organisation
        assert made[made.index("--jurisdiction") + 1] == site.jurisdiction


def test_the_database_url_names_a_service_its_port_and_its_database() -> None:
    node = tomllib.loads((COMPOSE / "docker" / "uz-leuven.toml").read_text())
    database = SERVICES["uz-leuven-database"]
    for url in (node["datasets"]["omop"]["database"], SERVICES["uz-leuven-data"]["command"][-1]):
        assert url.endswith(f"@uz-leuven-database:5432/{database['environment']['POSTGRES_DB']}")
    assert set(database["networks"]) <= set(SERVICES["uz-leuven"]["networks"])


def test_every_variable_is_documented_and_read() -> None:
    text = (COMPOSE / "compose.yaml").read_text()
    usage, _, services = text.partition("\nservices:")
    asked = set(re.findall(r"\$\{(\w+):\?", services))
    assert asked == {"INSITU_DEMO_ADMIN_PASSWORD", "INSITU_DEMO_NODE_PASSWORD"}
    assert all(name in usage for name in asked)
    from insitu_compose.demo.load import PASSWORD_VARIABLE

    known = {"PGPASSWORD", "POSTGRES_DB", "POSTGRES_PASSWORD", PASSWORD_VARIABLE}
    assert {name for service in SERVICES.values() for name in service.get("environment") or {}} <= known


def test_the_usage_in_the_head_of_the_file_names_services() -> None:
    usage = (COMPOSE / "compose.yaml").read_text().partition("\nname:")[0]
    up = re.search(r"docker compose up --build --detach --wait ([^\n]*)", usage)
    assert up is not None
    assert set(up.group(1).split()) <= SERVICES.keys()
    assert "run --rm researcher" in usage


def test_the_dockerfile_copies_what_exists_and_installs_every_distribution() -> None:
    for source in re.findall(r"^COPY (\S+) ", DOCKERFILE, re.MULTILINE):
        assert (ROOT / source).exists(), source
    installed = set(re.findall(r"\./(\w+)", DOCKERFILE.partition("--no-build-isolation")[2]))
    assert installed == {path.parent.name for path in ROOT.glob("*/pyproject.toml")}
    assert FILE["services"]["trust"]["build"] == {"context": "..", "dockerfile": "compose/Dockerfile"}


def test_scripts_are_plain_shell() -> None:
    for script in SCRIPTS:
        assert subprocess.run(["sh", "-n", script], check=False).returncode == 0
        assert script.stat().st_mode & 0o111
