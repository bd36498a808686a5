"""Attestations are issued within limits, verified again, renewed, revoked, and publicly listed."""

from __future__ import annotations

import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from atp.errors import ATPError
from atp.trust import signing, tokens
from atp.trust.attestations import (
    StatusReference,
    issue_attestation,
    trust_mark_type,
    verify_attestation,
)
from atp.trust.keys import PrivateKey, PublicKey
from atp.types import TrustLevel
from atp.wire.canonical import b64url_decode
from registry.attestations.actions import (
    enter_expired,
    renew_attestation,
    revoke_attestation,
    upload_attestation,
    verify_stored,
)
from registry.attestations.models import Attestation
from registry.attestations.querysets import states
from registry.attestations.status_list import REUSED_SECONDS, current_status_list
from registry.attestations.tasks import verify_attestations
from registry.issuers.actions import (
    Limits,
    add_issuer_key,
    change_issuer,
    revoke_issuer_key,
    suspend_issuer,
)
from registry.issuers.models import Issuer
from registry.issuers.querysets import agent_url, issuer_url, status_list_url
from registry.scores.models import Score
from registry.trail.models import Entry
from tests.registry.agent_cast import (
    OFFICER,
    active,
    attest,
    fresh,
    issuer,
    kinds_about,
    register,
)

pytestmark = pytest.mark.usefixtures("database")


def verify_all() -> None:
    after: str | None = ""
    while after is not None:
        after = verify_stored(time.time(), after=after)


def state_of(row: Attestation) -> str:
    row.refresh_from_db()
    return states([row], time.time())[row.jti].name


def test_it_signs_what_the_row_shows() -> None:
    enrolled, anchor = active(), issuer()
    row = attest(enrolled.agent, anchor, level="certified", capabilities=["b", "a.c"], days=10)
    key = PublicKey.from_jwk(anchor.keys.get().public_jwk)
    says = verify_attestation(row.token, key, now=time.time(), issuer=issuer_url(anchor.slug))
    assert says.subject == agent_url(enrolled.agent)
    assert says.level == TrustLevel.CERTIFIED
    assert says.capabilities == {"a.c", "b"}
    assert says.jkt == row.jkt == enrolled.key.kid
    assert (says.issued_at, says.expires_at) == (
        row.issued_at.timestamp(), row.expires_at.timestamp(),
    )  # fmt: skip
    assert row.expires_at - row.issued_at == timedelta(days=10)
    assert signing.read_header(row.token).typ == "trust-mark+jwt"
    assert "attestation.issued" in kinds_about(enrolled.agent)
    assert state_of(row) == "valid"


def test_it_raises_the_score() -> None:
    agent = active().agent
    attest(agent, level="certified")
    newest = Score.objects.filter(agent=agent).first()
    assert newest is not None
    assert (newest.because, newest.total > 50) == ("attestation.issued", True)


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        ({"level": "certified"}, "attestation.limit"),
        ({"capabilities": ["health.read"]}, "attestation.limit"),
        ({"capabilities": ["finance"]}, "attestation.limit"),
        ({"capabilities": ["finance.read", "health.read"]}, "attestation.limit"),
        ({"days": 31}, "attestation.limit"),
        ({"days": 0}, "attestation.limit"),
        ({"days": -1}, "attestation.limit"),
        ({"level": "godlike"}, "malformed.document"),
        ({"capabilities": ["Not One"]}, "malformed.document"),
    ],
)
def test_rejects_what_the_issuer_may_not_attest(wanted: dict[str, Any], code: str) -> None:
    agent = active().agent
    narrow = issuer(level="verified", patterns=("finance.*",), days=30)
    fine: dict[str, Any] = {"level": "verified", "capabilities": ["finance.read"], "days": 30}
    with pytest.raises(ATPError) as refused:
        attest(agent, narrow, **{**fine, **wanted})
    assert refused.value.code == code
    assert not Attestation.objects.filter(agent=agent).exists()
    assert attest(agent, narrow, **fine).level == "verified"


def test_rejects_an_issuer_whose_chain_does_not_hold() -> None:
    agent = active().agent
    anchor = issuer()
    child = issuer(parent=anchor)
    suspend_issuer(anchor.pk, actor=OFFICER, reason="audit")
    with pytest.raises(ATPError, match=r"attestation\.revoked"):
        attest(agent, child)


def test_rejects_an_agent_without_an_approved_key() -> None:
    with pytest.raises(ATPError, match=r"key\.missing"):
        attest(register().id)


def test_it_counts_through_the_chain() -> None:
    agent = active().agent
    anchor = issuer()
    row = attest(agent, issuer(parent=anchor))
    assert state_of(row) == "valid"
    suspend_issuer(anchor.pk, actor=OFFICER, reason="audit")
    assert state_of(row) == "issuer"


def test_it_revokes_once_and_says_why() -> None:
    row = attest(active().agent)
    revoke_attestation(row.jti, actor=OFFICER, reason="left the team")
    assert state_of(row) == "revoked"
    with pytest.raises(ATPError, match=r"attestation\.revoked"):
        revoke_attestation(row.jti, actor=OFFICER, reason="again")
    with pytest.raises(ATPError, match=r"attestation\.revoked"):
        renew_attestation(row.jti, actor=OFFICER)


def test_it_renews_the_same_for_the_key_of_today() -> None:
    enrolled = active()
    old = attest(enrolled.agent, level="verified", capabilities=["a.b"], days=7)
    row = renew_attestation(old.jti, actor=OFFICER)
    assert row.jti != old.jti
    assert (row.level, row.capabilities, row.jkt) == ("verified", ["a.b"], enrolled.key.kid)
    assert row.expires_at - row.issued_at == timedelta(days=7)
    assert state_of(old) == "valid"


# --- Verified again ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tampered",
    [
        {"level": "certified"},
        {"capabilities": ["everything"]},
        {"jkt": "A" * 43},
        {"expires_at": datetime(2099, 1, 1, tzinfo=UTC)},
        {"status_index": 5},
        {"token": "e30.e30.e30"},
    ],
)
def test_it_finds_a_row_that_says_more_than_was_signed(tampered: dict[str, Any]) -> None:
    row = attest(active().agent, issuer(), level="verified", capabilities=["a"])
    Attestation.objects.filter(pk=row.pk).update(**tampered)
    verify_all()
    assert state_of(row) == "unreadable"


def test_it_finds_a_row_moved_to_another_agent_and_takes_it_back() -> None:
    row, other = attest(active().agent), active().agent
    owner = row.agent_id
    Attestation.objects.filter(pk=row.pk).update(agent=other)
    verify_all()
    assert state_of(row) == "unreadable"
    Attestation.objects.filter(pk=row.pk).update(agent=owner)
    verify_all()
    assert state_of(row) == "valid"
    assert kinds_about(owner).count("attestation.verified") == 1


def test_it_leaves_sound_ones_alone() -> None:
    row = attest(active().agent)
    before = kinds_about(row.agent_id)
    verified_at = row.verified_at
    verify_all()
    row.refresh_from_db()
    assert row.verified_at > verified_at
    assert kinds_about(row.agent_id) == before


def test_it_stops_what_is_beyond_new_limits() -> None:
    anchor = issuer()
    row = attest(active().agent, anchor, level="certified", capabilities=["a"])
    change_issuer(anchor.pk, Limits("verified", ("*",), 365), actor=OFFICER, reason="too broad")
    verify_all()
    assert state_of(row) == "unreadable"


def test_it_stops_what_a_revoked_key_has_signed() -> None:
    anchor = issuer()
    row = attest(active().agent, anchor)
    revoke_issuer_key(row.kid, actor=OFFICER, reason="leaked")
    assert state_of(row) == "unreadable"
    verify_all()
    assert state_of(row) == "unreadable"


# --- Signed elsewhere --------------------------------------------------------------------------


class Elsewhere:
    """An issuer that signs on its own machine."""

    def __init__(self, **limits: Any) -> None:
        self.key = PrivateKey.generate()
        self.issuer: Issuer = issuer(public_jwk=self.key.public.jwk, **limits)

    def sign(self, agent: str, jkt: str, **other: Any) -> str:
        now = int(time.time())
        said: dict[str, Any] = {
            "issuer": issuer_url(self.issuer.slug),
            "subject": agent_url(agent),
            "level": TrustLevel.VERIFIED,
            "capabilities": ["finance.read"],
            "jkt": jkt,
            "jti": fresh("jti"),
            "status": StatusReference(uri=status_list_url(self.issuer.slug), index=7),
            "expires_at": now + 86_400,
            "issuer_key": self.key,
            "now": now,
            **other,
        }
        said["mark_type"] = trust_mark_type("http://127.0.0.1", said["level"])
        return issue_attestation(**said)


def test_it_takes_in_what_was_signed_elsewhere() -> None:
    enrolled, elsewhere = active(), Elsewhere()
    row = upload_attestation(elsewhere.sign(enrolled.agent, enrolled.key.kid) + "\n", actor=OFFICER)
    assert (row.issuer, row.agent_id, row.level) == (elsewhere.issuer, enrolled.agent, "verified")
    assert state_of(row) == "valid"
    verify_all()
    assert state_of(row) == "valid"


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ({"issuer": "http://elsewhere.example/issuers/x"}, "attestation.issuer"),
        ({"issuer_key": PrivateKey.generate()}, "attestation.issuer"),
        ({"subject": "http://elsewhere.example/agents/x"}, "attestation.unreadable"),
        ({"subject": agent_url("nobody-here")}, "identity.unknown"),
        ({"level": TrustLevel.CERTIFIED}, "attestation.limit"),
        ({"capabilities": ["health.read"]}, "attestation.limit"),
        ({"expires_at": int(time.time()) + 100 * 86_400}, "attestation.limit"),
        ({"now": 1_000_000_000, "expires_at": 1_000_086_400}, "attestation.expired"),
        ({"jkt": "A" * 43}, "key.unknown"),
        ({"jti": "x" * 65}, "attestation.unreadable"),
    ],
)
def test_rejects_what_does_not_hold(other: dict[str, Any], code: str) -> None:
    enrolled = active()
    elsewhere = Elsewhere(level="verified", patterns=("finance.*",), days=30)
    with pytest.raises(ATPError) as refused:
        upload_attestation(
            elsewhere.sign(enrolled.agent, other.pop("jkt", enrolled.key.kid), **other),
            actor=OFFICER,
        )
    assert refused.value.code == code
    assert not Attestation.objects.filter(issuer=elsewhere.issuer).exists()


def test_rejects_what_a_retired_key_signs() -> None:
    """The dates in it are the signer's word: whoever has an old key could say any."""
    enrolled, elsewhere = active(), Elsewhere()
    before = elsewhere.sign(enrolled.agent, enrolled.key.kid)
    upload_attestation(before, actor=OFFICER)
    fresh_key = PrivateKey.generate().public.jwk
    add_issuer_key(elsewhere.issuer.pk, actor=OFFICER, reason="yearly", public_jwk=fresh_key)
    with pytest.raises(ATPError, match=r"attestation\.issuer"):
        upload_attestation(elsewhere.sign(enrolled.agent, enrolled.key.kid), actor=OFFICER)
    verify_all()  # what was taken in while the key was in use stays good
    assert Attestation.objects.get(issuer=elsewhere.issuer).unreadable_reason == ""


def test_rejects_the_same_twice() -> None:
    enrolled, elsewhere = active(), Elsewhere()
    token = elsewhere.sign(enrolled.agent, enrolled.key.kid)
    upload_attestation(token, actor=OFFICER)
    with pytest.raises(ATPError, match=r"attestation\.unreadable"):
        upload_attestation(token, actor=OFFICER)


@pytest.mark.parametrize("token", ["", "hello", "a.b.c", "e30.e30.e30", "x" * 100_000])
def test_rejects_what_is_no_token(token: str) -> None:
    with pytest.raises(ATPError, match=r"attestation\.unreadable"):
        upload_attestation(token, actor=OFFICER)


# --- The public list ---------------------------------------------------------------------------


def test_it_publishes_what_was_revoked() -> None:
    anchor, agent = issuer(), active().agent
    good, bad = attest(agent, anchor), attest(agent, anchor)
    revoke_attestation(bad.jti, actor=OFFICER, reason="left")
    url = f"/api/v1/issuers/{anchor.slug}/status-list"
    response = Client(HTTP_HOST="localhost").get(url)
    assert response.headers["Content-Type"] == "application/statuslist+jwt"
    assert response.headers["Cache-Control"] == "public, max-age=60"
    claims = tokens.verify(
        tokens.TokenKind.STATUS_LIST,
        response.content.decode(),
        PublicKey.from_jwk(anchor.keys.get().public_jwk),
        now=time.time(),
        audience=None,
        issuer=issuer_url(anchor.slug),
    )
    assert claims["sub"] == status_list_url(anchor.slug)
    bits = zlib.decompress(b64url_decode(claims["status_list"]["lst"]))
    places = {i * 8 + j for i, byte in enumerate(bits) for j in range(8) if byte >> j & 1}
    assert claims["status_list"]["bits"] == 1
    assert places == {bad.status_index}
    assert good.status_index not in places


def test_it_signs_the_list_again_only_when_something_has_changed_or_it_is_old() -> None:
    anchor, agent = issuer(), active().agent
    attested, now = attest(agent, anchor), int(time.time())
    first = current_status_list(anchor, now=now)
    later = now + REUSED_SECONDS - 1
    assert current_status_list(anchor, now=later) == first
    assert current_status_list(anchor, now=later + 1).signed_at == later + 1

    revoke_attestation(attested.jti, actor=OFFICER, reason="left")
    revoked = current_status_list(anchor, now=later + 1)
    assert revoked.token != first.token
    assert revoked.epoch > first.epoch
    assert current_status_list(issuer(), now=later + 1).token != revoked.token


def test_rejects_the_list_of_an_issuer_that_signs_elsewhere() -> None:
    elsewhere = Elsewhere()
    url = f"/api/v1/issuers/{elsewhere.issuer.slug}/status-list"
    assert Client(HTTP_HOST="localhost").get(url).status_code == 404


def test_it_enters_once_that_an_attestation_has_run_out() -> None:
    enrolled, anchor = active(), issuer()
    ending = attest(enrolled.agent, anchor, days=1)
    staying, revoked = (
        attest(enrolled.agent, anchor, days=9),
        attest(enrolled.agent, anchor, days=1),
    )
    revoke_attestation(revoked.jti, actor=OFFICER, reason="left the company")
    verify_attestations()
    assert "attestation.expired" not in kinds_about(enrolled.agent)

    later = time.time() + 2 * 86_400
    while enter_expired(later):
        pass
    said = Entry.objects.filter(kind="attestation.expired", subject=enrolled.agent)
    assert [e.body.read()["jti"] for e in said] == [ending.jti]
    assert enter_expired(later) == 0
    assert Attestation.objects.get(pk=staying.jti).expiry_entered_at is None
