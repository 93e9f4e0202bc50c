"""Errors across RPC: a code's gRPC status, and the error itself in the trailer ``insitu-error-bin``.

``abort`` ends a call with an ``InsituError``; ``from_rpc`` is what the caller makes of a failed call. An error without
the trailer, or with one that does not parse, came from the transport or from something that is not insitu: it becomes
``INSITU-GATEWAY-UNREACHABLE`` or ``INSITU-GATEWAY-FAILED`` by its status alone, and no text of the peer is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from insitu_privacy.catalogue import CATALOGUE, Category
from insitu_privacy.errors import InsituError, RemoteError, Span, Unavailable

from insitu_proto.v1 import insitu_pb2 as pb

TRAILER = "insitu-error-bin"
_CODE = re.compile(r"INSITU-[A-Z0-9-]{1,60}", re.ASCII)
_MAX_TEXT = 1500  # of each text: trailers have 8 KiB in all

_BY_CATEGORY: dict[Category, grpc.StatusCode] = {
    "sql": grpc.StatusCode.INVALID_ARGUMENT,
    "legal": grpc.StatusCode.PERMISSION_DENIED,
    "parameter": grpc.StatusCode.INVALID_ARGUMENT,
    "budget": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "access": grpc.StatusCode.PERMISSION_DENIED,
    "config": grpc.StatusCode.FAILED_PRECONDITION,
    "unavailable": grpc.StatusCode.UNAVAILABLE,
    "execution": grpc.StatusCode.INTERNAL,
    "integrity": grpc.StatusCode.DATA_LOSS,
}
_BY_CODE = {
    "INSITU-REQUEST-UNKNOWN": grpc.StatusCode.NOT_FOUND,
    "INSITU-ACCESS-MALFORMED": grpc.StatusCode.INVALID_ARGUMENT,
    "INSITU-GATEWAY-FAILED": grpc.StatusCode.INTERNAL,
}
_TRANSPORT = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
_RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED})


def status_of(error: InsituError) -> grpc.StatusCode:
    """The gRPC status of an error's code; UNKNOWN for a code that is not of this version."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    entry = CATALOGUE.get(error.code)
    return _BY_CATEGORY[entry.category] if entry else grpc.StatusCode.UNKNOWN


def to_detail(error: InsituError) -> pb.ErrorDetail:
    """An error as it travels; long texts are cut."""
    detail = pb.ErrorDetail(code=error.code, text=error.text[:_MAX_TEXT], remedy=error.remedy[:_MAX_TEXT])
    if error.span is not None:
        detail.span.CopyFrom(pb.ErrorSpan(start=error.span.start, end=error.span.end))
    return detail


def from_detail(data: bytes) -> InsituError | None:
    """The error in a trailer, or None where the bytes are none."""
    try:
        detail = pb.ErrorDetail.FromString(data)
    except DecodeError:
        return None
    if not (_CODE.fullmatch(detail.code) and detail.text and detail.remedy):
        return None
    span = Span(start=detail.span.start, end=detail.span.end) if detail.HasField("span") else None
    return RemoteError(detail.code, detail.text, detail.remedy, span)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: InsituError) -> NoReturn:
    """End the call with ``error``."""
    trailer = ((TRAILER, to_detail(error).SerializeToString()),)
    await context.abort(status_of(error), error.code, trailer)
    raise AssertionError("unreachable: abort raises")


def from_rpc(error: grpc.RpcError, address: str) -> InsituError:
    """What a failed call to the gateway at ``address`` means."""
    for key, value in _trailers(error):
        if key == TRAILER and isinstance(value, bytes) and (remote := from_detail(value)) is not None:
            return remote
    status = _code(error)
    if status in _TRANSPORT:
        return Unavailable("INSITU-GATEWAY-UNREACHABLE", address=address)
    return Unavailable("INSITU-GATEWAY-FAILED", reason=f"gRPC status {status.name}")


def is_transient(error: grpc.RpcError) -> bool:
    """Whether the same call may succeed later, on a new connection: the transport failed, not the request."""
    return _code(error) in _RETRIED and not any(key == TRAILER for key, _ in _trailers(error))


def _code(error: grpc.RpcError) -> grpc.StatusCode:
    if isinstance(error, grpc.aio.AioRpcError | grpc.Call):
        return error.code()
    return grpc.StatusCode.UNKNOWN


def _trailers(error: grpc.RpcError) -> Iterable[tuple[str, str | bytes]]:
    if not isinstance(error, grpc.aio.AioRpcError | grpc.Call):
        return ()
    return ((item[0], item[1]) for item in error.trailing_metadata() or ())
