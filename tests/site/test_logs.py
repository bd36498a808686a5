"""Log lines can't be forged."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings
from django.test import Client

from atp_site.logs import JsonFormatter, LineFormatter, OneLineOfRefusals, SparingHandler
from messaging.models import Envelope
from messaging.telemetry import correlation
from registry.trail.models import Entry
from tests.cast import make_agent, write
from tests.conftest import LiveHub
from tests.wire import Wire


def _record(
    message: str,
    *args: object,
    failed: bool = False,
    formatter: logging.Formatter = LineFormatter(),  # noqa: B008  # it keeps nothing
) -> str:
    trace = sys.exc_info() if failed else None
    record = logging.LogRecord("messaging.node", logging.INFO, "x.py", 1, message, args, trace)
    return formatter.format(record)


def test_it_writes_time_level_and_place() -> None:
    line = _record("%d sockets closed", 3)
    assert line.endswith("Z INFO messaging.node: 3 sockets closed")
    assert line[10] == "T"


def test_it_keeps_a_name_with_line_breaks_in_one_line() -> None:
    forged = "alice\n2030-01-01T00:00:00Z INFO registry: mallory approved\r\x1b[2K\u2028\x85end"
    line = _record("agent %s", forged)
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert "alice\\n2030" in line


def test_it_indents_a_traceback_so_that_no_line_of_it_looks_like_a_record() -> None:
    try:
        raise ValueError("bad\n2030-01-01T00:00:00Z INFO registry: approved")
    except ValueError:
        text = _record("failed", failed=True)
    first, *rest = text.splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_it_writes_one_short_line_for_a_request_under_a_strange_host() -> None:
    """Anybody can send such requests, as fast as the network goes."""
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.addFilter(OneLineOfRefusals())
    handler.setFormatter(LineFormatter())
    logger = logging.getLogger("django.security")
    logger.addHandler(handler)
    try:
        answer = Client().get("/healthz", HTTP_HOST="evil" * 1_000)
    finally:
        logger.removeHandler(handler)
    assert answer.status_code == 400
    (line,) = stream.getvalue().splitlines()
    assert " WARNING django.security.DisallowedHost: " in line
    assert len(line) < 300
    logging_settings: Any = settings.LOGGING
    assert logging_settings["handlers"]["stderr"]["filters"] == ["refusals"]


def _fail(logger: logging.Logger, *, times: int, level: int = logging.ERROR) -> None:
    for n in range(times):
        try:
            raise OSError("no space left")
        except OSError:
            logger.log(level, "batch %d was not judged", n, exc_info=True)


@contextmanager
def _sparing() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger of a test's own, and what it writes."""
    lines = io.StringIO()
    handler = SparingHandler(lines)
    handler.setFormatter(LineFormatter())
    logger = logging.Logger("a test")
    logger.addHandler(handler)
    yield logger, lines
    handler.close()


def test_it_writes_a_traceback_once_a_minute_and_then_how_often_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _sparing() as (logger, lines):
        _fail(logger, times=400)
        assert lines.getvalue().count("Traceback") == 1
        assert "batch 0 was not judged" in lines.getvalue()
        monkeypatch.setattr(time, "monotonic", lambda: time.perf_counter() + 10**9)
        logger.info("something else")
        assert "399 times more within a minute" in lines.getvalue()
        _fail(logger, times=1)
        assert lines.getvalue().count("Traceback") == 2


def test_it_writes_every_alarm_and_every_other_trouble() -> None:
    with _sparing() as (logger, lines):
        _fail(logger, times=2, level=logging.CRITICAL)
        _fail(logger, times=2)
        try:
            raise OSError("elsewhere")
        except OSError:
            logger.exception("batch %d was not judged", 7)
        logger.error("without a traceback")
        logger.error("without a traceback")
        assert lines.getvalue().count("Traceback") == 4
        assert lines.getvalue().count("without a traceback") == 2


def test_the_hub_writes_its_log_so() -> None:
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, SparingHandler)]
    assert len(handlers) == 1


def test_it_writes_a_json_object_a_line() -> None:
    fields = json.loads(_record("%d sockets closed", 3, formatter=JsonFormatter()))
    assert fields.pop("time").endswith("Z")
    assert fields == {
        "level": "INFO",
        "logger": "messaging.node",
        "message": "3 sockets closed",
        "process": os.getpid(),
    }


def test_it_keeps_json_in_one_line_of_plain_characters() -> None:
    forged = 'alice"}\n{"level": "INFO", "message": "approved"}\r\x1b[2K\x7f\u2028\x85\u202eend'
    line = _record("agent %s", forged, formatter=JsonFormatter())
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == f"agent {forged}"


def test_it_puts_a_traceback_into_the_object() -> None:
    try:
        raise ValueError("bad\n{}")
    except ValueError:
        line = _record("failed", failed=True, formatter=JsonFormatter())
    assert len(line.splitlines()) == 1
    assert "ValueError: bad\n{}" in json.loads(line)["exception"]


def test_it_names_what_was_at_work_and_forgets_it_again() -> None:
    with correlation.binding(batch="b1"):
        with correlation.binding(session="s1"):
            inner = json.loads(_record("in", formatter=JsonFormatter()))
        outer = json.loads(_record("out", formatter=JsonFormatter()))
    after = json.loads(_record("after", formatter=JsonFormatter()))
    assert (inner["batch"], inner["session"]) == ("b1", "s1")
    assert outer["batch"] == "b1"
    assert "session" not in outer
    assert "batch" not in after


def test_it_leads_from_a_frame_over_its_batch_to_its_entry(hub: LiveHub) -> None:
    """What docs/monitoring.md says: session and messageId, batch, row, entry, and back."""
    alice = make_agent(name="alice")
    bob = make_agent(name="bob", organisation=alice.organisation)
    letter = write(alice, bob)
    with _lines_of("messaging.judging.pipeline") as lines, Wire.log_in(hub, alice) as wire:
        receipt = wire.submit(letter)
        session = wire.welcome["session"]

    said = [json.loads(line) for line in lines.getvalue().splitlines()]
    (line,) = [fields for fields in said if letter.message_id in str(fields["envelopes"])]
    assert line["envelopes"] == [[session, letter.message_id, "accepted", "", receipt["entry"]]]
    assert Envelope.objects.get(message_id=letter.message_id).batch_id == line["batch"]
    assert Entry.objects.get(message_id=letter.message_id).index == receipt["entry"]


@contextmanager
def _lines_of(name: str) -> Iterator[io.StringIO]:
    """What this logger writes, down to DEBUG, as it is kept in production."""
    lines, logger = io.StringIO(), logging.getLogger(name)
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield lines
    finally:
        logger.setLevel(logging.NOTSET)
        logger.removeHandler(handler)
