"""Attacks from a socket without a login.

See docs/security.md#from-a-socket-that-has-not-logged-in.

Each is refused with its code, and the victim, which is connected, receives no frame.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_django.fixtures import Settings
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from atp.trust.keys import PrivateKey
from messaging.models import Presence, Session
from messaging.node.process_node import process_node
from registry.agents.actions import refuse_key, revoke_agent, revoke_key, suspend_agent
from registry.trail.models import Entry, RefusalCount
from tests.atp.forging import forge
from tests.cast import OFFICER, Player, make_agent, prove, write
from tests.conftest import LiveHub
from tests.messaging.conftest import LogIn, Scene, until
from tests.wire import SUBPROTOCOL, Wire

Proof = Callable[["Attempt"], object]


class Attempt:
    """Mallory's login as Bob; `url` is the address that she called, `nonce` her challenge."""

    def __init__(self, scene: Scene, mallory: Player, wire: Wire) -> None:
        self.bob, self.alice, self.mallory = scene.bob, scene.alice, mallory
        self.url, self.nonce = wire.url, wire.challenge()["nonce"]

    def as_bob(self, **changes: Any) -> str:
        """Bob's own proof, as if his key had leaked, with one thing wrong."""
        return prove(self.bob, **{"url": self.url, "nonce": self.nonce, **changes})

    def as_mallory(self, **changes: Any) -> str:
        return prove(self.mallory, **{"url": self.url, "nonce": self.nonce, **changes})


def _seconds(offset: int) -> int:
    return int(time.time()) + offset


PROOFS: dict[str, tuple[Proof, str]] = {
    "none": (lambda a: None, "session.authentication"),
    "no text": (lambda a: 7, "session.authentication"),
    "empty": (lambda a: "", "signature.missing"),
    "no token": (lambda a: "open sesame", "malformed.token"),
    "stale": (lambda a: a.as_bob(iat=_seconds(-61), exp=_seconds(-1)), "clock.expired"),
    "from the future": (lambda a: a.as_bob(iat=_seconds(90), exp=_seconds(120)), "clock.not_yet"),
    "good for too long": (lambda a: a.as_bob(exp=_seconds(3600)), "clock.too_long"),
    "without an end": (lambda a: a.as_bob(exp=None), "signature.claims"),
    "another hub's": (lambda a: a.as_bob(aud="hub-ffffffffffffffff"), "signature.audience"),
    "several hubs'": (lambda a: a.as_bob(aud=[a.bob.hub, "x"]), "signature.claims"),
    "another address's": (
        lambda a: a.as_bob(url="ws://relay.test/ws/agents/"),
        "session.authentication",
    ),
    "another path's": (lambda a: a.as_bob(url=a.url + "x"), "session.authentication"),
    "another scheme's": (
        lambda a: a.as_bob(url=a.url.replace("ws:", "http:")),
        "session.authentication",
    ),
    "another nonce's": (lambda a: a.as_bob(nonce="A" * 43), "session.authentication"),
    "no nonce's": (lambda a: a.as_bob(nonce=None), "signature.claims"),
    "another agent's name": (lambda a: a.as_mallory(iss=a.bob.id), "signature.claims"),
    "a kid that no database can look for": (
        lambda a: a.as_mallory(header={"kid": "a\0b"}),
        "signature.header",
    ),
    "another agent's kid": (
        lambda a: a.as_mallory(header={"kid": a.bob.key.kid}),
        "signature.invalid",
    ),
    "another agent's name and kid": (lambda a: a.as_bob(key=a.mallory.key), "signature.invalid"),
    "an unknown key": (
        lambda a: a.as_bob(header={"kid": (k := PrivateKey.generate()).kid}, key=k),
        "session.authentication",
    ),
    "alg none": (lambda a: a.as_bob(header={"alg": "none"}, key=None), "malformed.token"),
    "alg none, signed": (lambda a: a.as_bob(header={"alg": "none"}), "key.algorithm"),
    "alg None": (lambda a: a.as_bob(header={"alg": "None"}), "key.algorithm"),
    "alg eddsa": (lambda a: a.as_bob(header={"alg": "eddsa"}), "key.algorithm"),
    "HS256 with the public key": (
        lambda a: a.as_bob(header={"alg": "HS256"}, key=a.bob.key.public.jwk["x"].encode()),
        "key.algorithm",
    ),
    "the signature of an envelope": (
        lambda a: write(a.bob, a.alice).envelope.signature,
        "signature.header",
    ),
    "the type of an envelope": (
        lambda a: a.as_bob(header={"typ": "atp-msg+jwt"}),
        "signature.header",
    ),
    "a header with crit": (
        lambda a: a.as_bob(header={"crit": ["exp"]}),
        "signature.header",
    ),
    "a header with a jwk": (
        lambda a: a.as_bob(header={"jwk": a.mallory.key.public.jwk}, key=a.mallory.key),
        "signature.header",
    ),
    "a header with a jku": (
        lambda a: a.as_bob(header={"jku": "http://127.0.0.1:9/keys"}),
        "signature.header",
    ),
    "an extra claim": (lambda a: a.as_bob(admin=True), "signature.claims"),
    "duplicate members": (
        lambda a: forge(
            {"alg": "EdDSA", "kid": a.mallory.key.kid, "typ": "atp-auth+jwt"},
            f'{{"iss":"{a.mallory.id}","iss":"{a.bob.id}"}}',
            a.mallory.key,
        ),
        "malformed.duplicate_member",
    ),
}


@pytest.mark.parametrize("name", PROOFS)
def test_rejects_a_proof(scene: Scene, knock: LogIn, intruder: Player, name: str) -> None:
    make, code = PROOFS[name]
    wire = knock()
    attempt = Attempt(scene, intruder, wire)
    sessions = Session.objects.filter(agent_id=scene.bob.id).count()
    wire.authenticate(make(attempt))

    assert wire.ended()[0] == code
    assert wire.unasked()[-1]["type"] == "error"
    assert Session.objects.filter(agent_id=scene.bob.id).count() == sessions
    assert not Session.objects.filter(agent_id=attempt.mallory.id).exists()
    scene.victims_saw_nothing()


def test_rejects_a_proof_that_has_served_before(scene: Scene, log_in: LogIn, knock: LogIn) -> None:
    """Overheard in full: the nonce was for that socket, and served once."""
    victim = make_agent()
    first = knock(victim)
    proof = first.prove(first.challenge()["nonce"])
    first.authenticate(proof)
    first.next("welcome")
    second = knock()
    second.challenge()
    second.authenticate(proof)

    assert second.ended() == ("session.authentication", 4401)
    assert first.submit(write(victim, scene.bob))["status"] == "accepted"
    assert scene.bobs.mail()["ATP"]["agentIdentity"]["id"] == victim.id
    scene.skip(scene.bob)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: make_agent(approved=False), "identity.not_active"),
        (lambda: _suspended(), "identity.not_active"),
        (lambda: _revoked(), "identity.revoked"),
        (lambda: _without_its_key(), "key.revoked"),
        (lambda: _refused(), "key.revoked"),
    ],
    ids=["pending", "suspended", "revoked", "key revoked", "key refused"],
)
def test_rejects_agents_that_may_not_connect(
    knock: LogIn, make: Callable[[], Player], code: str
) -> None:
    wire = knock(player := make())
    wire.authenticate(wire.prove(wire.challenge()["nonce"]))

    assert wire.ended() == (code, 4403)
    assert not Session.objects.filter(agent_id=player.id).exists()


def _suspended() -> Player:
    player = make_agent()
    suspend_agent(player.id, actor=OFFICER, reason="part of the play")
    return player


def _without_its_key() -> Player:
    player = make_agent()
    revoke_key(player.key.kid, actor=OFFICER, reason="part of the play")
    return player


def _refused() -> Player:
    player = make_agent(approved=False)
    refuse_key(player.key.kid, actor=OFFICER, reason="part of the play")
    return player


def _revoked() -> Player:
    player = make_agent()
    revoke_agent(player.id, actor=OFFICER, reason="part of the play")
    return player


def test_it_counts_refused_logins_for_the_trail(
    scene: Scene, knock: LogIn, intruder: Player
) -> None:
    """It is entered for the agent that signed the proof; a forged proof counts for no agent."""
    bob = scene.bob.id
    before = _counted(bob, "clock.expired"), _counted("", "signature.invalid")
    wire = knock()
    wire.authenticate(Attempt(scene, intruder, wire).as_bob(iat=_seconds(-61), exp=_seconds(-1)))
    wire.ended()
    wire = knock()
    wire.authenticate(Attempt(scene, intruder, wire).as_bob(key=intruder.key))
    wire.ended()

    assert _counted(bob, "clock.expired") > before[0]
    assert _counted("", "signature.invalid") > before[1]
    assert _counted(bob, "signature.invalid") == 0


def _counted(agent: str, code: str) -> int:
    """Of counts that are entered when their minute is over, both kinds."""
    rows = RefusalCount.objects.filter(agent=agent, code=code)
    entered = Entry.objects.filter(kind="refusals.counted", sender=agent, subject=code)
    counts = [*rows.values_list("count", flat=True)]
    counts += [entry.body.read()["count"] for entry in entered]
    return sum(counts)


# --- First frames that are no proof --------------------------------------------------------------

PROOF = '{"type":"authenticate","proof":"%s"}'
FRAMES: dict[str, tuple[str | bytes, str]] = {
    "an ack": ('{"type":"ack","stream":"mail","seq":1}', "session.authentication"),
    "a list": ('[{"type":"authenticate"}]', "session.authentication"),
    "a number": ("7", "session.authentication"),
    "null": ("null", "session.authentication"),
    "nothing": ("", "malformed.json"),
    "no JSON": ("hello", "malformed.json"),
    "cut off": (PROOF[:20], "malformed.json"),
    "NaN": ('{"type":NaN}', "malformed.number"),
    "Infinity": ('{"type":-Infinity}', "malformed.number"),
    "a number too large": ('{"type":1e999}', "malformed.number"),
    "duplicate members": ('{"type":"ack","type":"authenticate"}', "malformed.duplicate_member"),
    "a lone surrogate": ('{"type":"\\ud800"}', "malformed.text"),
    "NUL": ('{"type":"\\u0000"}', "session.authentication"),
    "deep nesting": ("[" * 4000, "malformed.too_deep"),
    "deep nesting, closed": ("[" * 4000 + "]" * 4000, "malformed.too_deep"),
    "9 KiB": (PROOF % ("x" * 9_000), "malformed.too_large"),
    "16 KiB": (PROOF % ("x" * (16_384 - len(PROOF) + 2)), "malformed.too_large"),
    "features that are no list": (
        '{"type":"authenticate","proof":"x","features":{"done":1}}',
        "session.authentication",
    ),
    "33 features": (
        json.dumps({"type": "authenticate", "proof": "x", "features": ["done"] * 33}),
        "session.authentication",
    ),
    "a feature that is a list": (
        '{"type":"authenticate","proof":"x","features":[["done"]]}',
        "session.authentication",
    ),
    "takeover in words": (
        '{"type":"authenticate","proof":"x","takeover":"false"}',
        "session.authentication",
    ),
    "takeover that is nothing": (
        '{"type":"authenticate","proof":"x","takeover":null}',
        "session.authentication",
    ),
    "a session as a list": (
        '{"type":"authenticate","proof":"x","resumes":["s"]}',
        "session.authentication",
    ),
    "binary": (b"\x00\x01\x02", "malformed.frame"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_rejects_a_first_frame(scene: Scene, knock: LogIn, name: str) -> None:
    """An error frame that says what is wrong, never a traceback, then the close."""
    frame, code = FRAMES[name]
    wire = knock()
    wire.challenge()
    wire.send_text(frame)

    assert wire.ended()[0] == code
    assert [f["type"] for f in wire.unasked()] == ["error"]
    scene.victims_saw_nothing()


def test_rejects_an_envelope_before_the_login(scene: Scene, knock: LogIn) -> None:
    wire = knock()
    wire.challenge()
    wire.send(write(scene.alice, scene.bob))

    assert wire.ended() == ("session.authentication", 4401)
    scene.victims_saw_nothing()


@pytest.mark.parametrize("text", [b'{"type":"\xff"}', b'"\xed\xa0\x80"', b"\xc0\xaf"])
def test_rejects_invalid_utf_8(scene: Scene, knock: LogIn, text: bytes) -> None:
    wire = knock()
    wire.challenge()
    wire.send_raw_text(text)

    assert wire.ended()[1] == 1007  # RFC 6455: invalid payload data
    scene.victims_saw_nothing()


@pytest.mark.parametrize("size", [16_385, 1_048_577])
def test_rejects_frames_that_no_proof_needs(scene: Scene, knock: LogIn, size: int) -> None:
    """Nothing of them is kept: what a stranger may send is bounded before it is read."""
    wire = knock()
    wire.challenge()
    with suppress(ConnectionClosed):  # it may be cut while still sending
        wire.send_text("x" * size)

    assert wire.ended()[1] in {1006, 1009}  # RFC 6455: message too big; or cut before that is read
    until(lambda: len(process_node.current().handshakes) == 0, "the end of the handshake")
    scene.victims_saw_nothing()


# --- Sockets that only cost ----------------------------------------------------------------------


def test_rejects_a_slow_handshake(scene: Scene, knock: LogIn, settings: Settings) -> None:
    settings.ATP_HANDSHAKE_SECONDS = 0.3
    wire = knock()
    wire.challenge()

    assert wire.ended() == ("session.timeout", 4408)
    scene.victims_saw_nothing()


def test_rejects_handshakes_beyond_a_thousand(
    scene: Scene, hub: LiveHub, log_in: LogIn, settings: Settings
) -> None:
    """Agents go on and come in meanwhile: of sockets that say nothing the oldest gives way."""
    settings.ATP_MAX_HANDSHAKES = 40
    settings.ATP_HANDSHAKE_SECONDS = 3.0
    with ExitStack() as opened:
        waiting = [opened.enter_context(Wire(hub)) for _ in range(40)]
        for wire in waiting:
            wire.challenge()
        assert log_in(make_agent()).welcome["level"] == "certified"
        assert waiting[0].ended() == ("flow.too_many", 4429)
        scene.victims_saw_nothing()
        assert {wire.ended() for wire in waiting[1:]} == {("session.timeout", 4408)}
    assert len(process_node.current().handshakes) == 0


def test_rejects_sockets_beyond_the_limit(knock: LogIn, log_in: LogIn, settings: Settings) -> None:
    log_in(make_agent())
    settings.ATP_MAX_SOCKETS = 1

    assert knock().ended() == ("flow.too_many", 4429)


def test_rejects_sockets_without_the_subprotocol(hub: LiveHub) -> None:
    with pytest.raises(InvalidStatus) as refused:
        Wire(hub, subprotocols=())
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        Wire(hub, subprotocols=(Subprotocol("atp.v2"),))


def test_it_leaves_nothing_behind_of_sockets_that_were_refused(
    scene: Scene, knock: LogIn, intruder: Player
) -> None:
    for name in ("stale", "another agent's kid", "none"):
        wire = knock()
        wire.authenticate(PROOFS[name][0](Attempt(scene, intruder, wire)))
        wire.ended()

    assert intruder.id not in process_node.current().roster.agents
    assert not Presence.objects.filter(agent_id=intruder.id).exists()
    assert not Session.objects.filter(agent_id=intruder.id).exists()
    assert len(process_node.current().handshakes) == 0


@pytest.mark.parametrize("url", ["ws://[x/", "ws://a\u2100b/ws/agents/", "ws://"])
def test_rejects_a_proof_for_what_is_no_address_and_nobody_else(
    scene: Scene, knock: LogIn, log_in: LogIn, alice: Player, url: str
) -> None:
    """Logins are handled together; one that can't be read must not take the others with it."""
    evil, honest = knock(make_agent(name="mallory")), knock(alice)
    nonces = evil.challenge()["nonce"], honest.challenge()["nonce"]
    evil.authenticate(evil.prove(nonces[0], htu=url))
    honest.authenticate(honest.prove(nonces[1]))
    assert honest.next("welcome")["agent"] == alice.id
    assert evil.next("error")["code"] == "session.authentication"
    scene.victims_saw_nothing()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", ""])
def test_rejects_a_relay_that_passes_its_own_name_on(
    hub: LiveHub, alice: Player, host: str
) -> None:
    """The agent was led to the relay, and signs that address; the relay names it as the host."""
    where = urlsplit(hub.ws_url)
    with socket.create_connection((where.hostname, where.port), timeout=20) as relay:
        relay.sendall(
            f"GET {where.path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n".encode()
        )
        assert relay.recv(64).split(b" ")[1] == b"403"


def test_it_ends_a_text_that_is_not_utf8_without_a_word_in_the_log(
    hub: LiveHub, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 6455, section 8.1. Any stranger can send it, so no traceback is logged for each."""
    with connect(hub.ws_url, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as wire:
        wire.recv(timeout=10)  # the challenge
        wire.send(b"\xff\xfe{", text=True)
        with pytest.raises(ConnectionClosed) as ended:
            wire.recv(timeout=10)
    assert ended.value.rcvd is not None
    assert ended.value.rcvd.code == 1007
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    "login",
    [
        {"features": ["done"] * 32},
        {"features": ["", "\0", "DONE", "done ", "\u202edone", "x" * 5_000]},
        {"features": [], "resumes": "' OR 1=1 --"},
        {"resumes": "\0" * 900, "takeover": True},
        {"resumes": "\U0001f600" * 300, "takeover": False, "more": {"takeover": False}},
    ],
    ids=range(5),
)
def test_it_takes_odd_features_and_sessions_for_what_they_are(
    scene: Scene, log_in: LogIn, alice: Player, login: dict[str, object]
) -> None:
    """Names that the hub does not know mean nothing, and so do sessions that are not there."""
    wire = log_in(alice, login=login)
    assert "sendOnly" not in wire.welcome
    (session,) = process_node.current().roster.agents[alice.id].features or ("",)
    assert session == ("done" if login.get("features") == ["done"] * 32 else "")
    assert wire.submit(write(alice, make_agent()))["status"] == "accepted"
    scene.victims_saw_nothing()
