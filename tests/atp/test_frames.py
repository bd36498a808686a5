"""Each frame has its exact text, and parsing the text gives the frame back."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from atp.errors import MalformedFrame, SessionAuthentication
from atp.wire.agent_frames import (
    Ack,
    Authenticate,
    CancelRequest,
    Submission,
    parse_agent_message,
)
from atp.wire.frames import (
    HUB_FRAMES,
    SUBPROTOCOL,
    Cancelled,
    Challenge,
    Delivery,
    Failure,
    Gone,
    Notice,
    Receipt,
    Unknown,
    Welcome,
    Withheld,
    join_frames,
    parse_message,
    splice_delivery,
)
from tests.sources import ROOT, parsed, python_files

WELCOME = Welcome("s-1", "alice", "verified", 82, 256, 3, "token")
# What hub and SDK of 1.0.0a1 wrote before the two had one codec.
WRITTEN: list[tuple[Any, bytes]] = [
    (
        Challenge("hub-1", "n", "2026-01-31T23:59:59.000Z"),
        b'{"type":"challenge","hub":"hub-1","nonce":"n","time":"2026-01-31T23:59:59.000Z"}',
    ),
    (
        WELCOME,
        b'{"type":"welcome","session":"s-1","agent":"alice","level":"verified","score":82,'
        b'"window":256,"pending":3,"proof":"token"}',
    ),
    (
        Receipt("id-1", "accepted", trust_score=82, recipients=1, entry=7),
        b'{"type":"receipt","messageId":"id-1","status":"accepted","trustScore":82,'
        b'"recipients":1,"entry":7}',
    ),
    (
        Receipt("", "busy", code="flow.busy", detail="later", retry_after=2.0),
        b'{"type":"receipt","messageId":null,"status":"busy","code":"flow.busy",'
        b'"detail":"later","retryAfter":2.0}',
    ),
    (
        Withheld("mail", 3, "identity.revoked"),
        b'{"type":"delivery","stream":"mail","seq":3,"withheld":"identity.revoked"}',
    ),
    (
        Gone("answers", 3, 5, "clock.expired"),
        b'{"type":"gone","stream":"answers","from":3,"to":5,"code":"clock.expired"}',
    ),
    (
        Notice("id-1", "delivered"),
        b'{"type":"notice","messageId":"id-1","status":"delivered"}',
    ),
    (
        Failure("flow.busy", "later", 2.0),
        b'{"type":"error","code":"flow.busy","detail":"later","retryAfter":2.0}',
    ),
    (Failure("session.closed"), b'{"type":"error","code":"session.closed","detail":""}'),
    (
        Challenge("hub-1", "n", "", ("cancel", "done")),
        b'{"type":"challenge","hub":"hub-1","nonce":"n","time":"","features":["cancel","done"]}',
    ),
    (
        replace(WELCOME, send_only=True),
        b'{"type":"welcome","session":"s-1","agent":"alice","level":"verified","score":82,'
        b'"window":256,"pending":3,"proof":"token","sendOnly":true}',
    ),
    (
        Notice("id-1", "refused", "handler.failed", stream="answers", seq=7),
        b'{"type":"notice","messageId":"id-1","status":"refused","code":"handler.failed",'
        b'"stream":"answers","seq":7}',
    ),
    (
        Cancelled("id-1", "alice"),
        b'{"type":"cancel","messageId":"id-1","sender":"alice"}',
    ),
]
REQUEST_ID = "0b9e4a52-5b0f-4f0c-9c93-3f1f6a1d2c77"
SENT: list[tuple[Any, bytes]] = [
    (Ack("mail", 4), b'{"seq":4,"stream":"mail","type":"ack"}'),
    (
        Ack("mail", 4, "handler.failed"),
        b'{"refused":"handler.failed","seq":4,"stream":"mail","type":"ack"}',
    ),
    (Authenticate("p", "c"), b'{"client":"c","proof":"p","type":"authenticate"}'),
    (
        Ack("mail", 47, done=((1, 41), (43, 46)), begun=(42,)),
        b'{"begun":[42],"done":[[1,41],[43,46]],"seq":47,"stream":"mail","type":"ack"}',
    ),
    (
        Ack("mail", 4, retry=((2, 1),), refusals=((3, "handler.failed"),)),
        b'{"retry":[[2,1]],"refused":[[3,"handler.failed"]],"seq":4,"stream":"mail","type":"ack"}',
    ),
    (
        Authenticate("p", features=("done",), takeover=False, resumes="s-1"),
        b'{"features":["done"],"proof":"p","resumes":"s-1","takeover":false,"type":"authenticate"}',
    ),
    (CancelRequest(REQUEST_ID), b'{"messageId":"' + REQUEST_ID.encode() + b'","type":"cancel"}'),
]
DELIVERY = (
    b'{"ATP":{"a":1},"acceptedAt":"2026-01-31T23:59:59.000Z","chain":{"depth":1},"entry":7,'
    b'"level":"verified","score":82,"seq":3,"stream":"mail","type":"delivery"}'
)


def test_it_keeps_the_name_that_deployed_agents_offer() -> None:
    assert SUBPROTOCOL == "atp.v1"


@pytest.mark.parametrize(("frame", "text"), WRITTEN)
def test_it_writes_and_reads_a_frame_of_the_hub(frame: Any, text: bytes) -> None:
    assert frame.to_bytes() == text
    assert parse_message(text) == [frame]


@pytest.mark.parametrize(("frame", "text"), SENT)
def test_it_writes_and_reads_a_frame_of_an_agent(frame: Any, text: bytes) -> None:
    assert frame.to_bytes() == text
    assert type(frame).parse(orjson.loads(text)) == frame


def test_it_keeps_the_bytes_of_a_delivered_envelope() -> None:
    spliced = splice_delivery(
        b'{"ATP":{"a":1}}',
        stream="mail",
        seq=3,
        entry=7,
        accepted_at="2026-01-31T23:59:59.000Z",
        score=82,
        level="verified",
        chain={"depth": 1},
    )
    assert spliced == DELIVERY
    (frame,) = parse_message(spliced)
    assert isinstance(frame, Delivery)
    assert frame.to_bytes() == DELIVERY


def test_it_names_the_former_keys_of_a_hub_that_has_some() -> None:
    frame = Welcome("s-1", "alice", "verified", 82, 256, 3, "token", ("older", "newer"))
    assert frame.to_bytes() == WELCOME.to_bytes()[:-1] + b',"succession":["older","newer"]}'
    assert parse_message(frame.to_bytes()) == [frame]


def test_it_reads_several_frames_of_one_message() -> None:
    both = [Ack("mail", 1).to_bytes(), Ack("mail", 2).to_bytes()]
    assert join_frames(both) == b"[" + both[0] + b"," + both[1] + b"]"
    assert join_frames(both[:1]) == both[0]


def test_it_keeps_the_name_of_a_frame_of_a_later_version() -> None:
    assert parse_message(b'{"type":"weather"}') == [Unknown("weather")]


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "ack", "stream": "post", "seq": 1},
        {"type": "ack", "stream": "mail", "seq": 0},
        {"type": "ack", "stream": "mail", "seq": True},
        {"type": "ack", "stream": "mail", "seq": 1, "refused": "No!"},
        {"type": "ack", "stream": "mail", "seq": 1, "refused": "a" * 41},
        {"type": "ack", "stream": "mail", "seq": 9, "done": [[3, 2]]},
        {"type": "ack", "stream": "mail", "seq": 9, "done": [[0, 2]]},
        {"type": "ack", "stream": "mail", "seq": 9, "done": [[1, 2, 3]]},
        {"type": "ack", "stream": "mail", "seq": 9, "done": [3]},
        {"type": "ack", "stream": "mail", "seq": 9, "done": [[1, 1]] * 2049},
        {"type": "ack", "stream": "mail", "seq": 9, "begun": [True]},
        {"type": "ack", "stream": "mail", "seq": 9, "begun": 3},
        {"type": "ack", "stream": "mail", "seq": 9, "retry": [[3]]},
        {"type": "ack", "stream": "mail", "seq": 9, "refused": [[3, "No!"]]},
        {"type": "ack", "stream": "mail", "seq": 9, "refused": [[3, ""]]},
    ],
)
def test_rejects_an_ack_that_breaks_its_grammar(frame: Any) -> None:
    with pytest.raises(MalformedFrame):
        Ack.parse(frame)


def test_it_reads_the_envelopes_and_acks_of_one_message() -> None:
    text = b'[{"ATP":{"messageId":"id-1"}},{"seq":4,"stream":"mail","type":"ack"}]'
    envelope, ack = parse_agent_message(text, max_bytes=len(text))
    assert isinstance(envelope, Submission)
    assert (envelope.message_id, envelope.value) == ("id-1", {"ATP": {"messageId": "id-1"}})
    assert ack == Ack("mail", 4)


def test_rejects_a_message_of_more_frames_than_it_may_have() -> None:
    ack = Ack("mail", 1)
    message = join_frames([ack.to_bytes()] * 3)
    assert parse_agent_message(message, max_bytes=1000, max_frames=3) == [ack] * 3
    with pytest.raises(MalformedFrame, match="at most 2 frames"):
        parse_agent_message(message, max_bytes=1000, max_frames=2)


@pytest.mark.parametrize("document", [None, [], {}, {"messageId": 1}])
def test_it_knows_no_message_id_where_there_is_none(document: Any) -> None:
    assert Submission({"ATP": document}).message_id == ""


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "authenticate", "proof": "p", "features": "done"},
        {"type": "authenticate", "proof": "p", "features": [1]},
        {"type": "authenticate", "proof": "p", "features": ["x"] * 33},
        {"type": "authenticate", "proof": "p", "takeover": 0},
        {"type": "authenticate", "proof": "p", "resumes": 1},
    ],
)
def test_rejects_a_login_that_breaks_its_grammar(frame: Any) -> None:
    with pytest.raises(SessionAuthentication):
        Authenticate.parse(frame)


@pytest.mark.parametrize(
    "text",
    [
        b"1",
        b"[[]]",
        b'["ATP"]',
        b"{}",
        b'{"type":"greeting"}',
        b'{"type":"cancel"}',
        b'{"type":"cancel","messageId":"x"}',
    ],
)
def test_rejects_what_is_neither_envelope_nor_ack(text: bytes) -> None:
    with pytest.raises(MalformedFrame):
        parse_agent_message(text, max_bytes=100)


def test_no_frame_is_written_by_hand() -> None:
    """Only `atp/wire` knows the members of a frame."""
    written = [
        f"{file}:{line}"
        for package in ("atp", "messaging")
        for path in python_files(package)
        if not (file := path.relative_to(ROOT).as_posix()).startswith("atp/wire/")
        for line in frames_written_in(parsed(path))
    ]
    assert not written
    assert list(frames_written_in(ast.parse('{"seq": 1, "type": "ack"}'))) == [1]


def frames_written_in(tree: ast.AST) -> Iterator[int]:
    """The lines of dict literals that have the type of a frame."""
    types = {*HUB_FRAMES, "ack", "authenticate", "cancel"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if _constant(key) == "type" and _constant(value) in types:
                    yield node.lineno


def _constant(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None
