"""Issuers vouch within limits that only narrow, and their chains hold link by link."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from atp.errors import ATPError, AttestationLimit, KeyInUse, KeyMissing, MalformedDocument
from atp.trust.keys import PrivateKey, PublicKey
from registry.hub.keyring import SealBroken
from registry.issuers.actions import (
    Limits,
    add_issuer_key,
    change_issuer,
    create_issuer,
    resume_issuer,
    revoke_issuer,
    revoke_issuer_key,
    signing_key,
    suspend_issuer,
)
from registry.issuers.models import Issuer, IssuerKey
from registry.issuers.standing import issuer_standing, issuer_standings
from tests.registry.agent_cast import OFFICER, active, fresh, issuer, kinds_about, local

pytestmark = pytest.mark.usefixtures("database")
NARROW = Limits("verified", ("finance.*",), 30)


def code_of(row: Issuer, *, at: float | None = None) -> str:
    return issuer_standing(time.time() if at is None else at)[row.pk]


def test_it_begins_with_an_anchor_that_vouches_for_everything() -> None:
    row = local()
    assert (row.parent, row.highest_level, row.capability_patterns) == (None, "certified", ["*"])
    assert code_of(row) == ""


def test_it_holds_a_key_that_the_database_alone_does_not_give_away() -> None:
    row = issuer()
    key = row.keys.get()
    private = signing_key(row)
    assert (private.kid, private.alg) == (key.kid, key.algorithm)
    sealed = bytes(key.private_sealed or b"")
    pem = private.to_pem()
    assert pem not in sealed
    assert pem.splitlines()[1] not in sealed


def test_rejects_a_sealed_key_moved_to_another_issuer() -> None:
    row, other = issuer(), issuer()
    stolen = row.keys.get().private_sealed
    IssuerKey.objects.filter(issuer=other).update(private_sealed=stolen)
    with pytest.raises(SealBroken):
        signing_key(other)


def test_it_takes_a_public_key_of_an_issuer_that_signs_elsewhere() -> None:
    key = PrivateKey.generate("ES256")
    row = issuer(public_jwk=key.public.jwk)
    assert row.keys.get().private_sealed is None
    with pytest.raises(KeyMissing):
        signing_key(row)


def test_rejects_a_key_that_is_in_use() -> None:
    enrolled = active()
    for jwk in (enrolled.key.public.jwk, local().keys.get().public_jwk):
        with pytest.raises(KeyInUse):
            issuer(public_jwk=jwk)


@pytest.mark.parametrize(
    "limits",
    [
        Limits("certified", ("finance.*",), 30),
        Limits("verified", ("*",), 30),
        Limits("verified", ("finance",), 30),
        Limits("verified", ("finance.*", "health.*"), 30),
        Limits("verified", ("finance.*",), 31),
    ],
)
def test_rejects_a_child_that_may_do_more_than_its_parent(limits: Limits) -> None:
    parent = issuer(level="verified", patterns=("finance.*",), days=30)
    slug = fresh("child")
    with pytest.raises(AttestationLimit):
        create_issuer(slug, limits, name=slug, parent=parent, actor=OFFICER)
    assert not Issuer.objects.filter(slug=slug).exists()


@pytest.mark.parametrize(
    ("slug", "limits"),
    [
        ("Upper", NARROW),
        ("a/b", NARROW),
        ("", NARROW),
        ("fine", Limits("godlike", ("a",), 30)),
        ("fine", Limits("verified", ("A.*",), 30)),
        ("fine", Limits("verified", ("a.*.b",), 30)),
        ("fine", Limits("verified", ("a",), 0)),
        ("fine", Limits("verified", ("a",), 100_000)),
    ],
)
def test_rejects_limits_that_mean_nothing(slug: str, limits: Limits) -> None:
    with pytest.raises(MalformedDocument):
        create_issuer(slug, limits, name=fresh("name"), actor=OFFICER)


def test_it_stops_all_below_a_suspended_issuer_at_once() -> None:
    anchor = issuer()
    middle = issuer(parent=anchor)
    leaf = issuer(parent=middle)
    suspend_issuer(anchor.pk, actor=OFFICER, reason="audit")
    assert [code_of(row) for row in (anchor, middle, leaf)] == ["attestation.revoked"] * 3
    assert Issuer.objects.get(pk=leaf.pk).status == "active"
    detail = issuer_standings(time.time())[leaf.pk].detail
    assert anchor.name in detail
    resume_issuer(anchor.pk, actor=OFFICER, reason="passed")
    assert [code_of(row) for row in (anchor, middle, leaf)] == [""] * 3


def test_it_refuses_a_whole_chain_for_one_bad_link() -> None:
    now = datetime.now(UTC)
    expired = issuer(not_after=now + timedelta(hours=1))
    below = issuer(parent=expired)
    later = (now + timedelta(hours=2)).timestamp()
    assert code_of(below) == ""
    assert code_of(below, at=later) == "attestation.issuer"
    early = issuer(not_before=now + timedelta(hours=1))
    assert code_of(issuer(parent=early)) == "attestation.issuer"


def test_it_refuses_a_chain_that_widens() -> None:
    anchor = issuer()
    child = issuer(parent=anchor)
    leaf = issuer(parent=child)
    change_issuer(anchor.pk, NARROW, actor=OFFICER, reason="too broad")
    assert code_of(anchor) == ""
    assert [code_of(row) for row in (child, leaf)] == ["attestation.issuer"] * 2


def test_it_refuses_a_chain_that_ends_in_itself() -> None:
    one = issuer()
    two = issuer(parent=one)
    Issuer.objects.filter(pk=one.pk).update(parent=two)
    assert [code_of(row) for row in (one, two)] == ["attestation.issuer"] * 2
    Issuer.objects.filter(pk=one.pk).update(parent=None)


def test_it_judges_all_issuers_in_one_query() -> None:
    chain = [issuer()]
    for _ in range(4):
        chain.append(issuer(parent=chain[-1]))
    with CaptureQueriesContext(connection) as queries:
        issuer_standing(time.time())
    assert len(queries) == 1


def test_it_revokes_for_good() -> None:
    row = issuer()
    revoke_issuer(row.pk, actor=OFFICER, reason="dissolved")
    assert code_of(row) == "attestation.revoked"
    for decide in (resume_issuer, suspend_issuer, revoke_issuer):
        with pytest.raises(ATPError, match=r"attestation\.issuer"):
            decide(row.pk, actor=OFFICER, reason="again")
    with pytest.raises(ATPError, match=r"attestation\.issuer"):
        issuer(parent=Issuer.objects.get(pk=row.pk))
    assert kinds_about(row.slug) == ["issuer.created", "issuer.revoked"]


def keys_published(row: Issuer) -> list[dict[str, Any]]:
    response = Client(HTTP_HOST="localhost").get(f"/api/v1/issuers/{row.slug}/jwks.json")
    assert response.status_code == 200
    keys: list[dict[str, Any]] = response.json()["keys"]
    return keys


def test_it_publishes_keys_that_still_verify() -> None:
    row = issuer()
    first = row.keys.get()
    second = add_issuer_key(row.pk, actor=OFFICER, reason="yearly")
    assert [key["kid"] for key in keys_published(row)] == [first.kid, second.kid]
    assert signing_key(row).kid == second.kid
    assert all(PublicKey.from_jwk(key).kid == key["kid"] for key in keys_published(row))
    assert not any("d" in key for key in keys_published(row))
    revoke_issuer_key(first.kid, actor=OFFICER, reason="leaked")
    assert [key["kid"] for key in keys_published(row)] == [second.kid]


def test_rejects_to_publish_for_nobody() -> None:
    response = Client(HTTP_HOST="localhost").get("/api/v1/issuers/nobody/jwks.json")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
