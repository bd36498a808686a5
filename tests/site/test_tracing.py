"""Traces, if they are switched on: a batch on its node, its worker, its stages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from atp_site import tracing
from messaging.models import Envelope
from messaging.telemetry import telemetry
from tests.cast import Letter, Player, make_agent, write
from tests.conftest import LiveHub
from tests.messaging.conftest import until
from tests.processes import hub_environment, manage
from tests.sources import ROOT
from tests.wire import Wire

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}  # no server listens there


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), tracing.provider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.tracing.use(tracing.Spans(provider))
    yield exporter
    telemetry.tracing.use(None)


@pytest.fixture
def alice(hub: LiveHub) -> Player:
    return make_agent(name="alice")


def test_it_traces_a_batch_over_node_and_worker(
    hub: LiveHub, exporter: InMemorySpanExporter, alice: Player
) -> None:
    bob = make_agent(name="bob", organisation=alice.organisation)
    letter = write(alice, bob)
    with Wire.log_in(hub, alice) as wire:
        assert wire.submit(letter)["status"] == "accepted"
    batch = Envelope.objects.get(message_id=letter.message_id).batch_id
    until(lambda: {"batch", "check"} <= _trace(exporter, batch).keys(), "the end of the spans")

    spans = _trace(exporter, batch)
    node, worker = spans["batch"], spans["check"]
    assert (node.attributes or {})["atp.outcome"] == "done"
    assert worker.parent is not None
    assert node.context is not None
    assert worker.parent.span_id == node.context.span_id
    stages = spans.keys() - {"batch", "check"}
    assert stages == set(telemetry.STAGES) - {"queue", "return"}
    assert all(_is_within(spans[stage], worker) for stage in stages)
    _says_nothing_of(letter, alice, bob, told=str([span.to_json() for span in spans.values()]))


def test_it_makes_no_span_where_nobody_asked(hub: LiveHub, alice: Player) -> None:
    assert telemetry.tracing.tracer is None
    with Wire.log_in(hub, alice) as wire:
        assert wire.submit(write(alice, alice.id))["code"] == "recipient.self"


def test_it_imports_nothing_where_nobody_asked(tmp_path: Path) -> None:
    """Of what sends; the client of Redis imports the rest where it finds it."""
    look = (
        "import atp_site.asgi, atp_site.celery, sys; from atp_site.tracing import traces;"
        "traces.begin();"
        "sys.exit(any(name.startswith('opentelemetry.exporter') for name in sys.modules))"
    )
    _run(look, tmp_path, {})


def test_rejects_a_start_with_traces_that_nobody_could_send(tmp_path: Path) -> None:
    shadow = tmp_path / "shadow" / "opentelemetry"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").touch()
    done = manage(["hub"], tmp_path / "data", {**ENDPOINT, "PYTHONPATH": str(shadow.parent)})
    assert done.returncode == 1
    assert "requirements-otel.txt" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_rejects_a_protocol_that_it_does_not_speak(tmp_path: Path) -> None:
    done = manage(["check"], tmp_path, {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert done.returncode == 1
    assert "atp.E003" in done.stderr


def _trace(exporter: InMemorySpanExporter, batch: str) -> dict[str, ReadableSpan]:
    """The spans of the trace of this batch, by name."""
    spans = exporter.get_finished_spans()
    ids = {s.context.trace_id for s in spans if (s.attributes or {}).get("atp.batch") == batch}
    return {span.name: span for span in spans if span.context.trace_id in ids}


def _is_within(stage: ReadableSpan, worker: ReadableSpan) -> bool:
    assert stage.parent is not None
    assert worker.context is not None
    times = (worker.start_time, stage.start_time, stage.end_time, worker.end_time)
    ordered = [time for time in times if time is not None]
    return stage.parent.span_id == worker.context.span_id and ordered == sorted(ordered)


def _says_nothing_of(letter: Letter, *players: Player, told: str) -> None:
    assert letter.message_id not in told
    assert not any(player.id in told for player in players)


def _run(program: str, data_dir: Path, env: dict[str, str]) -> None:
    variables = hub_environment(data_dir, 8000, env)
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=variables, check=True, timeout=60)
