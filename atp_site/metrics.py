"""`/metrics`: the metrics of this node for Prometheus, not public (docs/monitoring.md)."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections.abc import Iterator
from functools import partial

from django.conf import settings
from django.db.models import Min
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from messaging.health.probes import Probe, reach_broker
from messaging.node.process_node import process_node
from messaging.telemetry import instruments, telemetry
from registry.trail.models import RefusalCount

ANSWER_SECONDS = 1.0  # for broker and database, so that a scrape never hangs
FORWARDED = ("Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Proto")


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
    instruments.LAYER_FAILURES.inc(telemetry.layer_failures.take())
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


def _answer(probe: Probe[float]) -> float | None:
    """Return the probe's answer, or `None` if there is none within `ANSWER_SECONDS`."""
    try:
        return probe.result(seconds=ANSWER_SECONDS)
    except Exception:  # drivers raise many types; the gauge then shows that the engine is down
        return None


def _trail_lag_seconds() -> float:
    """Return the age of the oldest counted refusal without an entry in the trail, in seconds."""
    oldest = RefusalCount.objects.aggregate(oldest=Min("minute"))["oldest"]
    return 0.0 if oldest is None else max(0.0, time.time() - oldest.timestamp())


class _Gauges(Collector):
    """The gauges, read at each scrape."""

    def __init__(self) -> None:
        self._lag: Probe[float] = Probe(_trail_lag_seconds, fresh_seconds=0)
        self._queue: Probe[float] = Probe(
            partial(reach_broker, seconds=ANSWER_SECONDS), fresh_seconds=0
        )

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Return nothing, so that registering reads no figure."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from _of_node()
        has_broker = not settings.CELERY_TASK_ALWAYS_EAGER
        self._lag.begin()
        if has_broker:
            self._queue.begin()
        lag = _answer(self._lag)
        yield _gauge("atp_database_up", "1 when the database answers.", lag is not None)
        if lag is not None:
            yield _gauge("atp_trail_lag_seconds", "Age of the oldest fact not yet entered.", lag)
        if has_broker:
            waiting = _answer(self._queue)
            yield _gauge("atp_broker_up", "1 when the broker answers.", waiting is not None)
            if waiting is not None:
                help = "Tasks in the broker's queue that no worker has taken."
                yield _gauge("atp_broker_waiting_tasks", help, waiting)


def _of_node() -> Iterator[GaugeMetricFamily]:
    if (this := process_node.running()) is None:
        return
    yield _gauge(
        "atp_connections", "Authenticated sockets of this node.", len(this.roster.sessions)
    )
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
