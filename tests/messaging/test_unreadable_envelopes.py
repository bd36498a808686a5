"""Envelopes that are no JSON or break the grammar: refused before any query for agents.

Each is sent by a valid agent, gets a refusal that names the fault, and reaches no other agent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from atp.types import MessageType
from messaging.models import Envelope
from tests.cast import Player, forged, tampered, write
from tests.messaging.conftest import LogIn, Scene


def _raw(inner: str) -> Callable[[str], str]:
    """The text of an envelope with `inner` put into its payload's data."""
    return lambda text: text.replace('"forged"', inner)


UNREADABLE: dict[str, tuple[Callable[[str], str], str]] = {
    "NaN": (_raw("NaN"), "malformed.number"),
    "Infinity": (_raw("-Infinity"), "malformed.number"),
    "a number beyond 2^53": (_raw("9007199254740993"), "malformed.number"),
    "a number with too many digits": (_raw("100.000000000000000001"), "malformed.number"),
    "duplicate members": (_raw('{"a":1,"a":2}'), "malformed.duplicate_member"),
    "a lone surrogate": (_raw('"\\ud800"'), "malformed.text"),
    "deep nesting": (_raw("[" * 40 + "]" * 40), "malformed.too_deep"),
    "very deep nesting": (_raw("[" * 9_000 + "]" * 9_000), "malformed.too_deep"),
    "more than 512 KiB": (_raw('"' + "x" * 524_288 + '"'), "malformed.too_large"),
    "trailing text": (lambda text: text + "x", "malformed.json"),
    "cut off": (lambda text: text[:-1], "malformed.json"),
    "a second envelope": (lambda text: text[:-1] + ',"ATP":{}}', "malformed.duplicate_member"),
    "a second member": (lambda text: text[:-1] + ',"x":{}}', "malformed.envelope"),
    "an unknown member": (
        lambda text: text.replace('{"ATP": {', '{"ATP": {"admin": true, ', 1),
        "malformed.envelope",
    ),
    "no object": (lambda text: '{"ATP": 7}', "malformed.envelope"),
    "an empty object": (lambda text: '{"ATP": {}}', "malformed.envelope"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("packed", [False, True], ids=["alone", "in an array"])
def test_rejects_an_envelope_that_can_t_be_read(
    scene: Scene, log_in: LogIn, intruder: Player, name: str, packed: bool
) -> None:
    """Alone it gets a receipt. In an array its end can't be found, so the socket closes."""
    change, code = UNREADABLE[name]
    wire = log_in(intruder)
    text = change(forged(intruder, scene.bob).text)
    wire.send_text(f"[{text}]" if packed else text)

    answer = wire.take(lambda f: f["type"] in ("receipt", "error"), "a refusal")
    assert answer["code"] == code
    if answer["type"] == "receipt":
        assert (answer["status"], answer["messageId"]) == ("invalid", None)
    else:
        assert packed
        assert wire.ended()[1] == 4400
    scene.victims_saw_nothing()


def test_it_takes_no_frame_of_an_array_in_which_one_is_malformed(
    scene: Scene, log_in: LogIn, intruder: Player
) -> None:
    wire = log_in(intruder)
    wire.send_text(f'[{write(intruder, scene.bob).text},{{"type":"greeting"}}]')

    assert wire.next("error")["code"] == "malformed.frame"
    assert wire.ended()[1] == 4400
    assert not Envelope.objects.filter(sender_id=intruder.id).exists()
    scene.victims_saw_nothing()


@pytest.mark.parametrize(
    "change",
    [
        {"messageId": "1"},
        {"messageId": "A" * 36},
        {"version": "2.0.0"},
        {"timestamp": "yesterday"},
        {"timestamp": "2026-02-30T00:00:00Z"},
        {"timestamp": "2026-01-01T00:00:00+01:00"},
        {"trustLevel": "godlike"},
        {"trustScore": 101},
        {"provenance": {"0": "x"}},
    ],
    ids=lambda change: " ".join(f"{k}={v}" for k, v in change.items()),
)
def test_rejects_a_malformed_member(
    scene: Scene, log_in: LogIn, intruder: Player, change: dict[str, Any]
) -> None:
    wire = log_in(intruder)
    wire.send(tampered(forged(intruder, scene.bob), lambda d: d.update(change)))

    receipt = wire.next("receipt")
    assert receipt["status"] == "invalid"
    assert receipt["code"] in {"malformed.envelope", "malformed.timestamp"}
    scene.victims_saw_nothing()


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (MessageType.NOTIFICATION, "*"),
        (MessageType.REQUEST, "*"),
        (MessageType.BROADCAST, "somebody"),
        (MessageType.NOTIFICATION, "Not-An-Id"),
        (MessageType.NOTIFICATION, "a" * 129),
        (MessageType.NOTIFICATION, "a\u0000b"),
    ],
)
def test_rejects_a_target_that_is_none(
    scene: Scene, log_in: LogIn, intruder: Player, kind: MessageType, target: str
) -> None:
    wire = log_in(intruder)
    letter = forged(intruder, scene.bob)
    wire.send(tampered(letter, _addressed(kind, target)))

    receipt = wire.next("receipt")
    assert (receipt["status"], receipt["code"]) == ("invalid", "malformed.envelope")
    scene.victims_saw_nothing()


def _addressed(kind: MessageType, target: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["payload"].update(messageType=str(kind), targetAgent=target)
