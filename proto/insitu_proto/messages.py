"""The messages of the three services as frozen values, and the limits on their size.

Signed objects are carried as the compact JOSE text they were received as: nothing here opens or believes them. What
is not here: protobuf (``wire``) and errors (``status``).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Stage = Literal["queued", "sent", "admitted", "reserved", "executed", "released", "refused", "absent", "failed", "lost"]
Status = Literal["released", "refused", "absent", "failed"]

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""What a channel or server is opened with: ``grpc.max_receive_message_length`` and its sending twin."""
MAX_TOKEN_CHARS = 4 * 1024 * 1024
"""A request, grant or manifest that is longer is refused unread."""
MAX_OUTCOME_CHARS = 31 * 1024 * 1024
"""Leaves room for padding to a power of two below the largest message."""
MAX_TEXT_CHARS = 4096
"""Error texts, software names and every other short field."""
MAX_BUNDLE_BYTES = 256 * 1024 * 1024
"""A dataset with its public files."""
MAX_BUNDLE_FILES = 4096
"""Public files of a dataset."""
CHUNK_BYTES = 1024 * 1024
LEAST_CHUNK_BYTES = 1024
"""What each piece counts for at least: a stream of empty ones comes to its end too."""
MAX_PROFILES = 4096
"""Profiles of one dataset: one of each node."""
MAX_PROFILES_CHARS = 256 * 1024 * 1024
"""Profiles of one dataset together."""
MAX_ANSWER_CHARS = 512 * 1024 * 1024
"""Outcomes of all nodes together: no result file takes more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message of a node."""

    node_id: str
    manifest_version: int
    """The newest manifest the node has seen; 0 for none."""
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """Either side is alive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A node's stage in one request: admitted, reserved or executed."""

    request_id: str
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A node's signed release, refusal or statement. Padded to a fixed size class on the wire."""

    request_id: str
    outcome_jws: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceProfile:
    """A node's newest profile of a dataset, for whoever asks (``insitu_access.data_profile``)."""

    profile_jws: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The gateway's answer to Hello."""

    manifest_jws: str
    heartbeat_seconds: int
    takes_profiles: bool = False
    """Whether a node may send AnnounceProfile: a gateway that does not know the message ends the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A request for a node. May come again: after a reconnect, or a restart of the gateway."""

    request_id: str
    request_jws: str
    grant_jwt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestUpdate:
    """A newer manifest."""

    manifest_jws: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The gateway has stored the outcome, or has no more use for it: the node need not send it again."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """A dataset by name and digest."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GetProfiles:
    """Wants the profiles there are of a dataset."""

    dataset: str
    dataset_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiles:
    """The profiles that a gateway has of a dataset: its claim, until each is verified."""

    profile_jws: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A signed request and the grant it is made under."""

    request_jws: str
    grant_jwt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """Wants the rest of a request's events."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The request is stored durably; from here on it runs, whoever goes away."""

    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeProgress:
    """How far one node is. Stages in between may be left out."""

    node_id: str
    stage: Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOutcome:
    """How a request ended at one node. The gateway's claim, except for ``outcome_jws``, which the node signed."""

    node_id: str
    status: Status
    code: str | None = None
    text: str | None = None
    remedy: str | None = None
    """All three are None exactly where the node released."""
    outcome_jws: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Every node has an outcome: all that is needed to compute the answer. The gateway may not have stored them yet."""

    outcomes: tuple[NodeOutcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The end of a request, stored. ``result_json`` is the gateway's own merged result, None where it has none."""

    outcomes: tuple[NodeOutcome, ...]
    result_json: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What the gateway knows of one node of the manifest."""

    id: str
    connected: bool
    last_seen: datetime | None
    manifest_version: int
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStatus:
    """What ``insitu-gateway status`` prints. ``requests`` counts them by state."""

    gateway_id: str
    manifest_version: int
    nodes: tuple[NodeStatus, ...]
    requests: tuple[tuple[str, int], ...]


NodeMessage = Hello | Heartbeat | Progress | Outcome | AnnounceProfile
GatewayMessage = Welcome | Heartbeat | Task | ManifestUpdate | Taken
Event = Accepted | NodeProgress | Answered | Finished
