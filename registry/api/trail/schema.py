"""The OpenAPI description of the trail's API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from registry.api.trail import filters
from registry.api.trail.exports import FORMATS
from registry.trail.kinds import Kind

_TYPES = {str: OpenApiTypes.STR, int: OpenApiTypes.INT64, datetime: OpenApiTypes.DATETIME}


class EntrySerializer(serializers.Serializer[dict[str, Any]]):
    """An entry of the trail. A list holds only the members that `fields` names."""

    v = serializers.IntegerField(help_text="The version of the format: 1.")
    log = serializers.CharField(help_text="The log that holds the entry.")
    index = serializers.IntegerField(
        help_text="The number of the entry in its log: from 0, without gaps."
    )
    time = serializers.DateTimeField(
        help_text="When it was entered; never earlier than the entry before it."
    )
    hub = serializers.CharField()
    kind = serializers.ChoiceField(choices=[kind.value for kind in Kind])
    actor = serializers.CharField(help_text="Who did it. People appear by pseudonym.")
    subject = serializers.CharField(help_text="The thing that was changed or used.")
    cause = serializers.IntegerField(
        allow_null=True, help_text="The index of the entry that led to this one."
    )
    sender = serializers.CharField()
    recipient = serializers.CharField()
    messageId = serializers.CharField()
    session = serializers.CharField()
    sensitivity = serializers.CharField()
    verdict = serializers.CharField()
    policy = serializers.CharField()
    rule = serializers.CharField()
    issuer = serializers.CharField()
    attestation = serializers.CharField(help_text="The `jti` of the attestation that vouched.")
    score = serializers.IntegerField(allow_null=True, min_value=0, max_value=100)
    trace = serializers.CharField(help_text="The W3C trace id that the sender gave.")
    requestId = serializers.CharField(help_text="Blinded; the text is in the section `shared`.")
    onBehalfOf = serializers.CharField(help_text="Blinded; the text is in the section `shared`.")
    senderOrganisation = serializers.CharField()
    recipientOrganisation = serializers.CharField()
    organisations = serializers.ListField(
        child=serializers.CharField(), help_text="The organisations that it concerns; none: all."
    )
    reason = serializers.CharField(allow_null=True, help_text="Null if it was erased.")
    leafHash = serializers.CharField(help_text="SHA-256(0x00 || leaf), base64url: RFC 9162.")
    leaf = serializers.CharField(required=False, help_text="RFC 8785 text of header and digest.")
    sections = serializers.DictField(
        required=False,
        child=serializers.CharField(),
        help_text="The digest of each section of the body.",
    )
    body = serializers.DictField(
        required=False,
        child=serializers.DictField(allow_null=True),
        help_text="The sections by name; an erased one is null.",
    )


class EntryPageSerializer(serializers.Serializer[dict[str, Any]]):
    """A page of a list of entries."""

    results = EntrySerializer(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page; null at the end.")
    logSize = serializers.IntegerField(
        help_text="The number of entries in the log when the list began."
    )


def _parameter(
    name: str, description: str, example: str, *, many: bool = False, **more: Any
) -> OpenApiParameter:
    """Return a parameter with its example in the description.

    Given as `example`, the interactive page would fill in every filter with its example.
    """
    return OpenApiParameter(
        name,
        description=f"{description} Example: `{example}`",
        many=many,
        explode=many or None,
        **more,
    )


FILTERS = [
    _parameter(
        each.name,
        each.description,
        each.example,
        many=each.many,
        type=_TYPES[each.type],
    )
    for each in filters.PARAMETERS
]
ORDER = _parameter(
    "order", "Whether the newest or the oldest entry comes first.", "oldest", enum=filters.ORDERS
)
FIELDS = _parameter(
    "fields",
    f"Members of the answer, separated by commas: {', '.join(filters.FIELDS)}.",
    "index,time,kind,reason",
)
LIMIT = _parameter(
    "limit", "Entries on a page, 1 to 1000; 100 if not given.", "500", type=OpenApiTypes.INT32
)
CURSOR = _parameter("cursor", "The cursor in `next` of the page before.", "WzQyLDEwXQ:sig")
FORMAT = _parameter("format", "The format of the export.", "csv", enum=list(FORMATS), required=True)
INDEX = _parameter(
    "index",
    "The number of the entry in the log.",
    "42",
    type=OpenApiTypes.INT64,
    location=OpenApiParameter.PATH,
)


def _problem(description: str) -> OpenApiResponse:
    return OpenApiResponse(OpenApiTypes.OBJECT, description=description)


PROBLEMS = {
    400: _problem("A parameter is unknown or can't be read; `errors` says which and why."),
    401: _problem("The call has no valid token and no session."),
    403: _problem("Only officers and auditors may read the trail."),
}
NOT_FOUND = _problem("The log has no such entry.")
TOO_MANY_EXPORTS = _problem("Too many exports are running on this node; try again later.")
