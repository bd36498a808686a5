"""Rules over how much an agent sends: the batch counts like what came before it."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from atp.trust.envelope import VerifiedEnvelope
from messaging.judging import pipeline
from messaging.judging.rates import judged_since
from messaging.models import RuleCounter
from messaging.node.process_node import process_node
from messaging.tasks import sweep
from tests.cast import Player, write
from tests.messaging.conftest import Arm, LogIn

MOST = 3


@pytest.mark.parametrize("together", [True, False])
def test_it_counts_the_messages_of_a_minute(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any, together: bool
) -> None:
    too_many = {"field": "context.messages_per_minute", "operator": "at_least", "value": MOST}
    enforce(action="deny", severity="low", conditions=[too_many])
    alices, letters = log_in(alice), [write(alice, bob) for _ in range(6)]
    if together:
        alices.send_together(*letters)
    else:
        for letter in letters:
            alices.submit(letter)
            alices.send(letter)  # once more, which is the same message

    statuses = [alices.receipt(letter)["status"] for letter in letters]
    assert statuses == ["accepted"] * MOST + ["denied"] * 3


@pytest.mark.parametrize("together", [True, False])
def test_it_throttles(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any, together: bool
) -> None:
    enforce(action="throttle", severity="low", throttle={"limit": MOST, "per_seconds": 3600})
    alices, letters = log_in(alice), [write(alice, bob) for _ in range(5)]
    if together:
        alices.send_together(*letters)
        receipts = [alices.receipt(letter) for letter in letters]
    else:
        receipts = [alices.submit(letter) for letter in letters]

    assert [r["status"] for r in receipts] == ["accepted"] * MOST + ["throttled"] * 2
    assert receipts[-1]["code"] == "policy.throttled"
    assert receipts[-1]["retryAfter"] > 0


def test_it_loses_no_count_to_a_batch_that_another_node_sent(
    log_in: LogIn, alice: Player, bob: Player, enforce: Any, arm: Arm
) -> None:
    enforce(action="throttle", severity="low", throttle={"limit": 10, "per_seconds": 3600})
    alices = log_in(alice)
    *letters, elsewhere = [write(alice, bob) for _ in range(3)]
    others = {
        "batch": str(uuid.uuid4()),
        "channel": process_node.current().channel,
        "frames": [[alices.welcome["session"], alice.id, elsewhere.text]],
        "announce": False,
    }

    def be_late(verified: VerifiedEnvelope) -> None:
        """When the count has been read for the first letter, and before it is written."""
        if verified.envelope.message_id == letters[1].message_id:
            pipeline.check(others)

    arm("judge", be_late)
    alices.send_together(*letters)
    for letter in (*letters, elsewhere):
        assert alices.receipt(letter)["status"] == "accepted"
    counts = RuleCounter.objects.filter(sender=alice.id).values_list("count", flat=True)
    assert sum(counts) == 3


def test_it_counts_refusals_without_looking_at_what_was_accepted(alice: Player) -> None:
    """One who sends a lot may be refused a little: a count that follows the former grows."""
    now = datetime.now(UTC)
    counted = judged_since(now - timedelta(hours=1), [alice.id], ["denied"])
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":  # of a nearly empty table it reads all otherwise
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
        plan = counted.explain()

    (condition,) = [
        line for line in plan.splitlines() if "sender_id" in line and "judged_at" in line
    ]
    assert "status" in condition
    assert "envelope_rate" in plan


def test_it_forgets_counters_whose_windows_are_over(alice: Player) -> None:
    now = int(time.time())
    for age_days in (0, 1, 3):
        window = now - age_days * 86_400
        RuleCounter.objects.create(rule="p/r", sender=alice.id, window=window, count=1)
    sweep()

    left = RuleCounter.objects.filter(sender=alice.id).values_list("window", flat=True)
    assert sorted(left) == [now - 86_400, now]
