"""Where a researcher stands: the manifest that is in force and the grant it bears out, fetched anew as they age."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from insitu_privacy.errors import Unavailable
from insitu_proto.messages import ManifestUpdate

from insitu.profile import Profile, pin_of, save_manifest
from insitu.transport import GetManifest, Transport, receive
from insitu.trust import Trusted, check_gateway, check_researcher, open_trusted, seen_before

MANIFEST_AGE = timedelta(minutes=5)
"""A manifest that was fetched longer ago is fetched again before the next request."""
_FETCH_TIMEOUT_S = 10.0


class Standing:
    """Of one profile. It may be shared between threads."""

    def __init__(self, profile: Profile, transport: Transport, clock: Callable[[], datetime]) -> None:
        self._profile, self._transport, self._clock = profile, transport, clock
        self._lock = threading.RLock()
        self._trusted: Trusted | None = None
        self._pin = pin_of(profile)
        self._fetched = datetime.min.replace(tzinfo=UTC)

    def trust(self) -> Trusted:
        """What is believed now. Raises AccessRefused, and Unavailable where nothing is known and no gateway answers."""
        with self._lock:
            now = self._clock()
            current = self._trusted
            if current is None or now - self._fetched > MANIFEST_AGE or now >= current.manifest.expires_at:
                current = self._refresh()
            return current

    def refresh(self) -> Trusted:
        """Fetch the manifest now; without a gateway, the last one seen serves while it is in force."""
        with self._lock:
            return self._refresh()

    def _refresh(self) -> Trusted:
        profile, now = self._profile, self._clock()
        seen = self._trusted.manifest_token if self._trusted else profile.manifest
        before = seen_before(seen, self._pin)
        try:
            replies = self._transport.call(GetManifest(), timeout_s=_FETCH_TIMEOUT_S)
            token = receive(replies, ManifestUpdate).manifest_jws
        except Unavailable:
            if seen is None:
                raise
            token = seen
        version = 0 if before is None else before.version
        trusted = open_trusted(token, profile.grant, authority=self._pin.key, now=now, known_version=version)
        check_researcher(trusted.grant, profile.identity)
        if token != profile.manifest:
            save_manifest(profile.folder, token, trusted.opened, self._pin)
        if before is None or before.ca_pem != trusted.manifest.ca_pem:
            self._transport.believe(profile.identity.anchors(trusted.manifest))
        self._transport.require(partial(check_gateway, manifest=trusted.manifest))
        self._trusted, self._fetched = trusted, now
        return trusted
