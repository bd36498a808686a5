"""The status list of an issuer that signs here (Token Status List, sections 4 and 5).

One bit for each place, 1 where the trust mark was revoked, compressed and signed as a whole.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from atp.trust import tokens
from atp.wire.canonical import b64url
from registry.attestations.models import Attestation
from registry.hub.models import Hub
from registry.issuers.actions import signing_key
from registry.issuers.models import Issuer
from registry.issuers.querysets import issuer_url, status_list_url

STATUS_LIST_SECONDS = 60  # docs/design/trust.md#attestations: at most 60 s old
REUSED_SECONDS = 15  # of those: what is handed out is good for three quarters of them
STATUS_INDICES = 2**20  # places; 128 KiB, nearly nothing once compressed


@dataclass(frozen=True, slots=True)
class StatusList:
    """A signed list, and when it stops being good."""

    token: str
    signed_at: int
    epoch: int

    @property
    def expires_at(self) -> int:
        return self.signed_at + STATUS_LIST_SECONDS


_lists: dict[int, StatusList] = {}  # by issuer


def current_status_list(issuer: Issuer, *, now: int) -> StatusList:
    """The list, signed again when the registry has changed or after a while.

    Anybody may ask for it, so asking must not cost a list and a signature each time.
    Raises `KeyMissing` where the issuer signs elsewhere.
    """
    epoch = Hub.objects.values_list("epoch", flat=True).get(pk=Hub.SINGLETON_ID)
    known = _lists.get(issuer.pk)
    if known is None or known.epoch != epoch or not 0 <= now - known.signed_at < REUSED_SECONDS:
        token = _sign(issuer, now=now)
        known = _lists[issuer.pk] = StatusList(token, now, epoch)
    return known


def _sign(issuer: Issuer, *, now: int) -> str:
    claims = {
        "iss": issuer_url(issuer.slug),
        "sub": status_list_url(issuer.slug),
        "exp": now + STATUS_LIST_SECONDS,
        "ttl": STATUS_LIST_SECONDS,
        "status_list": {"bits": 1, "lst": b64url(zlib.compress(_bits(issuer), 9))},
    }
    return tokens.issue(tokens.TokenKind.STATUS_LIST, claims, signing_key(issuer), now=now)


def _bits(issuer: Issuer) -> bytes:
    bits = bytearray(STATUS_INDICES // 8)
    revoked = Attestation.objects.filter(
        issuer=issuer, revoked_at__isnull=False, status_index__lt=STATUS_INDICES
    )
    for index in revoked.values_list("status_index", flat=True):
        bits[index // 8] |= 1 << (index % 8)  # section 4.1: the first place is the lowest bit
    return bytes(bits)
