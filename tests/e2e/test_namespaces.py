"""Sovereignty (W3): nothing that insitu runs contacts an address that its configuration does not name.

Every party stands on a host of its own, from which everything else is cut and watched: an offline authority, a
gateway, two custodians, a researcher. They do what parties do, and who spoke to whom is held against the configuration.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import duckdb
import pytest
from insitu_compose.authority import make_trust
from insitu_compose.configs import write_gateway, write_node
from insitu_compose.federation import load_federation
from insitu_compose.layout import Layout

from tests.e2e.small import FEDERATION
from tests.e2e.world import BIN, DATASET
from tests.testkit.databases import new_database
from tests.testkit.namespaces import Contact, Network, network, reason_why_not
from tests.testkit.typed import Done

pytestmark = pytest.mark.skipif(reason_why_not() is not None, reason=str(reason_why_not()))
PORT = 7443
PERSONS = 600
LAKE = """
[[node]]
id = "alpha"
jurisdiction = "FR"
[node.datasets.care]
engine = "duckdb"
database = "alpha.duckdb"
[node.datasets.care.tables]
person = "person"
[[node]]
id = "beta"
jurisdiction = "FR"
[node.datasets.care]
engine = "postgres"
database = "{url}"
[node.datasets.care.tables]
person = "person"
"""
ELSEWHERE = dict.fromkeys(
    (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "grpc_proxy",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
    "http://192.0.2.9:3128",
)
"""What an environment may name is no configuration: nothing goes there."""
NODES = ("alpha", "beta")
HOSTS = ("authority", "gateway", *NODES, "researcher")


def _environment() -> dict[str, str]:
    return {**os.environ, **ELSEWHERE}


class Federation:
    """Every party's programs on that party's host."""

    def __init__(self, root: Path, url: str, hosts: Network) -> None:
        self._hosts, self.layout = hosts, Layout(root / "federation")
        self.address = f"{hosts.addresses['gateway']}:{PORT}"
        self.layout.root.mkdir()
        (root / "FEDERATION.toml").write_text(FEDERATION.format(nodes=LAKE.format(url=url)))
        made = load_federation(root / "FEDERATION.toml")
        hosts.run("authority", lambda: make_trust(made, self.layout, self.address))
        write_gateway(made, self.layout, self.address)
        for node in made.file.node:
            write_node(node, made, self.layout, self.address)
        commands = {"gateway": f"insitu-gateway run --config {self.layout.gateway_config}"}
        commands |= {node: f"insitu-node run --config {self.layout.node_config(node)}" for node in NODES}
        self._log = (root / "log.txt").open("wb")
        self.processes = {host: self._start(host, line) for host, line in commands.items()}
        self._wait_connected()

    def run(self, host: str, line: str, *more: str) -> Done:
        """A command on a host."""
        words = [str(BIN / line.split(maxsplit=1)[0]), *line.split()[1:], *more]
        done = self._hosts.run(
            host,
            lambda: subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=_environment()),
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ask(self, sql: str) -> Done:
        options = f"--epsilon 1e9 --format json -q --profile {self.layout.profile}"
        return self.run("researcher", f"insitu query {options}", sql)

    def logs(self) -> str:
        return Path(self._log.name).read_text()

    def stop(self) -> None:
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.wait(timeout=30)
        self._log.close()

    def _start(self, host: str, line: str) -> subprocess.Popen[bytes]:
        words = [str(BIN / line.split(maxsplit=1)[0]), *line.split()[1:]]
        return self._hosts.run(
            host,
            lambda: subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, env=_environment()
            ),
        )

    def _wait_connected(self) -> None:
        deadline = time.monotonic() + 60
        line = f"insitu-gateway status --config {self.layout.gateway_config} --format json"
        while True:
            done = self.run("gateway", line)
            if done.code == 0 and all(node["connected"] for node in done.json["nodes"]):
                return
            assert time.monotonic() < deadline, done.err + self.logs()
            time.sleep(0.5)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    with network(*HOSTS) as made:
        yield made


@pytest.fixture(scope="module")
def federation(hosts: Network, tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Federation]:
    root = tmp_path_factory.mktemp("cut-off")
    (root / "care").mkdir()
    (root / "care" / "dataset.toml").write_text(DATASET.split("[tables.visit]")[0])
    rows = "SELECT i AS person_id, CASE WHEN i % 3 = 0 THEN 'F' ELSE 'M' END AS sex, 1930 + i % 80 AS birth_year, "
    table = f"CREATE TABLE person AS {rows} 'x' AS name"
    with duckdb.connect(str(root / "alpha.duckdb")) as database:
        database.execute(f"{table} FROM range({PERSONS}) t(i) WHERE i % 2 = 0")
    url = new_database(postgres_url, f"{table} FROM generate_series(0, {PERSONS - 1}) t(i) WHERE i % 2 = 1")
    made = Federation(root, url, hosts)
    try:
        yield made
    finally:
        with suppress(ProcessLookupError):
            made.stop()


def work(federation: Federation) -> None:
    """All that the parties do in a day."""
    layout = federation.layout
    options = f"--gateway {federation.address} --identity {layout.researcher_identity} --grant {layout.grant}"
    for host, line in (
        ("researcher", f"insitu connect {layout.profile} {options}"),
        ("researcher", f"insitu catalog --profile {layout.profile}"),
        ("researcher", f"insitu budget --profile {layout.profile}"),
        ("gateway", f"insitu-gateway check --config {layout.gateway_config}"),
        *(("alpha", f"insitu-node {verb} --config {layout.node_config('alpha')}") for verb in ("check", "status")),
        *(("beta", f"insitu-node {verb} --config {layout.node_config('beta')}") for verb in ("check", "projects list")),
        ("authority", f"insitu-authority show {layout.manifest}"),
    ):
        done = federation.run(host, line)
        assert done.code == 0, f"{line}: {done.err}"
    answer = federation.ask("SELECT sex, COUNT(*) AS n FROM person GROUP BY sex")
    assert answer.code == 0, answer.err + federation.logs()
    assert answer.json["rows"] == [["F", PERSONS // 3], ["M", PERSONS - PERSONS // 3]]
    kept = layout.root / "answer.json"
    kept.write_text(answer.out)
    assert federation.ask("SELECT name FROM person").code != 0
    assert federation.ask("SELECT MIN(birth_year) AS least FROM person").code == 0
    assert federation.run("authority", f"insitu verify {kept} --profile {layout.profile}").code == 0


@pytest.mark.attacks("T2")
@pytest.mark.attacks("T2")
def test_nothing_listens_but_the_gateway_where_it_is_told_to(hosts: Network, federation: Federation) -> None:
    assert {host: hosts.listening(host) for host in HOSTS} == {host: set() for host in HOSTS} | {"gateway": {PORT}}


@pytest.mark.attacks("W3")
def test_only_named_addresses_are_spoken_to(hosts: Network, federation: Federation) -> None:
    """Each node and the researcher open connections to the gateway, and that is all there is, loopback included."""
    work(federation)
    federation.stop()
    hosts.settle()
    gateway = hosts.addresses["gateway"]
    assert hosts.contacts == {Contact(host, "tcp", gateway, PORT) for host in (*NODES, "researcher")}


ASTRAY = """
import contextlib, socket
def speak(family, kind, address):
    with contextlib.suppress(OSError), socket.socket(family, kind) as one:
        one.settimeout(0.2)
        one.connect(address)
        one.send(b"x")
speak(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.7", 443))
speak(socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::7", 443))
speak(socket.AF_INET, socket.SOCK_DGRAM, ("198.51.100.53", 53))
speak(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 4317))
speak(socket.AF_INET, socket.SOCK_STREAM, ("{gateway}", {port}))
"""


def test_whoever_speaks_to_another_address_is_seen(hosts: Network) -> None:
    """The watch can fail: one program that goes astray is caught, whatever it speaks."""
    before = set(hosts.contacts)
    text = ASTRAY.format(gateway=hosts.addresses["gateway"], port=PORT + 1)
    hosts.run("authority", lambda: subprocess.run([sys.executable, "-c", text], check=True, timeout=30))
    hosts.settle()
    assert hosts.contacts - before == {
        Contact("authority", "tcp", "192.0.2.7", 443),
        Contact("authority", "tcp", "2001:db8::7", 443),
        Contact("authority", "udp", "198.51.100.53", 53),
        Contact("authority", "tcp", "127.0.0.1", 4317),
        Contact("authority", "tcp", hosts.addresses["gateway"], PORT + 1),
    }
