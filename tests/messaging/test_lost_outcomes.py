"""`busy` means that nothing was recorded, also where what the worker said was lost on its way."""

from __future__ import annotations

import uuid

import pytest
from pytest_django.fixtures import Settings

from messaging.judging import pipeline
from messaging.judging.withdrawal import withdraw
from messaging.models import Envelope
from tests.cast import Player, write
from tests.messaging.conftest import Arm, LogIn


class Lost(Exception):
    """What a message of the layer meets."""


@pytest.fixture
def impatient(settings: Settings) -> None:
    settings.ATP_OUTCOME_SECONDS = 0.5
    settings.ATP_BUSY_AFTER_SECONDS = 1


def test_what_was_stored_gets_its_receipt_and_no_busy(
    impatient: None, log_in: LogIn, alice: Player, bob: Player, arm: Arm
) -> None:
    alices, letter = log_in(alice), write(alice, bob)

    def lose(_: object) -> None:
        raise Lost

    arm("before_layer_send", lose)
    receipt = alices.submit(letter)

    row = Envelope.objects.get(message_id=letter.message_id)
    assert (receipt["status"], receipt["messageId"]) == ("accepted", letter.message_id)
    assert receipt["entry"] > 0
    assert row.status == "accepted"


def test_what_was_withdrawn_is_stored_by_no_worker_that_comes_late(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    session, letter = log_in(alice).welcome["session"], write(alice, bob)
    batch = {"batch": str(uuid.uuid4()), "channel": "nowhere"}
    assert withdraw([batch["batch"]], [(alice.id, letter.message_id)]) == {}

    pipeline.check({**batch, "frames": [[session, alice.id, letter.text]]})
    assert not Envelope.objects.filter(message_id=letter.message_id).exists()
