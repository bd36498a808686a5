"""Envelopes that a valid agent must not get through: forged, relabelled, changed, taken over.

Each has one fault, gets a receipt that names it, leaves no row, and reaches no other agent.
"""

from __future__ import annotations

import json
import time
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from atp.trust.keys import PrivateKey
from atp.trust.provenance import sign_entry
from atp.types import IProvenanceEntry
from atp.wire.timestamps import format_timestamp
from messaging.models import Envelope
from registry.scores.models import Violation
from tests.atp.forging import forge
from tests.cast import (
    Letter,
    Player,
    ask,
    forged,
    make_agent,
    prove,
    tampered,
    write,
)
from tests.messaging.conftest import LogIn, Scene
from tests.wire import Wire

YEAR_SECONDS = 366 * 86_400
ENTRIES = [
    {"type": "service", "id": f"step-{n}", "timestamp": "2026-01-01T00:00:00Z", "action": "made"}
    for n in range(3)
]


@dataclass(frozen=True, slots=True)
class Plot:
    """The agents of an attack: Mallory writes to Bob and has Alice's tokens."""

    alice: Player
    bob: Player
    mallory: Player
    friend: Player

    def forged(self, **changes: Any) -> Letter:
        return forged(self.mallory, self.bob, **changes)


Attack = Callable[[Plot], Letter]


@pytest.fixture(scope="module")
def friend(scene: Scene) -> Player:
    return make_agent(name="friend")


def _public_key_forms(player: Player) -> dict[str, bytes]:
    raw = player.key.public.jwk["x"]
    key = Ed25519PublicKey.from_public_bytes(_decoded(raw))
    return {
        "as base64": raw.encode(),
        "raw": _decoded(raw),
        "as JWK": json.dumps(player.key.public.jwk).encode(),
        "as PEM": key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    }


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _identity(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["agentIdentity"].update(id=name)


def _payload(**members: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["payload"].update(members)


def _with_entries(entries: list[Any]) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(provenance=list(entries))


def _appended(plot: Plot, *tokens: Callable[[Letter, list[Any]], str]) -> Letter:
    """An envelope with provenance added after signing, each entry by a function."""
    letter = plot.forged(before=_with_entries(ENTRIES[:1]))
    entries: list[Any] = [ENTRIES[0]]
    for token in tokens:
        entries.append(token(letter, entries))
    return tampered(letter, _with_entries(entries))


def _entry_token(
    player: Player, *, agent: str | None = None, digest: str | None = None, **claims: Any
) -> Callable[[Letter, list[Any]], str]:
    """A provenance entry by `player`, with one claim wrong."""

    def sign(letter: Letter, entries: list[Any]) -> str:
        entry = IProvenanceEntry.from_wire(ENTRIES[1])
        honest = {"agent": player.id, "digest": digest or letter.digest, "now": int(time.time())}
        token = sign_entry(entry, player.key, entries=entries, **honest)  # type: ignore[arg-type]
        if agent is None and not claims:
            return token
        body = json.loads(_decoded(token.split(".")[1])) | claims
        if agent is not None:
            body["iss"] = agent
        head = {"alg": player.key.alg, "kid": player.key.kid, "typ": "atp-prov+jwt"}
        return forge(head, body, player.key)

    return sign


def _in_future(plot: Plot) -> Letter:
    later = time.time() + 90
    return plot.forged(now=later, before=lambda d: d.update(timestamp=format_timestamp(later)))


def _headed(**members: Any) -> Attack:
    return lambda plot: plot.forged(header=members)


def _claimed(**claims: Any) -> Attack:
    return lambda plot: plot.forged(claims=claims)


def _symmetric(form: str) -> Attack:
    """The public key, in one of its forms, as the secret of an HMAC."""
    return lambda plot: plot.forged(
        header={"alg": "HS256"}, key=_public_key_forms(plot.mallory)[form]
    )


IDENTITY: dict[str, tuple[Attack, str]] = {
    "another agent's id": (lambda p: p.forged(before=_identity(p.alice.id)), "identity.mismatch"),
    "another agent's id, signed as oneself": (
        lambda p: p.forged(before=_identity(p.alice.id), claims={"iss": p.mallory.id}),
        "identity.mismatch",
    ),
    "another agent's envelope": (lambda p: write(p.alice, p.bob), "identity.mismatch"),
    "an unknown agent's id": (lambda p: p.forged(before=_identity("nobody")), "identity.mismatch"),
    "unsigned": (lambda p: p.forged(after=lambda d: d.pop("signature")), "signature.missing"),
    "an empty signature": (
        lambda p: p.forged(after=lambda d: d.update(signature="")),
        "signature.missing",
    ),
    "no token": (lambda p: p.forged(after=lambda d: d.update(signature="x")), "malformed.token"),
    "an unknown key": (
        lambda p: p.forged(header={"kid": (k := PrivateKey.generate()).kid}, key=k),
        "key.unknown",
    ),
    "another key under one's own kid": (
        lambda p: p.forged(key=PrivateKey.generate()),
        "signature.invalid",
    ),
    "another agent's kid": (lambda p: p.forged(header={"kid": p.alice.key.kid}), "key.unknown"),
    "a friend's key": (
        lambda p: p.forged(header={"kid": p.friend.key.kid}, key=p.friend.key),
        "key.unknown",
    ),
}
HEADERS: dict[str, tuple[Attack, str]] = {
    "alg none": (lambda p: p.forged(header={"alg": "none"}, key=None), "malformed.token"),
    **{
        f"alg {alg or 'empty'}": (_headed(alg=alg), "key.algorithm")
        for alg in ("none", "None", "NONE", "nOnE", "eddsa", "EDDSA", "ES256", "RS256", "")
    },
    **{
        f"HS256 with the public key {form}": (_symmetric(form), "key.algorithm")
        for form in ("as base64", "raw", "as JWK", "as PEM")
    },
    **{
        f"kid {kid!r}": (_headed(kid=kid), "key.unknown")
        for kid in ("", "../../../etc/passwd", "' OR '1'='1", "http://127.0.0.1:9/k")
    },
    "a kid that no database can look for": (_headed(kid="a\0b"), "signature.header"),
    "no kid": (_headed(kid=None), "signature.header"),
    "a number for kid": (_headed(kid=1), "signature.header"),
    **{
        f"typ {typ}": (_headed(typ=typ), "signature.header")
        for typ in ("JWT", "atp-auth+jwt", "atp-http+jwt", "atp-prov+jwt", "ATP-MSG+JWT", None)
    },
    **{
        f"{name} in the header": (_headed(**{name: value}), "signature.header")
        for name, value in {
            "crit": ["exp"],
            "jku": "http://127.0.0.1:9/keys",
            "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43},
            "x5u": "http://127.0.0.1:9/cert",
            "x5c": ["AAAA"],
            "b64": False,
            "zip": "DEF",
        }.items()
    },
    "a proof of login as signature": (
        lambda p: p.forged(
            after=lambda d: d.update(
                signature=prove(p.mallory, url="ws://hub/ws/agents/", nonce="A" * 43)
            )
        ),
        "signature.header",
    ),
    "a padded signature": (
        lambda p: p.forged(after=lambda d: d.update(signature=d["signature"] + "=")),
        "malformed.token",
    ),
    "a signature with a fourth part": (
        lambda p: p.forged(after=lambda d: d.update(signature=d["signature"] + ".x")),
        "malformed.token",
    ),
}
CLAIMS: dict[str, tuple[Attack, str]] = {
    **{
        f"without {name}": (_claimed(**{name: None}), "signature.claims")
        for name in ("iss", "aud", "jti", "iat", "exp", "digest")
    },
    "another iss": (lambda p: p.forged(claims={"iss": p.alice.id}), "signature.claims"),
    "another jti": (lambda p: p.forged(claims={"jti": str(uuid.uuid4())}), "signature.claims"),
    "an extra claim": (lambda p: p.forged(claims={"level": "certified"}), "signature.claims"),
    "req on a notification": (lambda p: p.forged(req="A" * 43), "signature.claims"),
    "another hub": (lambda p: p.forged(hub_id="hub-ffffffffffffffff"), "signature.audience"),
    "another recipient": (
        lambda p: p.forged(claims={"aud": [p.bob.hub, p.alice.id]}),
        "signature.audience",
    ),
    "everybody": (lambda p: p.forged(claims={"aud": [p.bob.hub, "*"]}), "signature.audience"),
    "the hub alone": (lambda p: p.forged(claims={"aud": [p.bob.hub]}), "signature.audience"),
    "the other way round": (
        lambda p: p.forged(claims={"aud": [p.bob.id, p.bob.hub]}),
        "signature.audience",
    ),
    "a third audience": (
        lambda p: p.forged(claims={"aud": [p.bob.hub, p.bob.id, p.alice.id]}),
        "signature.claims",
    ),
    "an audience that is text": (
        lambda p: p.forged(claims={"aud": p.bob.hub}),
        "signature.claims",
    ),
    "another digest": (lambda p: p.forged(claims={"digest": "A" * 43}), "signature.digest"),
    **{
        f"exp {value!r}": (_claimed(exp=value), code)
        for value, code in (
            (0, "clock.expired"),
            (1, "clock.expired"),
            (-1, "signature.claims"),
            ("2099-01-01", "signature.claims"),
            (True, "signature.claims"),
            (1e300, "signature.claims"),
            (2**53 - 1, "clock.too_long"),
        )
    },
    "exp in the past": (
        lambda p: p.forged(claims={"exp": int(time.time()) - 1}),
        "clock.expired",
    ),
    "exp in a year": (lambda p: p.forged(lifetime_seconds=YEAR_SECONDS), "clock.too_long"),
    "iat in the future": (_in_future, "clock.not_yet"),
    "iat and timestamp apart": (
        lambda p: p.forged(before=lambda d: d.update(timestamp="2026-01-01T00:00:00Z")),
        "clock.mismatch",
    ),
}
CONTENT: dict[str, tuple[Attack, str]] = {
    "other data": (lambda p: p.forged(after=_payload(data={"pay": 1e6})), "signature.digest"),
    "another recipient": (
        lambda p: tampered(write(p.mallory, p.friend), _payload(targetAgent=p.bob.id)),
        "signature.audience",
    ),
    "another type": (
        lambda p: tampered(ask(p.mallory, p.bob), _payload(messageType="notification")),
        "signature.digest",
    ),
    "no salt": (lambda p: p.forged(after=lambda d: d["payload"].pop("salt")), "signature.digest"),
    "a higher level": (
        lambda p: p.forged(after=lambda d: d.update(trustLevel="certified")),
        "signature.digest",
    ),
    "less sensitivity": (
        lambda p: tampered(
            write(p.mallory, p.bob, sensitivity="restricted"),
            lambda d: d["policyContext"].update(dataSensitivity="public"),
        ),
        "signature.digest",
    ),
    "another messageId": (
        lambda p: p.forged(after=lambda d: d.update(messageId=str(uuid.uuid4()))),
        "signature.claims",
    ),
}
PROVENANCE: dict[str, tuple[Attack, str]] = {
    "entries added unsigned": (
        lambda p: p.forged(after=_with_entries(ENTRIES)),
        "signature.provenance",
    ),
    "an entry dropped": (
        lambda p: p.forged(before=_with_entries(ENTRIES), after=_with_entries(ENTRIES[1:])),
        "signature.provenance",
    ),
    "all entries dropped": (
        lambda p: p.forged(before=_with_entries(ENTRIES), after=lambda d: d.pop("provenance")),
        "signature.provenance",
    ),
    "entries reordered": (
        lambda p: p.forged(before=_with_entries(ENTRIES), after=_with_entries(ENTRIES[::-1])),
        "signature.provenance",
    ),
    "entries of another envelope": (
        lambda p: p.forged(before=_with_entries(ENTRIES[:1]), after=_with_entries(ENTRIES[1:2])),
        "signature.provenance",
    ),
    "a claim over other entries": (
        lambda p: p.forged(
            before=_with_entries(ENTRIES), claims={"prov": {"n": 3, "head": "A" * 43}}
        ),
        "signature.provenance",
    ),
    "an entry in another's name": (
        lambda p: _appended(p, _entry_token(p.mallory, agent=p.alice.id)),
        "signature.provenance",
    ),
    "an entry under another's kid": (
        lambda p: _appended(
            p,
            lambda letter, entries: forge(
                {"alg": "EdDSA", "kid": p.alice.key.kid, "typ": "atp-prov+jwt"},
                json.loads(_decoded(_entry_token(p.alice)(letter, entries).split(".")[1])),
                p.mallory.key,
            ),
        ),
        "signature.provenance",
    ),
    "an entry moved from another envelope": (
        lambda p: _appended(p, _entry_token(p.alice, digest=write(p.alice, p.bob).digest)),
        "signature.provenance",
    ),
    "an entry at another place": (
        lambda p: _appended(p, _entry_token(p.mallory, n=2)),
        "signature.provenance",
    ),
    "an entry after others than it says": (
        lambda p: _appended(p, _entry_token(p.mallory, prev="A" * 43)),
        "signature.provenance",
    ),
    "tokens reordered": (
        lambda p: tampered(
            _appended(p, _entry_token(p.mallory), _entry_token(p.mallory)),
            lambda d: d["provenance"].__setitem__(slice(1, 3), d["provenance"][:0:-1]),
        ),
        "signature.provenance",
    ),
    "a token dropped": (
        lambda p: tampered(
            _appended(p, _entry_token(p.mallory), _entry_token(p.mallory)),
            lambda d: d["provenance"].pop(1),
        ),
        "signature.provenance",
    ),
    "a token by a key that nobody knows": (
        lambda p: _appended(p, _entry_token(_stranger())),
        "signature.provenance",
    ),
    "a signature as entry": (
        lambda p: _appended(p, lambda letter, entries: str(letter.envelope.signature)),
        "signature.provenance",
    ),
    "any text as entry": (
        lambda p: _appended(p, lambda letter, entries: "x.y.z"),
        "signature.provenance",
    ),
}
ATTACKS = {
    f"{group}: {name}": attack
    for group, attacks in {
        "identity": IDENTITY,
        "header": HEADERS,
        "claims": CLAIMS,
        "content": CONTENT,
        "provenance": PROVENANCE,
    }.items()
    for name, attack in attacks.items()
}


def _stranger() -> Player:
    """An agent whose key is not enrolled."""
    return replace(make_agent(approved=False), key=PrivateKey.generate())


@pytest.mark.parametrize("name", ATTACKS)
def test_rejects_an_envelope(scene: Scene, intruders: Wire, friend: Player, name: str) -> None:
    attack, code = ATTACKS[name]
    assert intruders.player is not None
    letter = attack(Plot(scene.alice, scene.bob, intruders.player, friend))
    receipt = intruders.submit(letter)

    assert receipt["code"] == code
    assert receipt["status"] == ("expired" if code == "clock.expired" else "invalid")
    assert "entry" not in receipt
    assert not Envelope.objects.filter(message_id=letter.message_id).exists()
    assert intruders.unasked() == []
    scene.victims_saw_nothing()


def test_it_takes_provenance_that_others_have_added(
    scene: Scene, log_in: LogIn, mallory: Player, friend: Player
) -> None:
    """The same construction as in the attacks, with nothing wrong: they fail for their reason."""
    plot = Plot(scene.alice, scene.bob, mallory, friend)
    letter = _appended(plot, _entry_token(friend), _entry_token(mallory))

    assert log_in(mallory).submit(letter)["status"] == "accepted"
    arrived = scene.bobs.mail()
    assert arrived["ATP"]["provenance"] == letter.envelope.provenance
    scene.skip(scene.bob)


def test_it_takes_what_forged_makes_when_nothing_is_wrong(
    scene: Scene, log_in: LogIn, mallory: Player
) -> None:
    letter = forged(mallory, scene.bob)

    assert log_in(mallory).submit(letter)["status"] == "accepted"
    assert scene.bobs.mail()["ATP"]["messageId"] == letter.message_id
    scene.skip(scene.bob)


@pytest.mark.parametrize("name", ["identity: another agent's id", "content: other data"])
def test_it_notes_forgery_as_a_violation(
    scene: Scene, log_in: LogIn, mallory: Player, friend: Player, name: str
) -> None:
    """Of the agent whose session it is, never of the one whose name was used."""
    wire = log_in(mallory)
    before = wire.submit(write(mallory, friend))["trustScore"]
    wire.submit(ATTACKS[name][0](Plot(scene.alice, scene.bob, mallory, friend)))

    rows = Violation.objects.filter(agent_id=mallory.id)
    assert list(rows.values_list("severity", flat=True)) == ["high"]
    assert not Violation.objects.filter(agent_id=scene.alice.id).exists()
    after = wire.submit(write(mallory, friend))
    assert after["trustScore"] < before
    assert after["trustScore"] <= 69
