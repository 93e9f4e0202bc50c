"""E1 to E6: whatever is done to the bytes of a log, or to its order, is found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from insitu_access.audit.chain import Checker, Report, check_lines
from insitu_access.audit.entry import Entry, Party, detail_sha256, genesis, read_line, write_line
from insitu_access.audit.kinds import DETAILS, KINDS, check_entry
from insitu_access.audit.seal import Seal, make_seal, open_seal
from insitu_access.keys import generate_signing_key
from insitu_access.payload import Malformed, write
from insitu_privacy.errors import AccessRefused

from tests.testkit.audit_logs import chained

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PARTY = Party(role="node", id="chu-lille")
KEY, STRANGER = generate_signing_key(), generate_signing_key()


def told(kind: str, at: datetime = NOW, detail: dict[str, object] | None = None, **fields: object) -> Entry:
    """An entry in no place yet."""
    sha256 = None if detail is None else detail_sha256(detail)
    none = "0" * 64
    return Entry(seq=1, at=at, kind=kind, previous=none, fields=fields, detail_sha256=sha256, detail=detail)


def request(number: int, at: datetime = NOW) -> list[Entry]:
    charge = {"charge": number, "request_id": f"{number:032x}"}
    detail: dict[str, object] = {"statements": [f"SELECT {number}"], "salt": "ab" * 16}
    return [told("charge-joined", at, **charge), told("sql-run", at, detail, statements=1, **charge)]


LOG = [
    told("log-begun", role="node", id="chu-lille", key=KEY.thumbprint),
    *request(1),
    told("seal"),
    *request(2),
    *request(3),
    told("seal", NOW + timedelta(days=1)),
    *request(4, NOW + timedelta(days=2)),
    told("seal", NOW + timedelta(days=2)),
]
LINES = chained(PARTY, KEY, LOG)
LAST_SEAL = open_seal(str(read_line(LINES[-1]).fields["jws"]), [KEY.public()])


def report(lines: Sequence[bytes], **options: object) -> Report:
    return check_lines(lines, options.pop("party", PARTY), [KEY.public()], **options)[0]  # type: ignore[arg-type]


def test_a_log_as_it_was_written_holds() -> None:
    found = report(LINES, seals=[LAST_SEAL])
    assert found.holds
    assert (found.entries, found.first, found.last, found.sealed_to) == (len(LINES), 1, len(LINES), len(LINES))
    assert (found.begins_at, found.ends_at) == (NOW, NOW + timedelta(days=2))


@pytest.mark.attacks("E2")
@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    where = data.draw(st.integers(0, len(LINES) - 1))
    line = bytearray(LINES[where])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
    assert not report([*LINES[:where], bytes(line), *LINES[where + 1 :]]).holds


@pytest.mark.attacks("E2")
@given(st.integers(0, len(LINES) - 1), st.integers(1, len(LINES)))
def test_any_entries_cut_out_are_found(start: int, count: int) -> None:
    left = LINES[:start] + LINES[start + count :]
    assert not report(left, seals=[LAST_SEAL]).holds


@pytest.mark.attacks("E2")
@given(st.integers(0, len(LINES) - 1), st.integers(0, len(LINES) - 1))
def test_any_two_swapped_and_any_one_moved_are_found(one: int, other: int) -> None:
    if one == other:
        return
    swapped = list(LINES)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    assert not report(swapped).holds
    moved = list(LINES)
    moved.insert(other, moved.pop(one))
    assert not report(moved).holds


@given(st.integers(0, len(LINES) - 1), st.integers(0, len(LINES)))
def test_any_one_repeated_is_found(which: int, where: int) -> None:
    assert not report([*LINES[:where], LINES[which], *LINES[where:]]).holds


@pytest.mark.attacks("E6")
@given(st.integers(0, len(LINES)))
def test_an_inserted_entry_is_found_wherever_it_is_chained_on(where: int) -> None:
    before = read_line(LINES[where - 1]) if where else None
    new = replace(
        told("node-stopped", before.at if before else NOW),
        seq=where + 1,
        previous=before.digest if before else genesis(PARTY),
    )
    found = report([*LINES[:where], write_line(new), *LINES[where:]])
    # after the last seal it is what anybody could append: told apart, and the next seal signs it or not
    assert found.holds == (where == len(LINES))
    assert found.sealed_to == len(LINES) or not found.holds


@pytest.mark.attacks("E3")
@given(st.integers(0, len(LINES) - 2))
def test_a_log_rewritten_without_the_key_is_found_by_its_own_seals(where: int) -> None:
    if LOG[where].kind == "seal":
        return
    shorter = [entry for at, entry in enumerate(LOG) if at != where]
    assert not report(chained(PARTY, STRANGER, shorter)).holds


@pytest.mark.attacks("E4")
def test_a_log_rewritten_with_the_key_is_found_by_a_seal_that_was_kept() -> None:
    rewritten = chained(PARTY, KEY, [entry for entry in LOG if entry.fields.get("charge") != 2])
    assert report(rewritten).holds
    found = report(rewritten, seals=[LAST_SEAL])
    assert "a seal of 2026-03-03" in found.findings[0].reason


@pytest.mark.attacks("E4")
def test_a_log_cut_at_an_earlier_seal_is_found_by_a_later_one() -> None:
    assert report(LINES[:4]).holds
    assert [finding.seq for finding in report(LINES[:4], seals=[LAST_SEAL]).findings] == [len(LINES) - 1]
    assert not report(LINES[:-1], seals=[LAST_SEAL]).holds


@pytest.mark.attacks("E2")
def test_a_log_of_another_party_does_not_pass() -> None:
    other = Party(role="node", id="chu-rennes")
    reasons = [finding.reason for finding in report(LINES, party=other).findings]
    assert "it is the log of another party" in reasons
    assert "its seal is of another log, or of another place in it" in reasons


@pytest.mark.attacks("E8")
def test_a_missing_front_passes_only_where_a_sealed_entry_says_so() -> None:
    kept = read_line(LINES[4])
    dropped = told("log-dropped", NOW + timedelta(days=3), first=kept.seq, previous=kept.previous)
    last = read_line(LINES[-1])
    said = replace(dropped, seq=last.seq + 1, previous=last.digest)
    unsealed = [*LINES[4:], write_line(said)]
    assert not report(LINES[4:]).holds
    assert not report(unsealed).holds
    seal = Seal(party=PARTY, first=last.seq + 1, last=said.seq, head=said.digest, at=said.at)
    sealed = told("seal", said.at, jws=make_seal(seal, KEY))
    whole = [*unsealed, write_line(replace(sealed, seq=said.seq + 1, previous=said.digest))]
    assert report(whole).holds
    assert not report(whole[1:]).holds


@pytest.mark.attacks("E5")
def test_time_goes_back_only_where_it_is_said() -> None:
    later, earlier = NOW + timedelta(hours=1), NOW
    assert report(
        chained(PARTY, KEY, [told("node-stopped", later), told("node-stopped", later - timedelta(minutes=4))])
    ).holds
    assert not report(chained(PARTY, KEY, [told("node-stopped", later), told("node-stopped", earlier)])).holds
    said = told("clock-set-back", earlier, before=int(later.timestamp()))
    assert report(chained(PARTY, KEY, [told("node-stopped", later), said, told("node-stopped", earlier)])).holds


def test_details_may_be_withheld_and_nothing_else() -> None:
    withheld = [write_line(read_line(line).withheld()) for line in LINES]
    assert all(b"SELECT" not in line for line in withheld)
    found = report(withheld)
    assert (found.holds, found.withheld) == (True, 4)
    changed = [line.replace(b"SELECT 1", b"SELECT 2") for line in LINES]
    assert not report(changed).holds


@pytest.mark.attacks("E1")
@pytest.mark.parametrize(
    ("role", "kind", "fields"),
    [
        ("node", "request-accepted", {}),
        ("node", "count", {"rows": 17}),
        ("node", "charge-joined", {"charge": 1, "request_id": "a", "rows": 17}),
        ("node", "charge-joined", {"charge": 1.5, "request_id": "a"}),
        ("node", "charge-joined", {"charge": True, "request_id": "a"}),
        ("node", "charge-joined", {"charge": 1, "request_id": "a\nb"}),
        ("node", "charge-joined", {"charge": 1}),
        ("gateway", "charge-joined", {"charge": 1, "request_id": "a"}),
    ],
)
def test_what_is_not_in_the_vocabulary_is_neither_written_nor_believed(role: str, kind: str, fields: dict) -> None:
    with pytest.raises(Malformed):
        check_entry(role, kind, fields, None)
    entry = told(kind, **fields)
    line = write({"entry": {"seq": 1, "at": int(NOW.timestamp()), "kind": kind, "previous": genesis(PARTY),
                            "fields": fields, "detail_sha256": None}, "detail": None}) + b"\n"  # fmt: skip
    checker = Checker(Party(role=role, id="chu-lille"), [KEY.public()])
    assert checker.take(line) is None
    assert not checker.end().holds
    assert entry.kind == kind


def test_a_detail_stands_only_where_it_may() -> None:
    with pytest.raises(Malformed):
        check_entry("node", "node-stopped", {}, {"salt": "ab"})
    assert all(kind in KINDS["node"] for kind in DETAILS)


def test_no_kind_has_room_for_a_number_of_the_data() -> None:
    """Names a reviewer would stop at. A new one is added here by someone who has asked whether it can carry data."""
    names = {name for kinds in KINDS.values() for fields in kinds.values() for name in fields}
    assert not {"value", "values", "rows", "count", "duration", "seconds", "message", "result", "cells"} & names


def change(**fields: object) -> Callable[[Seal], Seal]:
    return lambda seal: replace(seal, **fields)  # type: ignore[arg-type]


@pytest.mark.attacks("E3")
@pytest.mark.parametrize(
    "other",
    [change(party=Party(role="gateway", id="chu-lille")), change(last=2, first=2), change(head="0" * 64)],
)
def test_a_right_signature_over_another_place_is_no_seal(other: Callable[[Seal], Seal]) -> None:
    entry = read_line(LINES[3])
    seal = other(open_seal(str(entry.fields["jws"]), [KEY.public()]))
    forged = replace(entry, fields={"jws": make_seal(seal, KEY)})
    assert not report([*LINES[:3], write_line(forged)]).holds


def test_a_seal_is_of_its_own_type() -> None:
    token = make_seal(LAST_SEAL, KEY)
    assert open_seal(token, [KEY.public()]) == LAST_SEAL
    with pytest.raises(AccessRefused):
        open_seal(token, [STRANGER.public()])
