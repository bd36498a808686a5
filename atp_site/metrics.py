"""`/metrics`: the metrics of this node for Prometheus, not public (docs/monitoring.md)."""

from __future__ import annotations

import hmac
import ipaddress
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import connections
from django.db.models import Min
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from messaging.node import node
from messaging.telemetry import instruments, telemetry
from registry.trail.models import RefusalCount

ANSWER_SECONDS = 1.0  # for broker and database, so that a scrape never hangs
FORWARDED = ("Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto")
AMQP_NOT_FOUND = "404"  # the queue is empty (Redis) or not declared yet


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer requests with the `ATP_METRICS_TOKEN`, if one is set.

    Without a token, answer requests of this machine only, and others with 404.
    """
    if settings.ATP_METRICS_TOKEN:
        if not _bears_token(request):
            headers = {"WWW-Authenticate": 'Bearer realm="metrics"'}
            return HttpResponse("a bearer token is needed\n", status=401, headers=headers)
    elif not _comes_from_here(request):
        raise Http404
    instruments.LAYER_FAILURES.inc(telemetry.take_layer_failures())
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    headers = {"Cache-Control": "no-store"}
    return HttpResponse(encode(instruments.REGISTRY), content_type=content_type, headers=headers)


def _bears_token(request: HttpRequest) -> bool:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    wanted = settings.ATP_METRICS_TOKEN.encode()
    return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), wanted)


def _comes_from_here(request: HttpRequest) -> bool:
    """Return whether the peer is on this machine, and is not a proxy for another machine."""
    if any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.META.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        return False


class _Question:
    """A figure read in its own thread, because the read can hang; at most one thread."""

    def __init__(self, ask: Callable[[], float]) -> None:
        self._ask = ask
        self._thread: threading.Thread | None = None
        self._answer: float | None = None

    def begin(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._answer = None
            self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
            self._thread.start()

    def answer(self, deadline: float) -> float | None:
        """Return the answer, or `None` if there is none at `deadline` (monotonic seconds)."""
        assert self._thread is not None
        self._thread.join(max(0.0, deadline - time.monotonic()))
        return None if self._thread.is_alive() else self._answer

    def _run(self) -> None:
        try:
            self._answer = self._ask()
        except Exception:  # drivers raise many types; the gauge then shows that the engine is down
            self._answer = None
        finally:
            connections.close_all()


def _waiting_tasks() -> float:
    """Return how many tasks wait in the broker's queue."""
    options = {"socket_timeout": ANSWER_SECONDS, "socket_connect_timeout": ANSWER_SECONDS}
    if settings.CELERY_BROKER_URL.startswith("amqp"):
        options = {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
    with current_app.connection_for_read(
        connect_timeout=ANSWER_SECONDS, transport_options=options
    ) as broker:
        queue = settings.CELERY_TASK_DEFAULT_QUEUE
        try:
            channel: Any = broker.default_channel
            return float(channel.queue_declare(queue, passive=True).message_count)
        except broker.channel_errors as problem:
            if str(getattr(problem, "reply_code", "")) == AMQP_NOT_FOUND:
                return 0.0
            raise


def _trail_lag_seconds() -> float:
    """Return the age of the oldest counted refusal without an entry in the trail, in seconds."""
    oldest = RefusalCount.objects.aggregate(oldest=Min("minute"))["oldest"]
    return 0.0 if oldest is None else max(0.0, time.time() - oldest.timestamp())


class _Gauges(Collector):
    """The gauges, read at each scrape."""

    def __init__(self) -> None:
        self._lag = _Question(_trail_lag_seconds)
        self._queue = _Question(_waiting_tasks)

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that registering reads no figure."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _of_node()
        deadline = time.monotonic() + ANSWER_SECONDS
        has_broker = not settings.CELERY_TASK_ALWAYS_EAGER
        self._lag.begin()
        if has_broker:
            self._queue.begin()
        lag = self._lag.answer(deadline)
        yield _gauge("atp_database_up", "1 when the database answers.", lag is not None)
        if lag is not None:
            yield _gauge("atp_trail_lag_seconds", "Age of the oldest fact not yet entered.", lag)
        if has_broker:
            waiting = self._queue.answer(deadline)
            yield _gauge("atp_broker_up", "1 when the broker answers.", waiting is not None)
            if waiting is not None:
                help = "Tasks in the broker's queue that no worker has taken."
                yield _gauge("atp_broker_waiting_tasks", help, waiting)


def _of_node() -> Iterator[GaugeMetricFamily]:
    if (this := node.running()) is None:
        return
    yield _gauge("atp_connections", "Authenticated sockets of this node.", len(this.sessions))
    yield _gauge("atp_handshakes", "Sockets that have not authenticated yet.", len(this.handshakes))
    help = "1 when this node does not see the registry, and so delivers nothing."
    yield _gauge("atp_node_blind", help, not this.sees())
    yield _gauge("atp_node_draining", "1 when this node takes nothing new.", this.draining)
    lanes = GaugeMetricFamily("atp_lane_waiting", "What waits in a lane.", labels=["lane"])
    for lane, count in this.waiting.items():
        lanes.add_metric([lane], count)
    yield lanes


def _gauge(name: str, help: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help, value=float(value))


instruments.REGISTRY.register(_Gauges())
