"""What parties sign. Payloads are signed with a key that is believed: of what a stranger signs nothing is read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import timedelta

from insitu_access.audit.chain import check_lines
from insitu_access.audit.seal import Seal, open_seal
from insitu_access.audit.seal import _as_json as seal_as_json
from insitu_access.certificates import (
    create_authority,
    create_csr,
    create_tls_key,
    is_issued_by,
    issue_certificate,
    key_matches,
    peer_identity,
    serial_of,
    validity,
)
from insitu_access.data_profile import open_data_profile
from insitu_access.enrolment import (
    Answer,
    Enrolment,
    Invitation,
    open_answer,
    open_enrolment,
    open_invitation,
    peek_enrolment,
    seal_answer,
    seal_enrolment,
    seal_invitation,
)
from insitu_access.grant import open_grant, peek_grant, seal_grant
from insitu_access.jose import Typ, refusing_malformed, sign
from insitu_access.keys import SigningKey
from insitu_access.manifest import open_manifest, seal_manifest
from insitu_access.outcome import BudgetRow, BudgetStatement, Refusal
from insitu_access.payload import write
from insitu_access.release import open_outcome, seal_outcome
from insitu_access.request import BudgetRequest, open_request, peek_request, seal_request
from insitu_access.succession import Succession, open_succession, seal_succession
from insitu_privacy.data_profile import added
from insitu_privacy.errors import InsituError, Span

from tests.fuzz.targets import Target
from tests.testkit.profiles import sealed as sealed_profile
from tests.unit.access import test_audit_chain as audit
from tests.unit.access import world as w

_GRANT = seal_grant(w.grant(), w.AUTHORITY)
_CA = create_authority("demo", not_before=w.NOW, not_after=w.NOW + 30 * w.DAY)
_TLS = create_tls_key()
_CERTIFICATE = issue_certificate(
    _CA, "gateway", "gw", create_csr(_TLS), addresses=["gw.test", "10.0.0.1"], not_before=w.NOW, not_after=w.NOW + w.DAY
)


def _payload(token: str) -> bytes:
    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _signed(typ: Typ, open_: Callable[[str], object]) -> Callable[[bytes], object]:
    """Opens a token of any payload, signed as its party would."""

    return lambda data: open_(_sign(data, w.AUTHORITY, typ))


def _sign(data: bytes, key: SigningKey, typ: Typ) -> str:
    with refusing_malformed("token"):  # too long: nobody signs it
        return sign(data, key, typ)


def _manifest(token: str) -> object:
    return open_manifest(token, w.AUTHORITY.public(), now=w.NOW, known_version=0)


def _grant(token: str) -> object:
    peek_grant(token)
    return open_grant(token, w.manifest(), now=w.NOW)


def _request(token: str) -> object:
    peek_request(token)
    return open_request(token, w.grant(researchers=(w.AUTHORITY.public(),)))


def _outcome(token: str) -> object:
    return open_outcome(token, w.AUTHORITY.public(), node="chu-lille")


def _profile(token: str) -> object:
    return added([open_data_profile(token, w.AUTHORITY.public(), node="chu-lille").profile] * 2)


def _seal(token: str) -> object:
    return open_seal(token, [w.AUTHORITY.public()])


def _enrolment(data: bytes) -> object:
    inner = _sign(data, w.AUTHORITY, "insitu-keys+jws")
    token = _sign(write({"keys": inner}), w.STRANGER, "insitu-enrolment+jws")
    peek_enrolment(token)
    return open_enrolment(token, w.STRANGER.public())


def _succession(data: bytes) -> object:
    consent = _sign(data, w.STRANGER, "insitu-consent+jws")
    return open_succession(
        sign(write({"consent": consent}), w.AUTHORITY, "insitu-succession+jws"), w.AUTHORITY.public()
    )


def _token(data: bytes) -> None:
    """Any bytes, as every kind of token."""
    text = data.decode(errors="surrogateescape")
    refused: list[InsituError] = []
    acts: tuple[Callable[[str], object], ...] = (
        _manifest,
        _grant,
        _request,
        _outcome,
        _seal,
        _profile,
        lambda token: open_enrolment(token, w.STRANGER.public()),
        lambda token: open_succession(token, w.AUTHORITY.public()),
        _invited,
        _answered,
    )
    for act in acts:
        try:
            act(text)
        except InsituError as error:
            refused.append(error)
    if len(refused) == len(acts):
        raise refused[0]


def _certificate(data: bytes) -> None:
    key_matches(_TLS, data)
    is_issued_by(data, _CA.certificate_pem)
    is_issued_by(_CERTIFICATE, data)
    with refusing_malformed("certificate"):
        serial_of(data)
        validity(data)
    peer_identity(data)


def _der(data: bytes) -> None:
    """The bytes inside the PEM, where a parser does its work."""
    text = base64.encodebytes(data).decode()
    _certificate(f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n".encode())


def _log(data: bytes) -> None:
    check_lines(data.splitlines(keepends=True), audit.PARTY, [audit.KEY.public()], seals=[audit.LAST_SEAL])


_SAID = {"node": "chu-lille", "request_id": "0f" * 16, "request_sha256": "12" * 32, "issued_at": w.NOW}
_OUTCOMES = (
    w.release(),
    Refusal(**_SAID, code="INSITU-NODE-QUIET", text="no", remedy="later", span=Span(start=1, end=3)),
    BudgetStatement(
        **_SAID,
        grant_id="grant-1",
        rows=(BudgetRow(dataset="care", epsilon_spent=1, epsilon_left=2, delta_spent=0, delta_left=0),),
    ),
)
_REQUESTS = (
    w.request(),
    BudgetRequest(
        request_id="0f" * 16,
        grant_id="grant-1",
        grant_sha256="ab" * 32,
        nodes=("chu-lille",),
        issued_at=w.NOW,
        deadline=w.NOW + timedelta(seconds=9),
    ),
)
_INVITATION = Invitation(
    federation="demo",
    role="gateway",
    id="gw",
    voucher=w.STRANGER,
    authority=w.AUTHORITY.public(),
    address="gw.test:7443",
    gateways=("[::1]:7443",),
    datasets=("care",),
    expires_at=w.NOW + w.DAY,
)
_ANSWER = Answer(
    federation="demo",
    role="node",
    id="chu-lille",
    key=w.NODE.public(),
    certificate_pem=_CERTIFICATE.decode(),
    ca_pem=_CA.certificate_pem.decode(),
    authority=w.AUTHORITY.public(),
    former_until=w.NOW + w.DAY,
    issued_at=w.NOW,
)
_ENROLMENT = Enrolment(
    role="node", id="chu-lille", key=w.AUTHORITY.public(), csr=create_csr(_TLS).decode(), issued_at=w.NOW
)
_SUCCESSION = Succession(federation="demo", former=w.AUTHORITY.public(), key=w.STRANGER.public(), issued_at=w.NOW)
_SEAL = seal_as_json(Seal(party=audit.PARTY, first=1, last=3, head="ab" * 32, at=w.NOW))
_PROFILE = sealed_profile("chu-lille", w.AUTHORITY, "ab" * 32)
_SEALED = [seal_outcome(one, w.AUTHORITY) for one in _OUTCOMES]
_TOKENS = [
    seal_manifest(w.manifest(), w.AUTHORITY),
    _GRANT,
    seal_request(_REQUESTS[0], w.AUTHORITY),
    _SEALED[0],
    sign(write(_SEAL), w.AUTHORITY, "insitu-audit-seal+jws"),
    _PROFILE,
    seal_enrolment(_ENROLMENT, w.AUTHORITY, w.STRANGER),
    seal_succession(_SUCCESSION, w.AUTHORITY, w.STRANGER),
]
_PEM = _CERTIFICATE.split(b"-----")[2]


def _bytes_of(pem: bytes) -> bytes:
    return base64.decodebytes(pem)


def _invited(token: str) -> object:
    return open_invitation(token, w.AUTHORITY.public(), now=w.NOW)


def _answered(token: str) -> object:
    return open_answer(token, w.AUTHORITY.public())


TARGETS = (
    Target(name="token", run=_token, seeds=[token.encode() for token in _TOKENS], examples=120),
    Target(name="manifest", run=_signed("insitu-manifest+jws", _manifest), seeds=[_payload(_TOKENS[0])]),
    Target(name="grant", run=_signed("insitu-grant+jwt", _grant), seeds=[_payload(_GRANT)]),
    Target(
        name="request",
        run=_signed("insitu-request+jws", _request),
        seeds=[_payload(seal_request(one, w.AUTHORITY)) for one in _REQUESTS],
    ),
    Target(name="release", run=_signed("insitu-release+jws", _outcome), seeds=[_payload(_SEALED[0])]),
    Target(name="refusal", run=_signed("insitu-refusal+jws", _outcome), seeds=[_payload(_SEALED[1])]),
    Target(name="statement", run=_signed("insitu-statement+jws", _outcome), seeds=[_payload(_SEALED[2])]),
    Target(name="data-profile", run=_signed("insitu-profile+jws", _profile), seeds=[_payload(_PROFILE)]),
    Target(name="seal", run=_signed("insitu-audit-seal+jws", _seal), seeds=[write(_SEAL)]),
    Target(
        name="invitation",
        run=_signed("insitu-invitation+jws", _invited),
        seeds=[_payload(seal_invitation(_INVITATION, w.AUTHORITY))],
    ),
    Target(
        name="answer",
        run=_signed("insitu-answer+jws", _answered),
        seeds=[_payload(seal_answer(_ANSWER, w.AUTHORITY))],
    ),
    Target(
        name="enrolment",
        run=_enrolment,
        seeds=[
            write(
                {"role": "node", "id": "chu-lille", "key": w.AUTHORITY.public().as_json(), "csr": "c", "issued_at": 1}
            )
        ],
    ),
    Target(
        name="succession",
        run=_succession,
        seeds=[
            write(
                {
                    "federation": "demo",
                    "former": w.AUTHORITY.public().as_json(),
                    "key": w.STRANGER.public().as_json(),
                    "issued_at": 1_770_000_000,
                }
            )
        ],
    ),
    Target(name="certificate", run=_certificate, seeds=[_CERTIFICATE]),
    Target(name="certificate-der", run=_der, seeds=[_bytes_of(_PEM)], examples=150),
    Target(name="audit-log", run=_log, seeds=[b"".join(audit.LINES)]),
)
