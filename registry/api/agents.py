"""Agents over HTTP: enrolment with proof of possession, and reading the registry."""

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

REFUSALS = "30/minute"  # of one address; the token's 256 bits don't need it, the log and we do
TOKEN_MAX_CHARS = 128
PROOF_MAX_CHARS = 4096


class RefusedEnrolments(SimpleRateThrottle):
    """Counts what was refused, so that a roll-out of a thousand agents isn't slowed down."""

    rate = REFUSALS
    scope = "enrol"
    duration: int  # seconds, read from the rate

    def get_cache_key(self, request: Request, view: Any) -> str:
        ident = self.get_ident(request)
        return self.cache_format % {"scope": self.scope, "ident": ident}

    def throttle_success(self) -> bool:
        return True

    def count(self) -> None:
        """Count one refusal of the caller that `allow_request` has looked at."""
        self.history.insert(0, self.now)
        self.cache.set(self.key, self.history, self.duration)


class EnrolmentSerializer(serializers.Serializer[dict[str, Any]]):
    token = serializers.CharField(help_text="The one-time token that an officer issued.")
    jwk = serializers.DictField(help_text="The agent's public key.")
    proof = serializers.CharField(help_text="An atp-enrol+jwt, signed by that key.")


class EnrolledSerializer(serializers.Serializer[dict[str, Any]]):
    agent = serializers.CharField()
    kid = serializers.CharField(help_text="The fingerprint that an officer compares.")
    status = serializers.CharField()
    hub = serializers.CharField()
    hubKey = serializers.DictField(help_text="The key by which the hub will prove itself.")
    websocket = serializers.CharField(help_text="Where the agent dials.")


class EnrolView(PublicView):
    """Register the key of an agent, by its one-time token and a proof that the key is its own.

    The key waits for an officer to compare its fingerprint.
    """

    parser_classes = (StrictJSONParser,)

    @extend_schema(
        request=EnrolmentSerializer, responses={202: EnrolledSerializer}, tags=["agents"]
    )
    def post(self, request: Request) -> Response:
        throttle = RefusedEnrolments()
        if not throttle.allow_request(request, self):
            raise FlowThrottled("too many refused enrolments", retry_after=throttle.wait())
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
    class Meta:
        model = AgentKey
        fields = ("kid", "algorithm", "status", "enrolled_at", "approved_at", "ended_at")


class AgentSerializer(serializers.ModelSerializer[Agent]):
    organisation = serializers.CharField(source="organisation.name")
    owner = serializers.CharField(source="owner_name")
    tags: Any = serializers.SlugRelatedField(slug_field="name", many=True, read_only=True)
    score = serializers.SerializerMethodField(help_text="As last stored; null before the first.")

    class Meta:
        model = Agent
        fields: tuple[str, ...] = (
            "id", "status", "status_reason", "organisation", "owner", "tags", "score",
            "declared_capabilities", "sensitivity_floor", "minimum_level", "minimum_score",
            "parent", "created_at", "approved_at", "ended_at",
        )  # fmt: skip

    def get_score(self, row: Agent) -> int | None:
        known: dict[str, int] = self.context["scores"]
        return known.get(row.pk)


class AgentDetailSerializer(AgentSerializer):
    keys = KeySerializer(many=True)
    attestations = serializers.SerializerMethodField()

    class Meta(AgentSerializer.Meta):
        fields = (*AgentSerializer.Meta.fields, "keys", "attestations")

    def get_attestations(self, row: Agent) -> list[dict[str, Any]]:
        rows = list(row.attestations.select_related("issuer"))
        worth = states(rows, time.time())
        return [_attestation(each, worth[each.jti]) for each in rows]


class _AgentPages(CursorPagination):
    ordering = "id"
    page_size = 100

    def decode_cursor(self, request: Request) -> Any:
        """A cursor names an agent to go on from; it comes in base64, so any text may be in it."""
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
        page = super().paginate_queryset(queryset)
        self._page = page or []
        return page

    def get_serializer_context(self) -> dict[str, Any]:
        ids = [row.pk for row in getattr(self, "_page", [])]
        return {**super().get_serializer_context(), "scores": _scores(ids)}


@extend_schema(tags=["agents"])
class AgentDetailView(_AgentReads, RetrieveAPIView[Agent]):
    """One agent with its keys and attestations."""

    serializer_class = AgentDetailSerializer

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "scores": _scores([self.kwargs["pk"]])}


def _enrol(body: Any) -> AgentKey:
    if not isinstance(body, dict) or body.keys() != {"token", "jwk", "proof"}:
        raise MalformedDocument("the body is an object of token, jwk and proof, nothing else")
    token, jwk, proof = body["token"], body["jwk"], body["proof"]
    if not isinstance(token, str) or not isinstance(proof, str) or not isinstance(jwk, dict):
        raise MalformedDocument("token and proof are texts, jwk is an object")
    if len(token) > TOKEN_MAX_CHARS or len(proof) > PROOF_MAX_CHARS:
        raise MalformedDocument("token or proof is longer than any real one")
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
