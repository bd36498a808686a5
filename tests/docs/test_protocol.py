"""docs/protocol.md has the formats as they are: tokens, frames, members, kinds of entries."""

from __future__ import annotations

import re

import pytest
from django.conf import settings

from atp.errors import MalformedEnvelope, MalformedFrame
from atp.log import leaves
from atp.transports import websocket
from atp.trust import envelope_members, signing, tokens
from atp.trust.keys import PrivateKey
from atp.types import DataSensitivity, TrustLevel
from atp.wire import agent_frames, canonical, frames
from atp.wire.schema import Check
from messaging.mail.attempts import MOST_FAILURES
from messaging.mail.done_places import MOST_UNDONE
from messaging.node import connections
from messaging.process import serve
from messaging.wire import consumer
from registry.api.hub import HubSerializer
from registry.trail.kinds import Kind
from tests.docs.tables import code, page, rows

PAGE = "docs/protocol.md"
TOKENS = {
    code(row["typ"]): row
    for row in rows(PAGE, columns=("typ", "signed by", "claims", "longest life"))
}
FRAMES = {
    code(row["type"]): row["members"]
    for row in rows(PAGE, columns=("type", "direction", "members"))
}


def test_it_lists_every_kind_of_token() -> None:
    assert list(TOKENS) == [kind.typ for kind in tokens.TokenKind]


def test_it_gives_each_token_its_claims_signer_and_life() -> None:
    for kind in tokens.TokenKind:
        row = TOKENS[kind.typ]
        required, _, optional = row["claims"].partition("[")
        life = "-" if kind.max_life_seconds is None else f"{kind.max_life_seconds} s"
        assert _codes(required) == set(kind.required), kind
        assert _codes(optional) == set(kind.optional), kind
        assert (row["signed by"], row["longest life"]) == (kind.purpose, life), kind


def test_it_lists_the_claims_of_a_message() -> None:
    claims = {code(row["claim"]) for row in rows(PAGE, columns=("claim", "value"))}
    assert claims == set(tokens.TokenKind.MESSAGE.required) | set(tokens.TokenKind.MESSAGE.optional)


def test_it_lists_the_members_of_an_envelope() -> None:
    table = rows(PAGE, columns=("member of `ATP`", "", "what"))
    required = {code(row["member of `ATP`"]) for row in table if row[""] == "required"}
    others = {code(row["member of `ATP`"]) for row in table if row[""] != "required"}
    assert (required, others) == (set(envelope_members._REQUIRED), set(envelope_members._OPTIONAL))


def test_it_lists_the_frames_that_agents_read() -> None:
    handshake = {"challenge", "welcome"}  # told as steps, under "Connecting"
    assert set(FRAMES) - {"(envelope)", "ack"} == set(frames.HUB_FRAMES) - handshake


def test_it_lists_the_members_of_the_hub_s_own_facts() -> None:
    table = rows(PAGE, columns=("member of `GET /api/v1/hub`", "what"))
    told = [code(row["member of `GET /api/v1/hub`"]) for row in table]
    assert told == list(HubSerializer().fields)


def test_it_lists_the_members_of_a_welcome() -> None:
    table = rows(PAGE, columns=("member of `welcome`", "what"))
    full = frames.Welcome("s-1", "alice", "verified", 82, 256, 0, "proof", ("token",), True)
    assert [code(row["member of `welcome`"]) for row in table] == list(full.to_wire())


def test_it_tells_who_pings_and_when_a_connection_is_dead() -> None:
    (pings,) = re.findall(r"^\*\*Pings\.\*\* (?:.*\n)+?(?=\n## )", page(PAGE), re.MULTILINE)
    assert serve.PING_SECONDS == websocket.PING_SECONDS
    assert f"a ping {serve.PING_SECONDS:.0f} s after it has accepted the socket" in pings
    assert f"pong does not come within {serve.PING_SECONDS:.0f} s" in pings
    assert f"send a ping every {websocket.PING_SECONDS} s" in pings
    assert f"can't write to it for {connections.STALLED_SECONDS:.0f} s" in pings


def test_it_tells_what_an_ack_may_say() -> None:
    assert "`seq` (a whole number from 1)" in FRAMES["ack"]
    assert "any code of 1 to 40 characters" in page(PAGE)
    longest: dict[str, object] = {"type": "ack", "stream": "mail", "seq": 1}
    longest["refused"] = "own_code." + "a" * 31
    assert frames.Ack.parse(longest).refused == longest["refused"]
    mistakes: list[dict[str, object]] = [
        {"seq": 0},
        {"refused": "own_code." + "a" * 32},
        {"refused": "Own code"},
    ]
    for mistake in mistakes:
        with pytest.raises(MalformedFrame):
            frames.Ack.parse({**longest, **mistake})


def test_it_lists_the_features_and_their_limits() -> None:
    named = [code(row["feature"]) for row in rows(PAGE, columns=("feature", "with it"))]
    assert named == list(consumer.FEATURES)
    assert f"at most {agent_frames.MOST_FEATURES} names" in page(PAGE)


def test_it_tells_the_limits_of_acks() -> None:
    (acks,) = re.findall(r"^## Acks\n(?:.*\n)+?(?=## )", page(PAGE), re.MULTILINE)
    assert f"Each list has at most {agent_frames.MOST_PLACES:,} items" in acks
    assert f"at most {settings.ATP_DELIVERY_WINDOW} of the stream are sent and not taken" in acks
    assert f"at most {MOST_UNDONE:,} places are sent and not done" in acks
    assert f"If the count is {MOST_FAILURES} when" in acks
    members = [
        code(row["member of `ack`"]) for row in rows(PAGE, columns=("member of `ack`", "what"))
    ]
    full = frames.Ack("mail", 1, "", ((1, 1),), (2,), ((3, 1),), ((4, "handler.failed"),))
    assert set(members) == set(full.to_wire()) - {"type", "stream"}


def test_it_lets_tokens_be_written_in_any_order_and_spacing() -> None:
    assert "order of members and spaces are free" in page(PAGE)
    key = PrivateKey.generate()
    header = f'{{ "typ": "atp-prov+jwt", "kid": "{key.kid}", "alg": "{key.alg}" }}'
    body = '{ "n": 0, "iss": "alice", "iat": 1 }'
    signed = ".".join(canonical.b64url(part.encode()) for part in (header, body))
    token = f"{signed}.{canonical.b64url(key.sign(signed.encode()))}"
    claims = signing.verify(token, key.public, typ="atp-prov+jwt")
    assert claims == {"n": 0, "iss": "alice", "iat": 1}


def test_it_tells_the_first_number_of_a_part() -> None:
    table = rows(PAGE, columns=("member of `payload`", "what"))
    (parts,) = [row["what"] for row in table if "`part`" in row["member of `payload`"]]
    assert "a whole number from 0, which is the first" in parts
    check = envelope_members._PAYLOAD
    for part, taken in ((0, True), (-1, False)):
        payload = {"messageType": "response", "targetAgent": "bob", "part": part, "final": False}
        assert _takes(check, payload) is taken


def test_the_promise_and_the_protocol_name_the_condition_on_order() -> None:
    """In the same sentence as the order itself, in both."""
    condition = "stops, and sends this and all later envelopes again in order"
    for name, order in (
        ("README.md", "in the order in which they were sent, on the condition that"),
        (PAGE, "in the order in which they arrive, on the condition that"),
    ):
        (sentence,) = [s for s in re.split(r"(?<=\.)\s", page(name)) if order in s]
        assert condition in sentence
        assert {"busy", "throttled"} <= _codes(sentence)


def test_it_lists_every_kind_of_entry() -> None:
    assert [kind for row in rows(PAGE, columns=("kinds",)) for kind in _listed(row["kinds"])] == [
        str(kind) for kind in _by_subject()
    ]


def test_it_names_every_member_of_a_header() -> None:
    (header,) = re.findall(r"^\*\*Header\.\*\* .*$", page(PAGE), re.MULTILINE)
    assert set(leaves.HEADER.values()) <= _codes(header)


def test_it_orders_levels_and_sensitivities() -> None:
    text = page(PAGE)
    for words in (TrustLevel, DataSensitivity):
        assert " < ".join(f"`{word}`" for word in words) in text


def test_it_tells_the_limits_in_force() -> None:
    text = page(PAGE)
    assert (canonical.ENVELOPE_MAX_BYTES, settings.ATP_MAX_ENVELOPE_BYTES) == (2**19, 2**19)
    assert "at most 512 KiB" in text
    assert (settings.ATP_MAX_FRAME_BYTES, settings.ATP_MAX_FRAMES) == (2**20, 256)
    assert "has at most 1 MiB" in text
    assert frames.MESSAGE_MAX_BYTES == 2**21
    assert f"nesting deeper than {canonical.ENVELOPE_MAX_DEPTH}" in text
    assert f"not authenticated after {settings.ATP_HANDSHAKE_SECONDS} s" in text
    assert f"at most {settings.ATP_DELIVERY_WINDOW} deliveries of a stream without an ack" in text


def _takes(check: Check, value: object) -> bool:
    """Return whether the check of a member passes; it raises at some values."""
    try:
        return check(value)
    except MalformedEnvelope:
        return False


def _codes(text: str) -> set[str]:
    return set(_listed(text))


def _listed(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def _by_subject() -> list[Kind]:
    subjects = list(dict.fromkeys(kind.partition(".")[0] for kind in Kind))
    return sorted(Kind, key=lambda kind: subjects.index(kind.partition(".")[0]))
