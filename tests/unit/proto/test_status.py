"""Errors survive the trailer; every code has a status; hostile trailers become errors of the transport."""

from __future__ import annotations

import re

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st
from insitu_privacy import errors
from insitu_proto import status

CLASSES = [item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, errors.InsituError)]


def made(code: str, span: errors.Span | None = None) -> errors.InsituError:
    entry = errors.CATALOGUE[code]
    cls = next(cls for cls in CLASSES if entry.category in cls.categories)
    fields: dict[str, object] = dict.fromkeys(re.findall(r"{(\w+)}", entry.text + entry.remedy), "é")
    return cls(code, span=span, **fields)


def failed(code: grpc.StatusCode, *trailer: tuple[str, bytes]) -> AioRpcError:
    return AioRpcError(code, Metadata(), Metadata(*trailer), details="secret of the peer")


@pytest.mark.parametrize("code", list(errors.CATALOGUE))
def test_every_code_has_a_status_and_survives(code: str) -> None:
    error = made(code, errors.Span(start=3, end=9))
    assert status.status_of(error) not in (grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN)
    trailer = (status.TRAILER, status.to_detail(error).SerializeToString())
    back = status.from_rpc(failed(status.status_of(error), trailer), "host:1")
    assert (back.code, back.text, back.remedy, back.span) == (error.code, error.text, error.remedy, error.span)
    assert back.line() == error.line()


def test_no_span_stays_none() -> None:
    back = status.from_detail(status.to_detail(made("INSITU-SQL-JOIN")).SerializeToString())
    assert back is not None
    assert back.span is None


def test_long_texts_are_cut_to_what_a_trailer_holds() -> None:
    error = errors.SqlRefused("INSITU-SQL-UNKNOWN-TABLE", name="x" * 9000, known="y" * 9000)
    assert status.to_detail(error).ByteSize() < 4096


@given(st.binary(max_size=100))
def test_hostile_trailers_become_transport_errors(data: bytes) -> None:
    error = status.from_rpc(failed(grpc.StatusCode.INTERNAL, (status.TRAILER, data)), "host:1")
    assert isinstance(error, errors.Unavailable)
    assert "secret" not in error.line()


def test_transport_errors() -> None:
    gone = failed(grpc.StatusCode.UNAVAILABLE)
    assert status.from_rpc(gone, "host:1").code == "INSITU-GATEWAY-UNREACHABLE"
    assert status.from_rpc(grpc.RpcError(), "host:1").code == "INSITU-GATEWAY-FAILED"
    assert status.is_transient(gone)
    refused = made("INSITU-NODES-TOO-FEW")
    answered = failed(grpc.StatusCode.UNAVAILABLE, (status.TRAILER, status.to_detail(refused).SerializeToString()))
    assert not status.is_transient(answered)


def test_a_code_of_another_version_has_a_status() -> None:
    assert status.status_of(errors.RemoteError("INSITU-NEW", "t", "r")) is grpc.StatusCode.UNKNOWN
