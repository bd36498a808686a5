"""`/healthz`: this process answers. `/readyz`: it can also serve. `/api/v1/health`: what works.

A node stays ready while workers, layer or broker are away: every node is in the same case then, so
a balancer that took them out would take out the whole hub, with the admin, the trail, and the
inboxes of agents that only read. `/api/v1/health` names the missing part, for monitoring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response

from messaging.health.probes import Probe, ServiceAway, is_migrated, write_to_database
from messaging.health.state import HubState, Part, Status, is_silent, state_of_hub
from messaging.node.process_node import process_node
from registry.api.auth import ProblemView

MAY_SEE_DETAILS = "messaging.view_process"


class Migrations:
    """Whether all migrations are applied; once they are, the process asks no more."""

    def __init__(self) -> None:
        self._applied = False

    def are_applied(self) -> bool:
        """Compare the migrations of the code with those that the database has."""
        if not self._applied:
            self._applied = is_migrated()
        return self._applied


_migrations = Migrations()


def healthz(request: HttpRequest) -> JsonResponse:
    """Answer 200: this process serves requests."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """Answer 200 if this node can serve, else 503 with the names of the failed checks."""
    checks: dict[str, Callable[[], bool]] = {
        "database": _database_takes_writes,
        "migrations": _migrations.are_applied,
        "node": process_node.is_ready,
    }
    failed = [name for name, holds in checks.items() if not _holds(holds)]
    return JsonResponse(
        {"status": "not ready" if failed else "ready", "failed": failed},
        status=503 if failed else 200,
    )


class PartSerializer(serializers.Serializer[dict[str, object]]):
    """The JSON form of one part of the hub."""

    status = serializers.ChoiceField([str(status) for status in Status])
    needed = serializers.BooleanField(help_text="Whether nothing is accepted while it is down.")
    since = serializers.DateTimeField(
        required=False, help_text="When this node first saw it so, of those who were asked."
    )
    age = serializers.FloatField(required=False, help_text="Seconds since its last sign of life.")
    says = serializers.CharField(required=False)
    hint = serializers.CharField(required=False, help_text="What to do about it.")


class ProcessSerializer(serializers.Serializer[dict[str, object]]):
    """The JSON form of a worker or beat."""

    kind = serializers.CharField()
    name = serializers.CharField()
    status = serializers.ChoiceField(["ok", "silent"])
    age = serializers.FloatField(help_text="Seconds since its last sign of life.")


class HealthSerializer(serializers.Serializer[dict[str, object]]):
    """The JSON form of the state of the hub."""

    status = serializers.ChoiceField(["ok", "degraded", "down"])
    parts = serializers.DictField(child=PartSerializer())
    processes = ProcessSerializer(many=True, required=False)


class HealthView(ProblemView):
    """Which part of the hub works. 503 while a part is down without which nothing is accepted.

    Every caller gets the statuses; a user who may see processes in the admin gets all of it.
    """

    permission_classes = (AllowAny,)

    def perform_authentication(self, request: Request) -> None:
        """Do nothing: authentication would wait for a database that hangs. `get` does it later."""

    @extend_schema(responses={200: HealthSerializer, 503: HealthSerializer}, tags=["hub"])
    def get(self, request: Request) -> Response:
        state = state_of_hub()
        in_full = state.registered is not None and request.user.has_perm(MAY_SEE_DETAILS)
        body: dict[str, Any] = {
            "status": state.status,
            "parts": {part.name: _part(part, in_full=in_full) for part in state.parts},
        }
        if in_full:
            body["processes"] = _processes(state)
        return Response(
            body, status=200 if state.serves else 503, headers={"Cache-Control": "no-store"}
        )


def _part(part: Part, *, in_full: bool) -> dict[str, Any]:
    words: dict[str, Any] = {"status": part.status, "needed": part.needed}
    if in_full:
        words |= {"says": part.says, "hint": part.hint, "since": part.since}
        words |= {} if part.age is None else {"age": round(part.age, 1)}
    return words


def _processes(state: HubState) -> list[dict[str, Any]]:
    assert state.registered is not None
    now = state.registered.now
    return [
        {
            "kind": process.kind,
            "name": process.name,
            "status": "silent" if is_silent(process, now) else "ok",
            "age": round((now - process.seen_at).total_seconds(), 1),
        }
        for process in state.registered.processes
    ]


def _holds(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except (ServiceAway, DatabaseError, TimeoutError):
        return False


_database = Probe(write_to_database)


def _database_takes_writes() -> bool:
    _database.result()
    node = process_node.running()
    return node is None or node.stores()
