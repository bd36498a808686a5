"""How the trail's part of the API is described in its OpenAPI schema."""

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
    """What an entry looks like; a list has the members that `fields` names."""

    index = serializers.IntegerField(help_text="Its place in the log, from 0, without a gap.")
    time = serializers.DateTimeField(help_text="When it was entered; never before the last one's.")
    hub = serializers.CharField()
    kind = serializers.ChoiceField(choices=[kind.value for kind in Kind])
    actor = serializers.CharField(help_text="Who did it; people stand here by pseudonym.")
    subject = serializers.CharField(help_text="What it was done to.")
    sender = serializers.CharField()
    recipient = serializers.CharField()
    messageId = serializers.CharField()
    requestId = serializers.CharField()
    sensitivity = serializers.CharField()
    verdict = serializers.CharField()
    policy = serializers.CharField()
    rule = serializers.CharField()
    issuer = serializers.CharField()
    score = serializers.IntegerField(allow_null=True, min_value=0, max_value=100)
    reason = serializers.CharField(allow_null=True, help_text="Null where the body was erased.")
    leafHash = serializers.CharField(help_text="SHA-256(0x00 || leaf), base64url: RFC 9162.")
    leaf = serializers.CharField(required=False, help_text="RFC 8785 text of header and digest.")
    body = serializers.DictField(
        required=False, allow_null=True, help_text="Everything else; null where it was erased."
    )


class EntryPageSerializer(serializers.Serializer[dict[str, Any]]):
    results = EntrySerializer(many=True)
    next = serializers.URLField(allow_null=True, help_text="The next page, or null at the end.")
    logSize = serializers.IntegerField(help_text="How many entries the log had when it was asked.")


def _parameter(
    name: str, description: str, example: str, *, many: bool = False, **more: Any
) -> OpenApiParameter:
    """The example stands in the words: as `example`, the page would fill every filter with it."""
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
ORDER = _parameter("order", "Which end of the log comes first.", "oldest", enum=filters.ORDERS)
FIELDS = _parameter(
    "fields",
    f"Members to answer with, separated by commas: {', '.join(filters.FIELDS)}.",
    "index,time,kind,reason",
)
LIMIT = _parameter(
    "limit", "Entries a page, 1 to 1000; 100 where not given.", "500", type=OpenApiTypes.INT32
)
CURSOR = _parameter("cursor", "Where the last page ended, as its `next` says.", "WzQyLDEwXQ:sig")
FORMAT = _parameter("format", "How it is written.", "csv", enum=list(FORMATS), required=True)
INDEX = _parameter(
    "index",
    "The entry's place in the log.",
    "42",
    type=OpenApiTypes.INT64,
    location=OpenApiParameter.PATH,
)


def _problem(description: str) -> OpenApiResponse:
    return OpenApiResponse(OpenApiTypes.OBJECT, description=description)


PROBLEMS = {
    400: _problem("A parameter is unknown or can't be read; `errors` says which and why."),
    401: _problem("No account is logged in."),
    403: _problem("Only officers and auditors read the trail."),
}
NOT_FOUND = _problem("The log has no such entry.")
TOO_MANY_EXPORTS = _problem("Too many exports are running on this node; try again later.")
