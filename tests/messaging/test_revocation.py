"""Revoked means now: sockets close, waiting mail is withheld, nothing is accepted any more."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from websockets.exceptions import ConnectionClosed

from atp.wire.canonical import b64url
from messaging.layer.loops import send_loop
from messaging.models import Delivery, Envelope
from messaging.node.connections import AgentConnection
from messaging.node.process_node import process_node
from messaging.sessions.proofs import LoginRequest
from messaging.sessions.sessions import open_sessions
from registry.agents.actions import (
    resume_agent,
    revoke_agent,
    revoke_key,
    suspend_agent,
)
from registry.attestations.actions import revoke_attestation
from registry.issuers.actions import resume_issuer, revoke_issuer, suspend_issuer
from registry.trail.kinds import Kind
from registry.trail.models import Entry
from tests.cast import OFFICER, Player, attest, make_agent, prove, write
from tests.messaging.conftest import LogIn, until
from tests.registry.admin_cast import officer_client, text_of
from tests.registry.agent_cast import issuer

REASON = "it is part of the play"


@pytest.mark.parametrize("end", ["revoke", "suspend", "key"])
def test_it_closes_the_socket_at_once(
    log_in: LogIn, knock: LogIn, alice: Player, bob: Player, end: str
) -> None:
    bobs = log_in(bob)
    started = time.monotonic()
    _end(bob, end)

    assert bobs.ended() == ("session.revoked", 4410)
    assert time.monotonic() - started < 5  # not by a timeout of any kind
    again = knock(bob)
    again.authenticate(again.prove(again.challenge()["nonce"]))
    codes = {"revoke": "identity.revoked", "suspend": "identity.not_active", "key": "key.revoked"}
    assert again.ended() == (codes[end], 4403)


@pytest.mark.parametrize("whom", ["itself", "above"])
def test_it_closes_the_sockets_of_those_for_whom_only_a_revoked_issuer_vouched(
    log_in: LogIn, knock: LogIn, alice: Player, bob: Player, whom: str
) -> None:
    anchor = issuer()
    branch = issuer(parent=anchor)
    lost, vouched_twice, never_vouched_for = make_agent(None), make_agent(), make_agent(None)
    for player in (lost, vouched_twice):
        attest(player.id, "certified", issuer=branch)
    doomed = log_in(lost)
    others = [(player, log_in(player)) for player in (vouched_twice, never_vouched_for)]
    revoke_issuer((branch if whom == "itself" else anchor).pk, actor=OFFICER, reason=REASON)

    assert doomed.ended() == ("session.revoked", 4410)
    again = knock(lost)
    again.authenticate(again.prove(again.challenge()["nonce"]))
    assert again.ended() == ("identity.not_active", 4403)
    for player, wire in others:
        assert wire.submit(write(player, bob))["status"] in {"accepted", "denied"}


def test_it_takes_back_those_of_a_suspended_issuer_that_is_resumed(
    log_in: LogIn, knock: LogIn, bob: Player
) -> None:
    voucher, player = issuer(), make_agent(None)
    attest(player.id, "certified", issuer=voucher)
    first = log_in(player)
    suspend_issuer(voucher.pk, actor=OFFICER, reason=REASON)
    assert first.ended() == ("session.revoked", 4410)

    resume_issuer(voucher.pk, actor=OFFICER, reason=REASON)
    log_in(player).close()


@pytest.mark.parametrize(
    ("end", "code"),
    [("revoke", "identity.revoked"), ("key", "key.revoked")],
)
def test_it_withholds_what_waits_from_a_revoked_sender(
    log_in: LogIn, alice: Player, bob: Player, end: str, code: str
) -> None:
    letters = [write(alice, bob) for _ in range(2)]
    alices = log_in(alice)
    for letter in letters:
        assert alices.submit(letter)["status"] == "accepted"
    _end(alice, end)

    bobs = log_in(bob)
    assert [bobs.mail(), bobs.mail()] == [
        {"type": "delivery", "stream": "mail", "seq": seq, "withheld": code} for seq in (1, 2)
    ]
    for letter in letters:
        kinds = Entry.objects.filter(message_id=letter.message_id).values_list("kind", flat=True)
        assert list(kinds) == [Kind.ENVELOPE_ACCEPTED, Kind.ENVELOPE_WITHHELD]
    assert log_in(bob).mail()["withheld"] == code  # and it stays withheld, without other entries
    states = Delivery.objects.filter(recipient_id=bob.id).values_list("state", "code")
    assert list(states) == [("withheld", code)] * 2


@pytest.mark.parametrize("end", ["revoke", "suspend", "key", "attestation"])
def test_it_accepts_nothing_after_the_entry_of_the_revocation(
    log_in: LogIn, alice: Player, bob: Player, end: str
) -> None:
    """With envelopes being judged at that very moment, in batch after batch."""
    alices, sent = log_in(alice), [write(alice, bob) for _ in range(400)]

    def send() -> None:
        with suppress(ConnectionClosed):
            alices.send(*sent)

    sender = threading.Thread(target=send)
    sender.start()
    assert alices.receipt(sent[0])["status"] == "accepted"
    _end(alice, end)
    sender.join(10)
    if end == "attestation":  # a session goes on without one, and is refused
        late = alices.submit(write(alice, bob))
        assert (late["status"], late["code"]) == ("denied", "attestation.revoked")

    kinds = {
        "revoke": Kind.AGENT_REVOKED,
        "suspend": Kind.AGENT_SUSPENDED,
        "key": Kind.KEY_REVOKED,
        "attestation": Kind.ATTESTATION_REVOKED,
    }
    about = Entry.objects.filter(kind=kinds[end])
    revocation = max(e.index for e in about if alice.id in bytes(e.leaf).decode())
    accepted = Entry.objects.filter(kind=Kind.ENVELOPE_ACCEPTED, sender=alice.id)
    assert accepted.exists()
    assert not accepted.filter(position__gt=revocation).exists()


def test_rejects_mail_to_a_revoked_agent(log_in: LogIn, alice: Player, bob: Player) -> None:
    alices = log_in(alice)
    revoke_agent(bob.id, actor=OFFICER, reason=REASON)

    refused = alices.submit(write(alice, bob))
    assert (refused["status"], refused["code"]) == ("denied", "recipient.unavailable")


def test_it_takes_back_a_suspended_agent_that_is_resumed(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    log_in(alice)
    suspend_agent(alice.id, actor=OFFICER, reason=REASON)
    resume_agent(alice.id, actor=OFFICER, reason=REASON)

    assert log_in(alice).submit(write(alice, bob))["status"] == "accepted"


def test_it_closes_a_socket_that_opened_while_its_agent_was_revoked(
    log_in: LogIn, bob: Player
) -> None:
    """Between the login's commit and the first frame the socket is not in the node's roster."""
    nonce = b64url(uuid.uuid4().bytes)
    proof = prove(bob, url="ws://hub.test/ws/agents/", nonce=nonce)
    login = LoginRequest(proof, nonce, host="hub.test", path="/ws/agents/", remote_address="")
    here = process_node.current()
    (opened,) = open_sessions([login], here.id)
    assert not isinstance(opened, Exception)
    revoke_agent(bob.id, actor=OFFICER, reason=REASON)
    log_in(_another(bob))  # and time has passed: the node has seen that epoch
    time.sleep(0.6)

    async def attach() -> AgentConnection:
        async def send(_: object) -> None:
            await asyncio.sleep(0)

        connection = AgentConnection(opened.agent, opened.session, send)
        here.attach(connection, opened)
        return connection

    assert send_loop.node_loop is not None
    connection = asyncio.run_coroutine_threadsafe(attach(), send_loop.node_loop).result(5)
    until(lambda: connection.close_code == "session.revoked", "the end of the socket")


def _another(player: Player) -> Player:
    return make_agent(organisation=player.organisation)


def _end(player: Player, how: str) -> None:
    if how == "revoke":
        revoke_agent(player.id, actor=OFFICER, reason=REASON)
    elif how == "suspend":
        suspend_agent(player.id, actor=OFFICER, reason=REASON)
    elif how == "key":
        revoke_key(player.key.kid, actor=OFFICER, reason=REASON)
    else:
        assert player.attestation is not None
        revoke_attestation(player.attestation.jti, actor=OFFICER, reason=REASON)


def test_it_marks_what_was_signed_while_others_may_have_had_the_key(
    log_in: LogIn, alice: Player, bob: Player
) -> None:
    alices, before = log_in(alice), write(alice, bob)
    alices.submit(before)
    since = datetime.now(UTC)
    doubtful = write(alice, bob)
    alices.submit(doubtful)
    revoke_key(alice.key.kid, actor=OFFICER, reason="laptop stolen", compromised_since=since)
    officer = officer_client()
    for letter, marked in ((before, False), (doubtful, True)):
        row = Envelope.objects.get(sender_id=alice.id, message_id=letter.message_id)
        shown = text_of(officer.get(f"/admin/messaging/envelope/{row.pk}/change/"))
        assert ("in doubt" in shown) == marked
        assert ("by its key" in shown) != marked
