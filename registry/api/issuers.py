"""Public documents of issuers: their keys, and their status lists of revoked trust marks."""

from __future__ import annotations

import time

from django.http import Http404, HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from registry.api.auth import PublicView
from registry.attestations.status_list import current_status_list
from registry.issuers.models import Issuer
from registry.issuers.querysets import published_keys, signing_key_row

STATUS_LIST_TYPE = "application/statuslist+jwt"  # Token Status List, section 8.1
KEYS_SECONDS = 60


class IssuerKeysView(PublicView):
    """The JWKS of an issuer, with retired keys and without revoked keys."""

    @extend_schema(responses=OpenApiTypes.OBJECT, tags=["issuers"])
    def get(self, request: Request, slug: str) -> Response:
        keys = published_keys(_issuer(slug))
        headers = {"Cache-Control": f"public, max-age={KEYS_SECONDS}"}
        return Response({"keys": keys}, content_type="application/jwk-set+json", headers=headers)


class StatusListView(PublicView):
    """The signed status list of an issuer whose key this hub holds."""

    @extend_schema(responses={(200, STATUS_LIST_TYPE): OpenApiTypes.STR}, tags=["issuers"])
    def get(self, request: Request, slug: str) -> HttpResponse:
        issuer = _issuer(slug)
        if signing_key_row(issuer) is None:
            raise Http404  # the issuer signs elsewhere and publishes its own list
        now = int(time.time())
        current = current_status_list(issuer, now=now)
        answer = HttpResponse(current.token, content_type=STATUS_LIST_TYPE)
        answer.headers["Cache-Control"] = f"public, max-age={current.expires_at - now}"
        return answer


def _issuer(slug: str) -> Issuer:
    issuer = Issuer.objects.filter(slug=slug).first()
    if issuer is None:
        raise Http404
    return issuer
