"""Agents over HTTP: enrolment with a proof of possession, and reads of the registry."""

from __future__ import annotations

import time
from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.generics import ListAPIView, RetrieveAPIView
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import SimpleRateThrottle

from atp.errors import ATPError, FlowThrottled, MalformedDocument
from registry.agents.actions import count_refused_enrolment, enrol_key
from registry.agents.models import Agent, AgentKey
from registry.api.auth import HasPermission, ProblemView, PublicView
from registry.api.hub import websocket_url
from registry.api.parsers import StrictJSONParser
from registry.attestations.models import Attestation
from registry.attestations.querysets import State, states
from registry.hub.actions import hub_id, session_key
from registry.scores.querysets import scores

# For one address. 256 random bits can't be guessed; this limit saves processor time and log lines.
REFUSALS = "30/minute"
TOKEN_MAX_CHARS = 128
PROOF_MAX_CHARS = 4096


class RefusedEnrolments(SimpleRateThrottle):
    """Limits refused enrolments of one address. Accepted ones do not count.

    So enrolling a thousand agents from one machine is not slowed down.
    """

    rate = REFUSALS
    scope = "enrol"
    duration: int  # seconds, read from the rate

    def get_cache_key(self, request: Request, view: Any) -> str:
        """Return the cache key of the caller's address."""
        ident = self.get_ident(request)
        return self.cache_format % {"scope": self.scope, "ident": ident}

    def throttle_success(self) -> bool:
        """Let the request pass without counting it: `count` does so after a refusal."""
        return True

    def count(self) -> None:
        """Count one refusal of the caller; call it after `allow_request`."""
        self.history.insert(0, self.now)
        self.cache.set(self.key, self.history, self.duration)


class EnrolmentSerializer(serializers.Serializer[dict[str, Any]]):
    """The body of an enrolment."""

    token = serializers.CharField(help_text="The one-time token that an officer issued.")
    jwk = serializers.DictField(help_text="The agent's public key.")
    proof = serializers.CharField(help_text="An atp-enrol+jwt, signed by that key.")


class EnrolledSerializer(serializers.Serializer[dict[str, Any]]):
    """The answer to an enrolment. The key waits for an officer's approval."""

    agent = serializers.CharField()
    kid = serializers.CharField(help_text="The thumbprint that an officer compares.")
    status = serializers.CharField()
    hub = serializers.CharField()
    hubKey = serializers.DictField(help_text="The key with which the hub proves itself.")
    websocket = serializers.CharField(help_text="The address to which the agent connects.")


class EnrolView(PublicView):
    """Register the key of an agent, with its one-time token and a proof that it holds the key.

    The key can't sign until an officer has compared and approved its fingerprint.
    """

    parser_classes = (StrictJSONParser,)
    problem_statuses = (403, 409, 413, 415, 429)

    @extend_schema(
        request=EnrolmentSerializer, responses={202: EnrolledSerializer}, tags=["agents"]
    )
    def post(self, request: Request) -> Response:
        throttle = RefusedEnrolments()
        if not throttle.allow_request(request, self):
            raise FlowThrottled(
                "too many enrolments from this address were refused", retry_after=throttle.wait()
            )
        try:
            key = _enrol(request.data)
        except ATPError as exc:
            throttle.count()
            count_refused_enrolment(exc.code)
            raise
        return Response(
            {
                "agent": key.agent_id,
                "kid": key.kid,
                "status": key.status,
                "hub": hub_id(),
                "hubKey": session_key().public.jwk,
                "websocket": websocket_url(request),
            },
            status=202,
        )


class KeySerializer(serializers.ModelSerializer[AgentKey]):
    """A key of an agent."""

    class Meta:
        model = AgentKey
        fields = ("kid", "algorithm", "status", "enrolled_at", "approved_at", "ended_at")


class AgentSerializer(serializers.ModelSerializer[Agent]):
    """An agent in a list."""

    organisation = serializers.CharField(source="organisation.name")
    owner = serializers.CharField(source="owner_name")
    tags: Any = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)
    score = serializers.SerializerMethodField(
        help_text="The last stored score; null if there is none."
    )

    class Meta:
        model = Agent
        fields: tuple[str, ...] = (
            "id", "status", "status_reason", "organisation", "owner", "tags", "score",
            "declared_capabilities", "sensitivity_floor", "minimum_level", "minimum_score",
            "parent", "created_at", "approved_at", "ended_at",
        )  # fmt: skip

    def get_score(self, row: Agent) -> int | None:
        """Return the stored score, which the view has read for the whole page at once."""
        known: dict[str, int] = self.context["scores"]
        return known.get(row.pk)


class AgentDetailSerializer(AgentSerializer):
    """An agent with its keys and its attestations."""

    keys = KeySerializer(many=True)
    attestations = serializers.SerializerMethodField()

    class Meta(AgentSerializer.Meta):
        fields = (*AgentSerializer.Meta.fields, "keys", "attestations")

    def get_attestations(self, row: Agent) -> list[dict[str, Any]]:
        """Return the agent's attestations, each with its present state."""
        rows = list(row.attestations.select_related("issuer"))
        worth = states(rows, time.time())
        return [_attestation(each, worth[each.jti]) for each in rows]


class _AgentPages(CursorPagination):
    ordering = "id"
    page_size = 100

    def decode_cursor(self, request: Request) -> Any:
        """Read the cursor, which names the last agent in base64; raises `NotFound` for odd text."""
        cursor = super().decode_cursor(request)
        if cursor is not None and not str(cursor.position or "").isprintable():
            raise NotFound(self.invalid_cursor_message)
        return cursor


class _AgentReads(ProblemView):
    required_permission = "registry.view_agent"
    permission_classes = (HasPermission,)

    def get_queryset(self) -> QuerySet[Agent]:
        return Agent.objects.select_related("organisation").prefetch_related("tags", "keys")


@extend_schema(tags=["agents"])
class AgentListView(_AgentReads, ListAPIView[Agent]):
    """All agents, in the order of their ids."""

    serializer_class = AgentSerializer
    pagination_class = _AgentPages

    def paginate_queryset(self, queryset: Any) -> Any:
        """Remember the page: the scores of its agents are read with one query."""
        page = super().paginate_queryset(queryset)
        self._page = page or []
        return page

    def get_serializer_context(self) -> dict[str, Any]:
        """Add the current scores of the agents of this page."""
        ids = [row.pk for row in getattr(self, "_page", [])]
        return {**super().get_serializer_context(), "scores": _scores(ids)}


@extend_schema(tags=["agents"])
class AgentDetailView(_AgentReads, RetrieveAPIView[Agent]):
    """One agent with its keys and attestations."""

    serializer_class = AgentDetailSerializer

    def get_serializer_context(self) -> dict[str, Any]:
        """Add the current score of the agent."""
        return {**super().get_serializer_context(), "scores": _scores([self.kwargs["pk"]])}


def _enrol(body: Any) -> AgentKey:
    if not isinstance(body, dict) or body.keys() != {"token", "jwk", "proof"}:
        raise MalformedDocument(
            "the body must be an object with exactly the members token, jwk and proof"
        )
    token, jwk, proof = body["token"], body["jwk"], body["proof"]
    if not isinstance(token, str) or not isinstance(proof, str) or not isinstance(jwk, dict):
        raise MalformedDocument("token and proof must be texts, and jwk must be an object")
    if len(token) > TOKEN_MAX_CHARS or len(proof) > PROOF_MAX_CHARS:
        raise MalformedDocument(
            f"token has at most {TOKEN_MAX_CHARS} and proof at most {PROOF_MAX_CHARS} characters"
        )
    return enrol_key(token=token, proof=proof, jwk=jwk, now=time.time())


def _scores(ids: list[str]) -> dict[str, int]:
    return dict(scores().about(ids).newest().values_list("agent_id", "total"))


def _attestation(row: Attestation, state: State) -> dict[str, Any]:
    return {
        "jti": row.jti,
        "issuer": row.issuer.name,
        "level": row.level,
        "capabilities": row.capabilities,
        "jkt": row.jkt,
        "issued_at": row.issued_at,
        "expires_at": row.expires_at,
        "state": state.name,
        "detail": state.detail,
    }
