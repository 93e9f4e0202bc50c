"""H7 to H9: what a profile costs, when it is made again, and what it holds; with real engines, mechanisms and files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from insitu_access.data_profile import open_data_profile, write_data_profile
from insitu_access.keys import generate_signing_key
from insitu_node.engines.base import Row
from insitu_node.ledger import PROFILES
from insitu_node.ledger_sqlite import SqliteLedger
from insitu_node.profile_store import Announcements, ProfileStore
from insitu_node.profiling import Past, Step, Wanted, decided, past
from insitu_node.projects import Halt
from insitu_privacy.errors import AccessRefused, BudgetRefused, ConfigInvalid, ExecutionFailed
from insitu_privacy.plan import Release, ReleasedValues

from tests.testkit.node_world import CARE, NODE, care, care_engine
from tests.testkit.profilers import NOW, Crash, Site, crash_at

PLACES = ("before-reserve", "after-reserve", "after-execute", "after-noise", "before-commit", "after-commit")

# ----------------------------------------------------------------------------------------------------------- decisions


def charge(serial: int, state: Any = "released", *, this: bool = True, epsilon: int = 1) -> Past:
    return Past(serial=serial, this_version=this, state=state, plan_digest="d", epsilon=Fraction(epsilon))


def asked(epsilon: int | None = 5, *, refresh: bool = False) -> Wanted:
    return Wanted(epsilon=None if epsilon is None else Fraction(epsilon), refresh=refresh)


def step(serial: int, epsilon: int = 5, charged: Past | None = None) -> Step:
    return Step(serial=serial, epsilon=Fraction(epsilon), charged=charged)


@pytest.mark.attacks("H8")
@pytest.mark.parametrize(
    ("charges", "kept", "wanted", "expected"),
    [
        ([], None, asked(), step(1)),
        ([charge(1)], 1, asked(), None),
        ([charge(1)], 1, asked(None), None),
        ([charge(1)], 1, asked(refresh=True), step(2)),
        ([charge(1, this=False)], None, asked(), step(2)),
        # cut off: under the charge and at the cost of then, whatever is asked now
        ([charge(1, "reserved")], None, asked(), step(1, 1, charge(1, "reserved"))),
        ([charge(1, "reserved")], None, asked(None), step(1, 1, charge(1, "reserved"))),
        ([charge(1, "reserved")], None, asked(refresh=True), step(1, 1, charge(1, "reserved"))),
        ([charge(1)], None, asked(), step(1, 1, charge(1))),
        ([charge(1), charge(2, "reserved")], 1, asked(refresh=True), step(2, 1, charge(2, "reserved"))),
        ([charge(1), charge(2)], 1, asked(refresh=True), step(2, 1, charge(2))),
        ([charge(1), charge(2, "reserved")], 1, asked(), None),
        # given up long ago
        ([charge(1, "reserved"), charge(2)], 2, asked(refresh=True), step(3)),
        # of a version before
        ([charge(1, "reserved", this=False)], None, asked(), step(2)),
        ([charge(1, "failed")], None, asked(refresh=True), step(2)),
        ([charge(1, "failed", this=False)], None, asked(), step(2)),
    ],
)
def test_what_is_to_be_made(charges: list[Past], kept: int | None, wanted: Wanted, expected: Step | None) -> None:
    assert decided("care", charges, kept, wanted) == expected


@pytest.mark.attacks("H8")
def test_a_run_that_failed_is_not_tried_again_unasked() -> None:
    with pytest.raises(BudgetRefused, match="INSITU-PROFILE-AGAIN"):
        decided("care", [charge(1, "failed")], None, asked())


def test_an_epsilon_is_needed_where_something_is_charged() -> None:
    for wanted, kept in ((asked(None), None), (asked(None, refresh=True), 1)):
        with pytest.raises(ConfigInvalid, match="Pass --epsilon"):
            decided("care", [charge(1)] if kept else [], kept, wanted)


# -------------------------------------------------------------------------------------------------------------- making


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    engine = care_engine(tmp_path)
    yield Site(folder=tmp_path, dataset=care(), engine=engine, ledger=SqliteLedger(tmp_path / "ledger.sqlite"))
    engine.close()


def spent(site: Site) -> list[tuple[str, Fraction]]:
    return [(account.dataset, account.epsilon) for account in site.ledger.statement(PROFILES)]


def states(site: Site) -> list[str]:
    return [entry.state for entry in site.ledger.entries()]


def watch(site: Site, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that reach the database from now on."""
    read: list[str] = []
    session = site.engine.session

    def watched() -> Any:
        class Watched:
            def __enter__(self) -> Any:
                self.inner = session()
                opened = self.inner.__enter__()
                inner, execute = self, opened.execute

                class Session:
                    def execute(self, sql: str) -> list[Row]:
                        assert inner is not None
                        if not sql.startswith("DESCRIBE"):  # of no row is anything read
                            read.append(sql)
                        return execute(sql)

                return Session()

            def __exit__(self, *error: Any) -> Any:
                return self.inner.__exit__(*error)

        return Watched()

    monkeypatch.setattr(site.engine, "session", watched)
    return read


def test_it_is_made_charged_kept_and_told(site: Site) -> None:
    made = site.profile(1)
    one = made.profile
    assert (made.how, one.node, one.serial, one.epsilon, one.issued_at) == ("made", NODE, 1, 1, NOW)
    assert (one.profile.dataset, one.profile.dataset_digest) == ("care", care().digest)
    kinds = [(each.measure.table, each.measure.kind, each.measure.column) for each in one.profile.histograms]
    assert kinds == [
        ("person", "values", "birth_year"),
        ("visit", "rows", None),
        ("visit", "values", "day"),
        ("visit", "values", "amount"),
        ("visit", "sums", "amount"),
    ]
    rows = one.profile.find("visit", "rows")
    assert rows is not None
    assert rows.counts[3] == pytest.approx(900, abs=150), "everyone has three stays"
    assert sum(rows.counts) == pytest.approx(900, abs=600)
    assert spent(site) == [("care", 1)]
    assert site.store.kept("care") == one
    (path,) = site.store.directory.glob("*.json")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes() == write_data_profile(one)


def test_it_is_of_the_tables_that_are_named_and_served(site: Site) -> None:
    made = site.profile(1, tables={"person"})
    (only,) = made.profile.profile.histograms
    assert (only.measure.column, round(only.deviation, 1)) == ("birth_year", 2.8)
    with pytest.raises(ConfigInvalid, match="no measure"):
        site.profile(1, tables=set(), refresh=True)
    assert spent(site) == [("care", 1)]


@pytest.mark.attacks("H8")
def test_asked_again_the_same_one_is_shown_and_no_data_is_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    first = site.profile(1).profile
    read = watch(site, monkeypatch)
    for epsilon in (1, 2, None, Fraction(1, 3)):
        again = site.profile(epsilon)
        assert (again.how, again.profile) == ("kept", first)
    assert (spent(site), states(site), read) == ([("care", 1)], ["released"], [])


@pytest.mark.attacks("H8")
def test_a_refresh_is_charged_once_more_and_numbered(site: Site) -> None:
    first = site.profile(1).profile
    second = site.profile(Fraction(1, 2), refresh=True)
    assert (second.how, second.profile.serial, second.profile.epsilon) == ("made", 2, Fraction(1, 2))
    assert second.profile.profile != first.profile
    assert spent(site) == [("care", Fraction(3, 2))]
    assert site.profile().profile == second.profile


@pytest.mark.attacks("H7")
def test_what_goes_beyond_the_budget_is_refused_before_data_is_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.profile(Fraction(3, 2))
    before = site.store.stamp()
    read = watch(site, monkeypatch)
    for epsilon in (Fraction(1, 2) + Fraction(1, 10**9), 1, 10**6):
        with pytest.raises(BudgetRefused, match="INSITU-PROFILE-BUDGET"):
            site.profile(epsilon, refresh=True)
    assert (spent(site), states(site), read) == ([("care", Fraction(3, 2))], ["released"], [])
    assert site.store.stamp() == before
    assert site.profile(Fraction(1, 2), refresh=True).how == "made", "to the last of it"


@pytest.mark.attacks("H7")
def test_one_budget_covers_all_versions_of_a_dataset(site: Site) -> None:
    from insitu_privacy.dataset import DatasetBundle
    from insitu_privacy.dataset_file import parse_dataset

    site.profile(Fraction(3, 2))
    newer = parse_dataset(DatasetBundle(toml=CARE.replace(b"version = 1", b"version = 2"), files={}))
    later = Site(folder=site.folder, dataset=newer, engine=site.engine, ledger=site.ledger, key=site.key)
    with pytest.raises(BudgetRefused, match="INSITU-PROFILE-BUDGET"):
        later.profile(1)
    made = later.profile(Fraction(1, 2))
    assert (made.how, made.profile.serial, made.profile.profile.dataset_digest) == ("made", 2, newer.digest)
    assert spent(site) == [("care", 2)]
    assert site.profile(1).profile.serial == 1, "the version before has its own still"


@pytest.mark.attacks("H8", "L4")
@pytest.mark.parametrize("place", PLACES)
def test_a_crash_is_charged_at_most_once_and_finished_for_nothing(site: Site, place: str) -> None:
    site.hook = crash_at(place)
    with pytest.raises(Crash):
        site.profile(1)
    charged = [] if place == "before-reserve" else [("care", Fraction(1))]
    assert spent(site) == charged
    assert site.store.kept("care") is None, "nothing has left"
    site.hook = lambda _: None
    made = site.profile(Fraction(1, 4) if charged else 1)
    assert (made.how, made.profile.serial) == ("finished" if charged else "made", 1)
    assert made.profile.epsilon == 1, "at the cost of then"
    assert (spent(site), states(site)) == ([("care", 1)], ["released"])
    assert site.profile().profile == made.profile
    kinds = [entry.kind for entry in site.logged()]
    assert kinds.count("charge-reserved") == kinds.count("charge-settled") == kinds.count("profile-made") == 1


@pytest.mark.attacks("H8", "L5")
def test_a_refresh_that_was_cut_off_is_finished_and_not_charged_a_third_time(site: Site) -> None:
    site.profile(1)
    for place in ("after-execute", "after-commit"):
        site.hook = crash_at(place)
        with pytest.raises(Crash):
            site.profile(1, refresh=True)
        assert site.profile(1).profile.serial == 1, "without --refresh, the one there is"
    site.hook = lambda _: None
    made = site.profile(1, refresh=True)
    assert (made.how, made.profile.serial) == ("finished", 2)
    assert spent(site) == [("care", 2)]


@pytest.mark.attacks("H8")
def test_what_was_begun_of_other_tables_is_not_charged_again_unasked(site: Site) -> None:
    site.hook = crash_at("after-reserve")
    with pytest.raises(Crash):
        site.profile(1, tables={"visit"})
    site.hook = lambda _: None
    with pytest.raises(BudgetRefused, match=r"INSITU-PROFILE-AGAIN.*--refresh"):
        site.profile(1)
    assert spent(site) == [("care", 1)]
    assert site.profile(1, tables={"visit"}).how == "finished"
    made = site.profile(1, refresh=True)
    assert (made.how, made.profile.serial, spent(site)) == ("made", 2, [("care", 2)])


@pytest.mark.attacks("H7", "P4")
def test_a_run_that_fails_after_its_charge_stays_spent_and_says_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(release: Release, rows: list[Row], before: Mapping[str, ReleasedValues]) -> ReleasedValues:
        raise ValueError("row 17 of Mme Dupont")

    monkeypatch.setattr(site.noise, "draw", fails)
    with pytest.raises(ExecutionFailed, match="INSITU-NODE-FAILED") as failed:
        site.profile(1)
    assert "Dupont" not in str(failed.value)
    assert (spent(site), states(site)) == ([("care", 1)], ["failed"])
    monkeypatch.undo()
    with pytest.raises(BudgetRefused, match="INSITU-PROFILE-AGAIN"):
        site.profile(1)
    assert site.profile(1, refresh=True).profile.serial == 2
    assert spent(site) == [("care", 2)]


@pytest.mark.attacks("P3", "H7")
def test_a_claim_that_does_not_hold_is_found_before_anything_is_charged(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exceeded(release: Release) -> None:
        raise ExecutionFailed("INSITU-MECHANISM-CLAIM")

    monkeypatch.setattr(site.noise, "check", exceeded)
    with pytest.raises(ExecutionFailed, match="INSITU-MECHANISM-CLAIM"):
        site.profile(1)
    assert states(site) == []


@pytest.mark.attacks("C1")
def test_a_halted_node_makes_none_and_keeps_none_of_what_ran(site: Site) -> None:
    def halt(*, halted: bool) -> None:
        site.projects.set_halt(Halt(halted=halted, reason="", by="x", at=NOW))

    halt(halted=True)
    with pytest.raises(AccessRefused, match="INSITU-NODE-HALTED"):
        site.profile(1)
    assert states(site) == []
    halt(halted=False)
    site.hook = lambda place: halt(halted=True) if place == "after-execute" else None
    with pytest.raises(AccessRefused, match="INSITU-NODE-HALTED"):
        site.profile(1)
    assert (states(site), site.store.kept("care")) == (["reserved"], None)
    site.hook = lambda _: None
    halt(halted=False)
    assert site.profile(1).how == "finished"
    assert spent(site) == [("care", 1)]


@pytest.mark.attacks("H9", "L5")
def test_it_holds_what_the_ledger_stored_and_not_what_was_drawn(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    commit: Callable[..., tuple[ReleasedValues, ...]] = site.ledger.commit
    stored: list[tuple[ReleasedValues, ...]] = []

    def another_was_first(reservation: Any, values: tuple[ReleasedValues, ...], now: Any) -> Any:
        zeros = tuple(ReleasedValues(keys=None, statistics=tuple((0,) for _ in one.statistics)) for one in values)
        stored.append(zeros)
        return commit(reservation, zeros, now)

    monkeypatch.setattr(site.ledger, "commit", another_was_first)
    made = site.profile(1)
    assert stored
    assert all(count == 0 for one in made.profile.profile.histograms for count in one.counts)


def test_the_audit_log_has_the_statements_before_and_the_profile_after(site: Site) -> None:
    made = site.profile(1).profile
    entries = site.logged()
    kinds = [entry.kind for entry in entries]
    order = ["administered", "charge-reserved", "sql-run", "charge-settled", "profile-made"]
    assert kinds[-5:] == order
    about, reserved, run, _, told = entries[-5:]
    assert about.fields["command"] == "profile"
    assert about.fields["about"] == {"dataset": "care", "epsilon": "1"}
    assert (reserved.fields["grant_id"], reserved.fields["epsilon"]) == (PROFILES, "1")
    assert run.detail is not None
    assert len(run.detail["statements"]) == 5  # type: ignore[arg-type]
    assert (told.fields["serial"], told.fields["dataset_digest"]) == (1, made.profile.dataset_digest)


@pytest.mark.attacks("E10", "H7")
def test_what_cannot_be_recorded_is_not_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    read = watch(site, monkeypatch)

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("insitu_node.audit.NodeAudit.running", full)
    with pytest.raises(OSError, match="no space"):
        site.profile(1)
    assert (read, states(site), site.store.kept("care")) == ([], ["reserved"], None)


# ------------------------------------------------------------------------------------------------------ kept and given


def test_it_is_signed_when_it_is_given_by_the_key_of_then(site: Site) -> None:
    made = site.profile(1).profile
    keys = [generate_signing_key(), generate_signing_key()]
    given = Announcements(site.store, lambda: keys[0])
    before = given.stamp()
    for _ in range(2):
        (token,) = given.tokens()
        assert open_data_profile(token, keys[0].public(), node=NODE) == made
        keys.reverse()
    assert given.stamp() == before
    keys.reverse()
    assert given.stamp() != before, "another key: it is told again"


@pytest.mark.attacks("C1")
def test_a_halted_node_gives_none_out(site: Site) -> None:
    site.profile(1)
    given = Announcements(site.store, lambda: site.key, site.projects.halted)
    before, tokens = given.stamp(), given.tokens()
    site.projects.set_halt(Halt(halted=True, reason="", by="x", at=NOW))
    assert given.stamp() != before
    assert given.tokens() == ()
    site.projects.set_halt(Halt(halted=False, reason="", by="x", at=NOW))
    assert (given.stamp(), given.tokens()) == (before, tokens)


def test_another_profile_changes_the_stamp_and_nothing_else_does(site: Site) -> None:
    none = site.store.stamp()
    assert (none, site.store.sealed_profiles(site.key)) == ((), ())
    site.profile(1)
    first = site.store.stamp()
    site.profile(1)
    assert site.store.stamp() == first != none
    site.profile(1, refresh=True)
    assert site.store.stamp() != first


def test_the_profile_of_another_version_is_not_given_out(site: Site) -> None:
    site.profile(1)
    other = ProfileStore(site.folder, NODE, {"care": "ab" * 32})
    assert (other.kept("care"), other.sealed_profiles(site.key), other.stamp()) == (None, (), ())


@pytest.mark.attacks("H9")
@pytest.mark.parametrize("change", [{"node": "chu-rennes"}, {"dataset": "other"}, {"dataset_digest": "0" * 64}, None])
def test_a_file_that_is_not_this_nodes_profile_is_not_given_out(site: Site, change: dict[str, Any] | None) -> None:
    site.profile(1)
    (path,) = site.store.directory.glob("*.json")
    body = json.loads(path.read_bytes())
    path.write_bytes(b"{" if change is None else json.dumps({**body, **change}, separators=(",", ":")).encode())
    assert site.store.sealed_profiles(site.key) == ()
    with pytest.raises(ConfigInvalid, match="INSITU-CONFIG-FILE"):
        site.profile(1)


def test_a_file_that_is_lost_is_made_again_of_the_ledger(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made = site.profile(1).profile
    (path,) = site.store.directory.glob("*.json")
    path.unlink()
    read = watch(site, monkeypatch)
    again = site.profile(2)
    assert (again.how, again.profile, read) == ("finished", made, [])
    assert spent(site) == [("care", 1)]


def test_charges_of_projects_and_of_other_datasets_are_no_profiles(site: Site) -> None:
    from dataclasses import replace

    from tests.testkit.asks import ask

    site.ledger.reserve(ask("r1", plan="a" * 64), NOW)
    site.ledger.reserve(replace(ask("profile-0-7", plan="b" * 64), grant_id=PROFILES, dataset="other"), NOW)
    assert past(site.ledger.entries(), care()) == ()
    site.profile(1)
    assert [one.serial for one in past(site.ledger.entries(), care())] == [1]
    assert {account.dataset for account in site.ledger.statement("grant-1")} == {"care"}
