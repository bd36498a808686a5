"""The status list of an issuer that signs here (Token Status List, sections 4 and 5).

It has one bit for each index: 1 if the trust mark with that index is revoked. The whole list is
compressed and signed.
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
REUSED_SECONDS = 15  # a list is served this long, so it is valid for 45 s or more when served
STATUS_INDICES = 2**20  # bits of a list: 128 KiB, far less when compressed


@dataclass(frozen=True, slots=True)
class StatusList:
    """A signed list, when it was signed (seconds since 1970), and the epoch that it shows."""

    token: str
    signed_at: int
    epoch: int

    @property
    def expires_at(self) -> int:
        """Return when the list stops being valid, in seconds since 1970."""
        return self.signed_at + STATUS_LIST_SECONDS


class StatusLists:
    """The list of each issuer that this process signed last."""

    def __init__(self) -> None:
        self._by_issuer: dict[int, StatusList] = {}

    def current(self, issuer: Issuer, *, now: int) -> StatusList:
        """Return the issuer's list; `now` in seconds since 1970.

        It is made and signed again only if the epoch has moved or it is `REUSED_SECONDS` old. The
        endpoint is public, so a request must not cost a signature each time.
        Raises `KeyMissing` if the issuer signs elsewhere.
        """
        epoch = Hub.objects.values_list("epoch", flat=True).get(pk=Hub.SINGLETON_ID)
        known = self._by_issuer.get(issuer.pk)
        if known is None or known.epoch != epoch or not 0 <= now - known.signed_at < REUSED_SECONDS:
            token = _sign(issuer, now=now)
            known = self._by_issuer[issuer.pk] = StatusList(token, now, epoch)
        return known


current_status_list = StatusLists().current


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
        bits[index // 8] |= 1 << (index % 8)  # section 4.1: index 0 is the lowest bit
    return bytes(bits)
