"""The table of token kinds (type, signer, claims, audience, lifetime), and their checks.

A key serves one purpose and each kind has its own `typ`, so no token is accepted as another kind.
Times are whole seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from atp.errors import (
    ClockExpired,
    ClockNotYet,
    ClockTooLong,
    SignatureAudience,
    SignatureClaims,
    excerpt,
)
from atp.trust import signing
from atp.trust.keys import PrivateKey, PublicKey
from atp.wire.canonical import ENVELOPE_MAX_BYTES
from atp.wire.schema import (
    Check,
    check_members,
    is_digest,
    is_object,
    is_seconds,
    is_text,
    list_of,
    matches,
)

__all__ = [
    "CLOCK_SKEW_SECONDS",
    "TokenKind",
    "check_claims",
    "check_times",
    "is_on_behalf_of",
    "is_trace",
    "issue",
    "judge_claims",
    "verify",
]

CLOCK_SKEW_SECONDS = 60  # docs/protocol.md#tokens: the most that `iat` may be ahead; 0 for `exp`
MESSAGE_MAX_LIFE_SECONDS = 24 * 3600  # docs/protocol.md#tokens
PROOF_MAX_LIFE_SECONDS = 60  # docs/protocol.md#tokens
ENROLMENT_MAX_LIFE_SECONDS = 300  # ours: time for a person to carry a request between machines
STATEMENT_MAX_LIFE_SECONDS = 366 * 24 * 3600  # ours: an issuer's keys are vouched for yearly
LIST_MAX_ITEMS = 64  # ours: enough for hints and critical members

is_trace: Final = matches(r"(?!0{32})[0-9a-f]{32}")  # a trace-id of W3C Trace Context, section 3.2
is_on_behalf_of: Final = matches(r"[\x21-\x7e]{1,128}")  # ours: as a requestId

_CHECKS: Final[Mapping[str, Check]] = {
    "exp": is_seconds,
    "iat": is_seconds,
    "n": is_seconds,
    "seq": is_seconds,
    "size": is_seconds,
    "ttl": is_seconds,
    "bh": is_digest,
    "cause": is_digest,
    "digest": is_digest,
    "jkt": is_digest,
    "old": is_digest,
    "prev": is_digest,
    "req": is_digest,
    "trace": is_trace,
    "onBehalfOf": is_on_behalf_of,
    "root": is_digest,
    "tth": is_digest,
    "atp": is_object,
    "atp_constraints": is_object,
    "entry": is_object,
    "jwk": is_object,
    "jwks": is_object,
    "metadata": is_object,
    "prov": is_object,
    "status": is_object,
    "status_list": is_object,
    "trust_mark_issuers": is_object,
    "authority_hints": list_of(is_text, at_most=LIST_MAX_ITEMS),
    "crit": list_of(is_text, at_most=LIST_MAX_ITEMS),
}  # every other claim is a text


def _checks(names: str = "") -> dict[str, Check]:
    return {name: _CHECKS.get(name, is_text) for name in names.split()}


class TokenKind(Enum):
    """The kinds of tokens.

    `typ` is that of the header. `purpose` is the owner of the signing key: "agent", "hub" or
    "issuer". `required` and `optional` are the claims, each with the check of its JSON type; no
    other claims are allowed. `max_life_seconds` is the longest time from `iat` to `exp`. It is
    `None` if the issuer decides (trust marks), or if there is no `exp` (records that must be valid
    years later).
    """

    typ: str
    purpose: str
    required: Mapping[str, Check]
    optional: Mapping[str, Check]
    max_life_seconds: int | None

    MESSAGE = (
        "atp-msg+jwt",
        "agent",
        {**_checks("iss jti iat exp digest"), "aud": list_of(is_text, at_most=2)},
        _checks("prov req cause trace onBehalfOf"),
        MESSAGE_MAX_LIFE_SECONDS,
    )
    AUTH = (
        "atp-auth+jwt",
        "agent",
        _checks("iss aud htu nonce cnonce iat exp"),
        _checks(),
        PROOF_MAX_LIFE_SECONDS,
    )
    ENROL = (
        "atp-enrol+jwt",
        "agent",
        _checks("iss aud tth jkt iat exp"),
        _checks(),
        ENROLMENT_MAX_LIFE_SECONDS,
    )
    ROTATE = (
        "atp-rotate+jwt",
        "agent",
        _checks("iss aud old jkt iat exp"),
        _checks(),
        ENROLMENT_MAX_LIFE_SECONDS,
    )
    PROVENANCE = ("atp-prov+jwt", "agent", _checks("iss digest n prev entry iat"), _checks(), None)
    ACK = (
        "atp-ack+jwt",
        "agent",
        _checks("iss aud session stream seq iat"),
        _checks("refused"),
        None,
    )
    HTTP = (
        "atp-http+jwt",
        "agent",
        _checks("iss aud htm htu bh nonce jti iat exp"),
        _checks(),
        PROOF_MAX_LIFE_SECONDS,
    )
    RECEIPT = ("atp-receipt+jwt", "hub", _checks("iss root size iat"), _checks(), None)
    WELCOME = (
        "atp-welcome+jwt",
        "hub",
        _checks("iss aud nonce session iat exp"),
        _checks(),
        PROOF_MAX_LIFE_SECONDS,
    )
    SUCCESSION = ("atp-successor+jwt", "hub", _checks("iss jwk iat"), _checks(), None)
    TRUST_MARK = (
        "trust-mark+jwt",
        "issuer",
        _checks("iss sub trust_mark_type jti iat exp status atp"),
        _checks(),
        None,
    )
    ENTITY_STATEMENT = (
        "entity-statement+jwt",
        "issuer",
        _checks("iss sub iat exp jwks"),
        _checks("metadata authority_hints crit atp_constraints trust_mark_issuers"),
        STATEMENT_MAX_LIFE_SECONDS,
    )
    STATUS_LIST = (
        "statuslist+jwt",
        "issuer",
        _checks("sub iat status_list"),
        _checks("iss exp ttl"),
        None,
    )

    def __init__(
        self,
        typ: str,
        purpose: str,
        required: Mapping[str, Check],
        optional: Mapping[str, Check],
        max_life_seconds: int | None,
    ) -> None:
        self.typ = typ
        self.purpose = purpose
        self.required = required
        self.optional = optional
        self.max_life_seconds = max_life_seconds


def issue(kind: TokenKind, claims: Mapping[str, Any], key: PrivateKey, *, now: int) -> str:
    """Return a signed token. `iat` defaults to `now`, and `exp` to the end of the longest lifetime.

    Raises `SignatureClaims` if a claim is missing, unknown or of the wrong type.
    """
    complete = {"iat": now, **claims}
    if kind.max_life_seconds is not None:
        complete.setdefault("exp", complete["iat"] + kind.max_life_seconds)
    check_claims(kind, complete)
    return signing.sign(complete, key, typ=kind.typ)


def verify(
    kind: TokenKind,
    token: str,
    key: PublicKey,
    *,
    now: float,
    audience: str | list[str] | None,
    issuer: str | None,
    max_bytes: int = ENVELOPE_MAX_BYTES,
) -> dict[str, Any]:
    """Verify a token of this kind for `audience`, from `issuer`, at `now`; return its claims.

    `audience` is `None` only for kinds without `aud`. `issuer` is `None` if the caller compares
    `iss` itself. Raises the errors of `signing.verify`, and `SignatureClaims`, `SignatureAudience`
    or a `ClockError`.
    """
    claims = signing.verify(token, key, typ=kind.typ, max_bytes=max_bytes)
    judge_claims(kind, claims, now=now, audience=audience, issuer=issuer)
    return claims


def judge_claims(
    kind: TokenKind,
    claims: Mapping[str, Any],
    *,
    now: float,
    audience: str | list[str] | None,
    issuer: str | None,
) -> None:
    """Check claims whose signature is verified; raises as `verify`."""
    check_claims(kind, claims)
    # The whole value is compared: one matching member of a list of audiences is not enough.
    if claims.get("aud") != audience:
        raise SignatureAudience("the token is addressed to someone else")
    if issuer is not None and claims.get("iss") != issuer:
        raise SignatureClaims(
            f"iss is {excerpt(claims.get('iss'))}, but the key that signed belongs to"
            f" {excerpt(issuer)}"
        )
    check_times(kind, claims, now=now)


def check_claims(kind: TokenKind, claims: Mapping[str, Any]) -> None:
    """Raise `SignatureClaims` unless all claims are the kind's own and of the right JSON type."""
    check_members(claims, kind.required, kind.optional, error=SignatureClaims)


def check_times(kind: TokenKind, claims: Mapping[str, Any], *, now: float) -> None:
    """Raise a `ClockError` unless the claims are valid at `now` (seconds since 1970)."""
    issued, expires = claims["iat"], claims.get("exp")
    if issued > now + CLOCK_SKEW_SECONDS:
        raise ClockNotYet(f"issued {issued - now:.0f} s in the future; check the sender's clock")
    if expires is None:
        return
    if expires <= issued:
        raise ClockExpired("it expires before it was issued")
    if kind.max_life_seconds is not None and expires - issued > kind.max_life_seconds:
        raise ClockTooLong(f"valid for {expires - issued} s, at most {kind.max_life_seconds} s")
    if expires <= now:
        raise ClockExpired(f"expired {now - expires:.0f} s ago")
