"""The counters and measurements of a node's traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from messaging.layer.news import News
from messaging.telemetry import instruments, telemetry
from registry.agents.actions import revoke_agent
from tests.cast import OFFICER, Player, forged, write
from tests.messaging.conftest import Arm, LogIn, until


def count(name: str, **labels: str) -> float:
    """A sample as it is now; the counters of this process are shared by all tests of a run."""
    return instruments.REGISTRY.get_sample_value(name, labels) or 0.0


def since(name: str, **labels: str) -> Callable[[], float]:
    """By how much a sample has grown since now."""
    before = count(name, **labels)
    return lambda: count(name, **labels) - before


def test_it_counts_envelopes_by_verdict_and_code(
    log_in: LogIn, alice: Player, bob: Player, mallory: Player
) -> None:
    alices, mallorys = log_in(alice), log_in(mallory)
    accepted = since("atp_envelopes_total", verdict="accepted", code="")
    repeated = since("atp_envelopes_total", verdict="repeat", code="")
    claims = {"verdict": "expired", "code": "clock.expired"}
    expired = since("atp_envelopes_total", **claims)
    letter = write(alice, bob)

    assert alices.submit(letter)["status"] == "accepted"
    until(lambda: accepted() >= 1, "the count of what was accepted")
    assert alices.submit(letter)["status"] == "accepted"
    until(lambda: repeated() >= 1, "the count of the repeat")
    assert accepted() == 1
    assert mallorys.submit(forged(mallory, bob, claims={"exp": 1}))["code"] == "clock.expired"
    until(lambda: expired() >= 1, "the count of what came too late")


def test_it_measures_each_stage_of_a_batch(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices = log_in(alice)
    stages = {s: since("atp_stage_seconds_count", stage=s) for s in telemetry.STAGES}
    batches = since("atp_batch_seconds_count", outcome="done")
    envelopes = since("atp_batch_envelopes_sum")
    spent = since("atp_stage_seconds_sum", stage="store")
    began = time.perf_counter()

    letters = [write(alice, bob) for _ in range(3)]
    alices.send_together(*letters)
    for letter in letters:
        alices.receipt(letter)
    until(lambda: all(grown() >= 1 for grown in stages.values()), "a figure for every stage")
    until(lambda: batches() >= 1, "the figure of the batch")
    assert envelopes() == 3
    assert 0 < spent() < time.perf_counter() - began


def test_it_counts_a_batch_that_failed_as_failed(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices = log_in(alice)
    failed = since("atp_batch_seconds_count", outcome="failed")
    left = [RuntimeError("on purpose")]

    def fail_once(judged: Any) -> None:
        if left:
            raise left.pop()

    arm("before_commit", fail_once)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    assert failed() == 1


def test_it_counts_deliveries_and_acks(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices, bobs = log_in(alice), log_in(bob)
    pushed, read, acks = (
        since("atp_deliveries_total", way="pushed"),
        since("atp_deliveries_total", way="read"),
        since("atp_acks_total"),
    )
    alices.submit(write(alice, bob))
    bobs.ack(bobs.mail()["seq"])
    until(lambda: acks() >= 1, "the count of the ack")
    assert pushed() + read() == 1

    bobs.close()
    before = read()
    alices.submit(write(alice, bob))
    log_in(bob).mail()
    assert read() == before + 1


def test_it_measures_how_soon_a_revoked_agent_is_gone(log_in: LogIn, bob: Player) -> None:
    bobs = log_in(bob)
    closed, sockets = (
        since("atp_revocation_seconds_count"),
        since("atp_sockets_closed_total", code="session.revoked"),
    )
    seconds, began = since("atp_revocation_seconds_sum"), time.monotonic()

    revoke_agent(bob.id, actor=OFFICER, reason="it is part of the play")
    assert bobs.ended() == ("session.revoked", 4410)
    until(lambda: closed() >= 1, "the measure of the revocation")
    assert closed() == sockets() == 1
    assert 0 <= seconds() < time.monotonic() - began


def test_it_counts_what_could_not_be_sent_over_the_layer(
    log_in: LogIn, alice: Player, bob: Player, arm: Arm, settings: Any
) -> None:
    """The receipt was lost with it, and comes when the batch is sent again."""
    settings.ATP_OUTCOME_SECONDS = 1
    alices = log_in(alice)
    failures = since("atp_layer_send_failures_total")
    left = [RuntimeError("on purpose")]

    def fail_once(packed: Any) -> None:
        if left:
            raise left.pop()

    arm("before_layer_send", fail_once)
    assert alices.submit(write(alice, bob))["status"] == "accepted"
    until(lambda: failures() >= 1, "the count of the failure")


def test_it_makes_no_series_of_what_somebody_made_up() -> None:
    other = since("atp_envelopes_total", verdict="other", code="other")
    tally = {
        "verdicts": [["<script>", "agent.of.mallory", 2]],
        "seconds": {"made.up": 1.0},
        "told": time.time(),
    }
    instruments.take_tally(tally)
    assert other() == 2
    assert not count("atp_stage_seconds_count", stage="made.up")
    assert not count("atp_envelopes_total", verdict="<script>", code="agent.of.mallory")


def test_it_understands_a_worker_of_another_version() -> None:
    newer = msgpack.packb({"batch": "b", "status": "done", "shoe_size": 44})
    news = News.unpack(newer)
    assert (news.batch, news.status) == ("b", "done")
    instruments.take_tally(news.tally)


def test_it_sums_what_was_done_over() -> None:
    work = telemetry.BatchMeasurements("b", laps=[("verify", 1.0), ("store", 3.0), ("verify", 3.5)])
    assert work.seconds == pytest.approx({"queue": 0.0, "verify": 1.5, "store": 2.0})
