"""The gateway's overhead: whole round trips through a real federation beside the slowest node's own time.

``insitu-compose up`` starts a gateway and three nodes as processes on three small DuckDB files, and the SDK asks them.
Three times are taken of every query: the SDK's whole call; within it the wire, from sending the request to having every
node's signed outcome; and in each node process the seconds of ``Cycle.answer`` (``probe/sitecustomize.py``).
The gateway's overhead is the wire less the slowest node. The SDK's is its whole call less the slowest node, and holds
planning, signing, verifying every release, merging, the intervals, and the wait for the gateway's own result, which
comes after the outcomes and is only compared.

Every query is asked at an epsilon of its own, for an equal one would be replayed from the ledgers, and in a text of its
own, for nobody has planned a new question before. All five processes
share this machine's cores, so nodes that run at once slow each other: that is in their own times, not in the overhead.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from typing import Any

import insitu
from insitu.client import Federation
from insitu.profile import read_profile
from insitu.transport import Call, GrpcTransport, Reply, Transport
from insitu_proto.messages import Answered, Ask, Finished

from bench import data, transport_floor
from bench.queries import QUERIES, Query
from bench.timing import seconds
from bench.transport_floor import Floor, Sizes

NODES = ("hospital-a", "hospital-b", "hospital-c")
RESEARCHERS = 4
_REPOSITORY = Path(__file__).parents[1]
_WARM_ROUNDS = 3
_PROBE_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """One query, in seconds."""

    query: Query
    sdk: float
    wire: float
    slowest_node: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayReport:
    """Sequential round trips, the rate with several researchers, and the transport's floor for both."""

    round_trips: tuple[RoundTrip, ...]
    queries_per_second: float
    floor: Floor


def asked() -> tuple[Query, ...]:
    """The queries that the federation can answer."""
    return tuple(query for query in QUERIES if query.handwritten is not None)


def measure(root: Path, *, rounds: int) -> GatewayReport:
    """Starts the federation, asks every query ``rounds`` times, stops it, and then measures the floor."""
    with _federation(root) as (profile, probe), _connect(profile) as (federation, transport):
        numbers = itertools.count(1)
        for _ in range(_WARM_ROUNDS):
            for query in asked():
                _ask(federation, query, next(numbers))
        # round by round, so that a busy moment meets every query alike
        pairs = [_timed(federation, transport, query, next(numbers)) for _ in range(rounds) for query in asked()]
        turns = itertools.cycle(asked())
        lock = Lock()

        def once() -> None:
            with lock:
                query, number = next(turns), next(numbers)
            _ask(federation, query, number)

        per_second = transport_floor.rate(once, total=rounds * len(asked()), researchers=RESEARCHERS)
        own = _own_times(probe, [identifier for identifier, _ in pairs])
        sizes = transport.sizes
    trips = [
        RoundTrip(query=trip.query, sdk=trip.sdk, wire=trip.wire, slowest_node=max(own[identifier]))
        for identifier, trip in pairs
    ]
    floor = transport_floor.measure(sizes, nodes=len(NODES), rounds=max(200, 20 * rounds), researchers=RESEARCHERS)
    return GatewayReport(round_trips=tuple(trips), queries_per_second=per_second, floor=floor)


def _ask(federation: Federation, query: Query, number: int) -> insitu.Result:
    result = federation.query(
        f"{query.sql} -- {number}",
        epsilon=1 + Fraction(number, 10**7),
        delta=query.delta,
        max_rows_per_group=query.max_rows_per_group,
        max_groups=query.max_groups,
    )
    if any(node.status != "released" for node in result.nodes) or result.replayed:
        raise AssertionError(f"{query.name} was not answered anew by every node")
    return result


def _timed(federation: Federation, transport: _TimedTransport, query: Query, number: int) -> tuple[str, RoundTrip]:
    found: list[insitu.Result] = []
    whole = seconds(lambda: found.append(_ask(federation, query, number)))
    return found[0].query_id, RoundTrip(query=query, sdk=whole, wire=transport.last, slowest_node=0.0)


class _TimedTransport:
    """A transport that times the last request from sending to its outcomes, and keeps the sizes of its messages."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.last = 0.0
        self.sizes = Sizes(request=1, grant=1, outcome=1, result=1)

    def call(self, call: Call, *, timeout_s: float) -> Iterator[Reply]:
        start = time.perf_counter()
        for reply in self._inner.call(call, timeout_s=timeout_s):
            if isinstance(call, Ask) and isinstance(reply, Answered):
                self.last = time.perf_counter() - start
            if isinstance(call, Ask) and isinstance(reply, Finished):
                self.sizes = _sizes(call, reply)
            yield reply

    def believe(self, ca_pem: bytes) -> None:
        self._inner.believe(ca_pem)

    def require(self, check: Callable[[bytes], None]) -> None:
        self._inner.require(check)

    def close(self) -> None:
        self._inner.close()


def _sizes(ask: Ask, end: Finished) -> Sizes:
    return Sizes(
        request=len(ask.request_jws),
        grant=len(ask.grant_jwt),
        outcome=max(len(outcome.outcome_jws or "") for outcome in end.outcomes),
        result=len(end.result_json or b""),
    )


# -- the federation --------------------------------------------------------------------------------------------------


@contextmanager
def _connect(profile: Path) -> Iterator[tuple[Federation, _TimedTransport]]:
    found = read_profile(profile)
    transport = _TimedTransport(GrpcTransport(found.gateways, found.identity))
    with Federation(found, transport) as federation:
        yield federation, transport


@contextmanager
def _federation(root: Path) -> Iterator[tuple[Path, Path]]:
    """A new federation of real processes: its profile, and the folder that the probes write to."""
    files = data.sites(root, len(NODES))
    state, probe = root / "federation", root / "probe"
    shutil.rmtree(state, ignore_errors=True)
    shutil.rmtree(probe, ignore_errors=True)
    probe.mkdir(parents=True)
    description = root / "federation.toml"
    description.write_text(_description(files), encoding="utf-8")
    said = _compose("up", str(description), "--dir", str(state), "--detach", probe=probe)  # leaves nothing if it fails
    try:
        yield Path(said.splitlines()[-1]), probe
    finally:
        _compose("down", "--dir", str(state), probe=probe)


def _compose(*arguments: str, probe: Path) -> str:
    paths = [str(Path(__file__).parent / "probe"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "INSITU_BENCH_PROBE": str(probe)}
    command = [sys.executable, "-m", "insitu_compose", *arguments]
    return subprocess.run(
        command, env=environment, cwd=_REPOSITORY, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def _description(files: tuple[Path, ...]) -> str:
    """A grant as large as it takes to be asked thousands of queries at epsilon = 1."""
    parts = [
        f"[federation]\nname = 'bench'\ndatasets = ['{Path(__file__).parent / 'dataset.toml'}']\n",
        "[grant]\nepsilon = 1000000\ndelta = 0.1\naccounting = 'pure'\n",
    ]
    for name, file in zip(NODES, files, strict=True):
        parts.append(
            f"[[node]]\nid = '{name}'\norganisation = '{name}'\njurisdiction = 'FR'\n"
            f"[node.datasets.claims]\nengine = 'duckdb'\ndatabase = '{file}'\n"
            "[node.datasets.claims.tables]\nperson = 'person'\nclaim = 'claim'\n"
        )
    return "\n".join(parts)


def _own_times(probe: Path, wanted: list[str]) -> Mapping[str, list[float]]:
    """Seconds of each node for each request. A probe writes after the node has answered, so it may be a moment late."""
    end = time.monotonic() + _PROBE_PATIENCE_S
    while True:
        found: dict[str, list[float]] = {}
        for file in probe.glob("*.jsonl"):
            for line in file.read_text(encoding="utf-8").splitlines():
                entry: dict[str, Any] = json.loads(line)
                found.setdefault(entry["request"], []).append(entry["seconds"])
        if all(len(found.get(one, ())) == len(NODES) for one in wanted):
            return found
        if time.monotonic() > end:
            raise AssertionError("a probe did not see every request: is bench/probe on the nodes' path?")
        time.sleep(0.1)
