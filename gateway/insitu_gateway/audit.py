"""What a gateway writes into its audit log: requests, nodes that come and go, outcomes, ends, and who was given what.

Nobody believes a gateway, nor its log by itself: it is signed, so that it cannot be denied, and it is held against the
logs of nodes and the receipts of researchers (``insitu_access.audit.reconcile``). It carries no SQL and no values: the
signed texts stand in the store, the log has their SHA-256.

Notes are taken in the event loop without waiting, and written in order by the thread that writes the store: before
each batch of the store, on the disk when the batch is (``AuditedStore``); else within a second. So no request is
stored, and no outcome is confirmed to its node, that the log does not have. A kill can lose what was noted since:
deliveries, connections, tasks sent.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from datetime import datetime

from insitu_access.audit.log import AuditLog, Note
from insitu_access.jose import token_sha256
from insitu_access.request import peek_request
from insitu_proto.messages import Answered, Event, Finished, Hello

from insitu_gateway.results import Answer
from insitu_gateway.store import AddOutcome, AddRequest, DropProfile, Finish, KeepProfile, Store, Stored, Write

_ID = re.compile(r"[0-9a-f]{32}")
_PRINTABLE = 200


class GatewayAudit:
    """Takes notes from the event loop; ``flush`` writes them, from any thread."""

    def __init__(self, log: AuditLog, *, clock: Callable[[], datetime]) -> None:
        self.log = log
        self._clock = clock
        self._waiting: deque[Note] = deque()
        self._flushing = threading.Lock()

    def note(self, kind: str, **fields: object) -> None:
        """Takes a note; it is written with the next batch, or within a second."""
        self._waiting.append(Note(kind=kind, fields=fields, at=self._clock()))

    def flush(self, *notes: Note, durable: bool = True) -> None:
        """Writes what waits, and ``notes`` after it."""
        with self._flushing:
            waiting = list(self._waiting)
            if waiting or notes:
                self.log.record(*waiting, *notes, durable=durable)
            for _ in waiting:
                self._waiting.popleft()

    # ------------------------------------------------------------------------------------------- what fanout notes

    def connected(self, hello: Hello) -> None:
        software = "".join(c for c in hello.software if c.isprintable())[:_PRINTABLE].strip()
        self.note(
            "node-connected", node=hello.node_id, software=software or None, manifest_version=hello.manifest_version
        )

    def outcome(self, request_id: str, node: str, token: str, answer: Answer | None) -> None:
        """A node's word came; ``answer`` is None where nobody waits for it any more."""
        self.note(
            "outcome-received",
            request_id=request_id if _ID.fullmatch(request_id) else "-",  # a node may say what it likes
            node=node,
            status="late" if answer is None else answer.outcome.status,
            code=None if answer is None else answer.outcome.code,
            outcome_sha256=token_sha256(token),
        )

    # ------------------------------------------------------------------------------------------- what intake notes

    def refused(self, request_jws: str, owner: str, code: str) -> None:
        self.note("request-refused", request_sha256=token_sha256(request_jws), owner=owner, code=code)

    def resumed(self, request: AddRequest) -> None:
        self._waiting.append(_accepted(request, resumed=True, at=self._clock()))

    async def delivering(
        self, events: AsyncGenerator[Event], request_id: str, owner: str, *, fetched: bool
    ) -> AsyncGenerator[Event]:
        """``events``, with a note before the outcomes are handed to the researcher."""
        noted = False
        async with aclosing(events):
            async for event in events:
                if not noted and isinstance(event, (Answered, Finished)):
                    self.note("result-delivered", request_id=request_id, owner=owner, fetched=fetched)
                    noted = True
                yield event


class AuditedStore:
    """A ``Store`` whose writes are in the audit log first; both are on the disk when ``write`` returns."""

    def __init__(self, store: Store, audit: GatewayAudit, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._audit = audit
        self._clock = clock
        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="audit")

    def write(self, batch: Sequence[Write]) -> frozenset[str]:
        """Appends, then lets the two files reach the disk side by side."""
        self._audit.flush(*(note for write in batch for note in self._notes(write)), durable=False)
        synced = self._beside.submit(self._audit.log.sync)
        known = self._store.write(batch)
        synced.result()
        return known

    def find(self, request_id: str) -> Stored | None:
        return self._store.find(request_id)

    def open_requests(self) -> tuple[Stored, ...]:
        return self._store.open_requests()

    def profiles(self, dataset_digest: str) -> tuple[KeepProfile, ...]:
        return self._store.profiles(dataset_digest)

    def profiled(self) -> tuple[str, ...]:
        return self._store.profiled()

    def counts(self) -> Mapping[str, int]:
        return self._store.counts()

    def close(self) -> None:
        self._audit.flush()
        self._beside.shutdown()
        self._store.close()

    def _notes(self, write: Write) -> list[Note]:
        match write:
            case AddRequest():
                return [_accepted(write, resumed=False, at=self._clock())]
            case Finish():
                return [_finished(write, self._clock())]
            case AddOutcome():  # noted when it came
                return []
            case KeepProfile() | DropProfile():  # public, and nobody's question or answer
                return []


def _accepted(request: AddRequest, *, resumed: bool, at: datetime) -> Note:
    fields = {
        "request_id": request.request_id,
        "request_sha256": request.request_sha256,
        "grant_id": peek_request(request.request_jws).grant_id,  # the gateway's admission has verified it
        "grant_sha256": token_sha256(request.grant_jwt),
        "owner": request.owner,
        "nodes": list(request.nodes),
        "resumed": resumed,
    }
    return Note(kind="request-accepted", fields=fields, at=at)


def _finished(finish: Finish, at: datetime) -> Note:
    result = finish.result_json
    fields = {
        "request_id": finish.request_id,
        "outcomes": {outcome.node_id: outcome.status for outcome in finish.outcomes},
        "result_sha256": None if result is None else hashlib.sha256(result).hexdigest(),
    }
    return Note(kind="request-finished", fields=fields, at=at)
