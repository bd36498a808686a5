"""The OpenAPI description of the trail's API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers

from registry.exports.models import TrailExport
from registry.trail.kinds import Kind
from registry.trail.reading import columns, filters
from registry.trail.reading.formats import FORMATS

_TYPES = {str: OpenApiTypes.STR, int: OpenApiTypes.INT64, datetime: OpenApiTypes.DATETIME}


class EntrySerializer(serializers.Serializer[dict[str, Any]]):
    """An entry of the trail. With `fields` it holds only the members that are named."""

    v = serializers.IntegerField(required=False, help_text="The version of the format: 1.")
    log = serializers.CharField(required=False, help_text="The log that holds the entry.")
    index = serializers.IntegerField(
        required=False, help_text="The number of the entry in its log: from 0, without gaps."
    )
    time = serializers.DateTimeField(
        required=False, help_text="When it was entered; never earlier than the entry before it."
    )
    hub = serializers.CharField(required=False)
    kind = serializers.ChoiceField(required=False, choices=[kind.value for kind in Kind])
    actor = serializers.CharField(required=False, help_text="Who did it; people by pseudonym.")
    subject = serializers.CharField(required=False, help_text="The thing that was changed or used.")
    cause = serializers.IntegerField(
        required=False, allow_null=True, help_text="The index of the entry that led to this one."
    )
    sender = serializers.CharField(required=False)
    recipient = serializers.CharField(required=False)
    messageId = serializers.CharField(required=False)
    session = serializers.CharField(required=False)
    sensitivity = serializers.CharField(required=False)
    verdict = serializers.CharField(required=False)
    policy = serializers.CharField(required=False)
    rule = serializers.CharField(required=False)
    issuer = serializers.CharField(required=False)
    attestation = serializers.CharField(
        required=False, help_text="The `jti` of the attestation that vouched."
    )
    score = serializers.IntegerField(required=False, allow_null=True, min_value=0, max_value=100)
    trace = serializers.CharField(
        required=False, help_text="The W3C trace id that the sender gave."
    )
    requestId = serializers.CharField(
        required=False, help_text="Blinded; the text is in the section `shared`."
    )
    onBehalfOf = serializers.CharField(
        required=False, help_text="Blinded; the text is in the section `shared`."
    )
    senderOrganisation = serializers.CharField(required=False)
    recipientOrganisation = serializers.CharField(required=False)
    organisations = serializers.ListField(
        required=False,
        child=serializers.CharField(),
        help_text="The organisations that it concerns; none: all.",
    )
    reason = serializers.CharField(
        required=False, allow_null=True, help_text="Null if it was erased."
    )
    leafHash = serializers.CharField(
        required=False, help_text="SHA-256(0x00 || leaf), base64url: RFC 9162."
    )
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
    searchedTo = serializers.IntegerField(
        allow_null=True,
        help_text="The last entry that was looked at; null if the search has reached the end.",
    )
    logSize = serializers.IntegerField(
        help_text="The number of entries in the log when the list began."
    )


class FeedSerializer(serializers.Serializer[dict[str, Any]]):
    """New entries of the feed."""

    results = EntrySerializer(many=True)
    cursor = serializers.IntegerField(help_text="The `after` of the next call.")
    next = serializers.URLField(help_text="The address of the next call.")
    retryAfter = serializers.IntegerField(
        allow_null=True, help_text="Seconds to wait if nothing is new; else null."
    )


class ExportJobSerializer(serializers.Serializer[dict[str, Any]]):
    """An export that a worker writes to a file."""

    name = serializers.CharField()
    url = serializers.URLField(help_text="Its address, to watch it.")
    state = serializers.ChoiceField(
        choices=["waiting", "running", *TrailExport.Outcome.values], help_text="How it stands."
    )
    reason = serializers.CharField(help_text="Why it failed; else empty.")
    percent = serializers.IntegerField(help_text="How much of the log is searched.")
    rows = serializers.IntegerField(help_text="Entries in the file.")
    bytes = serializers.IntegerField(help_text="Size of the file.")
    logSize = serializers.IntegerField(
        help_text="The number of entries in the log when it was made."
    )
    file = serializers.URLField(allow_null=True, help_text="The file; null until complete.")
    expiresAt = serializers.DateTimeField(
        allow_null=True, help_text="When it is deleted; null until it has ended."
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
        enum=each.words or None,
    )
    for each in filters.PARAMETERS
]
ORDER = _parameter(
    "order", "Whether the newest or the oldest entry comes first.", "oldest", enum=filters.ORDERS
)
FIELDS = _parameter(
    "fields",
    f"Members of the answer, separated by commas: {', '.join(columns.FIELDS)}.",
    "index,time,kind,reason",
)
LIMIT = _parameter(
    "limit", "Entries on a page, 1 to 1000; 100 if not given.", "500", type=OpenApiTypes.INT32
)
CURSOR = _parameter("cursor", "The cursor in `next` of the page before.", "WzQyLDEwXQ:sig")
AFTER = _parameter(
    "after",
    "The last entry that was read: the `cursor` of the answer before.",
    "1999",
    type=OpenApiTypes.INT64,
)
FORMAT = _parameter("format", "The format of the export.", "csv", enum=list(FORMATS), required=True)
INDEX = _parameter(
    "index",
    "The number of the entry in the log.",
    "42",
    type=OpenApiTypes.INT64,
    location=OpenApiParameter.PATH,
)
