"""The contract of the gateway's store; each store subclasses ``StoreContract``. Here: SQLite, and what only files do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from insitu_gateway.store import AddOutcome, AddRequest, DropProfile, Finish, KeepProfile, Store, Stored
from insitu_gateway.store_sqlite import _SCHEMA_1, SqliteStore
from insitu_privacy.errors import ConfigInvalid
from insitu_proto.messages import NodeOutcome

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def added(request_id: str, *, minutes: int = 0, nodes: tuple[str, ...] = ("b", "a")) -> AddRequest:
    return AddRequest(
        request_id=request_id,
        request_sha256=request_id * 2,
        owner="ada",
        request_jws=f"request {request_id} é",
        grant_jwt="grant",
        nodes=nodes,
        deadline=NOW + timedelta(hours=1),
        accepted_at=NOW + timedelta(minutes=minutes),
    )


def released(node: str, jws: str = "jws") -> NodeOutcome:
    return NodeOutcome(node_id=node, status="released", outcome_jws=jws)


ABSENT = NodeOutcome(node_id="a", status="absent", code="INSITU-NODE-ABSENT", text="text", remedy="remedy")


def finish(request_id: str, *outcomes: NodeOutcome, result: bytes | None = b"{}") -> Finish:
    return Finish(request_id=request_id, outcomes=outcomes, result_json=result, finished_at=NOW + timedelta(seconds=1))


def profile(node: str, serial: int, *, digest: str = "d", jws: str = "jws") -> KeepProfile:
    return KeepProfile(node_id=node, dataset_digest=digest, serial=serial, profile_jws=jws)


class StoreContract:
    """What every store does. ``reopen`` gives the store as another process would find it."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def reopen(self, store: Store) -> Store:
        raise NotImplementedError

    def test_what_is_not_there_is_none(self, store: Store) -> None:
        assert store.find("r") is None
        assert store.open_requests() == ()
        assert store.counts() == {"open": 0, "finished": 0}

    def test_a_request_from_its_start_to_its_end(self, store: Store) -> None:
        assert store.write([added("r")]) == frozenset()
        opened = Stored(request=added("r"), outcomes=(), result_json=None, finished_at=None)
        assert store.find("r") == opened
        store.write([AddOutcome(request_id="r", outcome=released("b"))])
        assert store.open_requests() == (replace(opened, outcomes=(released("b"),)),)
        assert store.counts() == {"open": 1, "finished": 0}
        store.write([finish("r", released("b"), ABSENT)])
        ended = Stored(
            request=added("r"),
            outcomes=(released("b"), ABSENT),
            result_json=b"{}",
            finished_at=NOW + timedelta(seconds=1),
        )
        assert store.find("r") == ended
        assert store.open_requests() == ()
        assert store.counts() == {"open": 0, "finished": 1}
        assert self.reopen(store).find("r") == ended

    def test_outcomes_stand_in_the_order_of_the_nodes(self, store: Store) -> None:
        nodes = ("n2", "n0", "n1")
        store.write([added("r", nodes=nodes)])
        for node in ("n0", "n1", "n2"):
            store.write([AddOutcome(request_id="r", outcome=released(node))])
        found = store.find("r")
        assert found is not None
        assert [outcome.node_id for outcome in found.outcomes] == list(nodes)

    def test_the_first_request_of_an_id_stays(self, store: Store) -> None:
        store.write([added("r")])
        other = replace(added("r"), request_jws="other", owner="bob")
        assert store.write([other, added("s")]) == {"r"}
        found = store.find("r")
        assert found is not None
        assert found.request == added("r")

    def test_the_first_outcome_of_a_node_stays(self, store: Store) -> None:
        store.write([added("r"), AddOutcome(request_id="r", outcome=released("b"))])
        store.write([AddOutcome(request_id="r", outcome=released("b", "second"))])
        store.write([finish("r", released("b", "third"), ABSENT)])
        found = store.find("r")
        assert found is not None
        assert found.outcomes == (released("b"), ABSENT)

    def test_the_first_end_stays(self, store: Store) -> None:
        store.write([added("r"), finish("r", released("b"), ABSENT)])
        store.write([finish("r", released("b", "second"), released("a"), result=b"second")])
        found = store.find("r")
        assert found is not None
        assert (found.outcomes, found.result_json) == ((released("b"), ABSENT), b"{}")

    def test_an_end_without_result(self, store: Store) -> None:
        store.write([added("r"), finish("r", ABSENT, result=None)])
        found = store.find("r")
        assert found is not None
        assert found.result_json is None
        assert found.finished_at is not None

    def test_open_requests_come_oldest_first(self, store: Store) -> None:
        store.write([added("new", minutes=2), added("old"), added("done"), finish("done", ABSENT)])
        assert [stored.request.request_id for stored in store.open_requests()] == ["old", "new"]
        assert store.counts() == {"open": 2, "finished": 1}

    def test_a_batch_is_stored_whole_or_not_at_all(self, store: Store) -> None:
        with pytest.raises(Exception, match=r".+"):
            store.write([added("r"), AddOutcome(request_id="unknown", outcome=released("b"))])
        assert store.find("r") is None
        assert store.write([added("r")]) == frozenset()

    def test_large_texts_and_results(self, store: Store) -> None:
        large = "x" * 5_000_000
        result = bytes(range(256)) * 1000
        store.write([added("r"), finish("r", released("b", large), ABSENT, result=result)])
        found = self.reopen(store).find("r")
        assert found is not None
        assert found.outcomes[0].outcome_jws == large
        assert found.result_json == result

    def test_of_a_nodes_profiles_of_a_dataset_the_newest_stays(self, store: Store) -> None:
        assert (store.profiles("d"), store.profiled()) == ((), ())
        assert store.write([profile("b", 2), profile("a", 1), profile("a", 7, digest="e")]) == frozenset()
        store.write([profile("b", 1, jws="older"), profile("a", 3, jws="newer")])
        kept = (profile("a", 3, jws="newer"), profile("b", 2))
        assert store.profiles("d") == kept
        assert self.reopen(store).profiles("d") == kept
        assert store.profiled() == ("d", "e")
        store.write([profile("b", 2, jws="signed again")])
        assert store.profiles("d")[1].profile_jws == "signed again"

    def test_a_profile_is_dropped_unless_another_took_its_place(self, store: Store) -> None:
        store.write([profile("a", 9, jws="newer"), profile("b", 2)])
        store.write([DropProfile(profile=profile("a", 9, jws="older")), DropProfile(profile=profile("b", 2))])
        store.write([DropProfile(profile=profile("c", 1)), DropProfile(profile=profile("a", 9, digest="e"))])
        assert store.profiles("d") == (profile("a", 9, jws="newer"),)
        store.write([DropProfile(profile=profile("a", 9, jws="newer")), profile("a", 1)])
        assert store.profiles("d") == (profile("a", 1),)  # a serial that was dropped bars nothing

    def test_profiles_and_requests_are_one_batch(self, store: Store) -> None:
        with pytest.raises(Exception, match=r".+"):
            store.write([profile("a", 1), AddOutcome(request_id="unknown", outcome=released("b"))])
        assert store.profiles("d") == ()

    def test_writing_again_after_a_crash_changes_nothing(self, store: Store) -> None:
        batch = [added("r"), AddOutcome(request_id="r", outcome=released("b")), finish("r", released("b"), ABSENT)]
        store.write(batch)
        before = store.find("r")
        store.write(batch)
        assert store.find("r") == before


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
        stores: list[SqliteStore] = []

        def another() -> SqliteStore:
            stores.append(SqliteStore(tmp_path / "gateway.sqlite"))
            return stores[-1]

        yield another
        for store in stores:
            store.close()

    @pytest.fixture
    def store(self, opened: Callable[[], SqliteStore]) -> Store:
        self.opened_again = opened
        return opened()

    def reopen(self, store: Store) -> Store:
        return self.opened_again()

    def test_every_commit_is_on_the_disk(self, opened: Callable[[], SqliteStore]) -> None:
        connection = opened()._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL

    def test_a_file_of_the_version_before_is_carried_over(
        self, opened: Callable[[], SqliteStore], tmp_path: Path
    ) -> None:
        before = sqlite3.connect(tmp_path / "gateway.sqlite", isolation_level=None)
        before.executescript(f"{_SCHEMA_1} PRAGMA user_version = 1;")
        before.execute("INSERT INTO requests VALUES ('r', 's', 'ada', 'jws', 'jwt', '[]', 0, 0, NULL, NULL)")
        before.close()
        store = opened()
        store.write([profile("a", 1)])
        assert store.find("r") is not None
        assert opened().profiles("d") == (profile("a", 1),)

    def test_a_file_of_another_version_is_refused(self, opened: Callable[[], SqliteStore], tmp_path: Path) -> None:
        opened()._connection.execute("PRAGMA user_version = 99")
        with pytest.raises(ConfigInvalid, match="schema version 99"):
            opened()

    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "gateway.sqlite").write_bytes(b"no database" * 100)
        with pytest.raises(ConfigInvalid, match="SQLite says"):
            SqliteStore(tmp_path / "gateway.sqlite")

    def test_what_is_half_written_is_not_there(self, opened: Callable[[], SqliteStore]) -> None:
        store = opened()
        store._connection.execute("BEGIN IMMEDIATE")
        store._add_request(added("r"))
        assert opened().find("r") is None
        store._connection.execute("ROLLBACK")

    def test_a_new_file_killed_while_it_is_made_is_made_again(
        self, opened: Callable[[], SqliteStore], tmp_path: Path
    ) -> None:
        connection = sqlite3.connect(tmp_path / "gateway.sqlite")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.close()
        assert opened().counts() == {"open": 0, "finished": 0}
