"""Who logs in: the proof of each login is checked, and the standing of its agent and key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from django.db import transaction

from atp.errors import (
    ATPError,
    IdentityNotActive,
    IdentityRevoked,
    KeyRevoked,
    SessionAuthentication,
)
from atp.judging.facts import KeyFacts
from atp.trust import tokens
from atp.trust.signing import read_header, verify
from messaging.judging.registry_view import RegistryView
from registry.attestations.querysets import left_without_voucher
from registry.trail.actions import count_refusals


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """The data of a login: the proof, the nonce of the challenge, and the address called.

    `takeover`, `resumes` and `send_only` are those of the frame `authenticate`.
    """

    proof: str
    nonce: str
    host: str
    path: str
    remote_address: str
    client: str = ""
    takeover: bool = True
    resumes: str = ""
    send_only: bool = False


@dataclass(frozen=True, slots=True)
class ProvenLogin:
    """A login whose proof is valid, and whose agent and key have standing."""

    login: LoginRequest
    agent: str
    kid: str
    client_nonce: str


@dataclass(frozen=True, slots=True)
class RefusedLogin:
    """The error of a refused login, and the signer of its proof; "" if the signature is bad."""

    problem: ATPError
    signer: str = ""

    def __post_init__(self) -> None:
        """Drop the traceback: its frames refer to this object and to what they handle.

        That is a cycle; it would stay in memory until the garbage collector runs.
        """
        self.problem.__traceback__ = None


def prove(
    logins: Sequence[LoginRequest], view: RegistryView, now: float
) -> list[ProvenLogin | RefusedLogin]:
    """Find whose key signed each proof, with one query a table for all of them."""
    kids = [_kid(login) for login in logins]
    view.load((), {kid for kid in kids if isinstance(kid, str)})
    signed = [
        kid if isinstance(kid, RefusedLogin) else _verify(login, kid, view, now)
        for login, kid in zip(logins, kids, strict=True)
    ]
    agents = {one.agent for one in signed if isinstance(one, ProvenLogin)}
    view.load(agents, ())
    unvouched = left_without_voucher(agents, view.standing, now)
    return [
        one if isinstance(one, RefusedLogin) else _standing(one, view, unvouched) for one in signed
    ]


def _kid(login: LoginRequest) -> str | RefusedLogin:
    try:
        return read_header(login.proof).kid
    except ATPError as problem:
        return RefusedLogin(problem)


def _verify(
    login: LoginRequest, kid: str, view: RegistryView, now: float
) -> ProvenLogin | RefusedLogin:
    signer = ""
    try:
        key = view.key(kid)
        if key is None:
            raise SessionAuthentication("no agent has the key that signed this proof")
        claims = verify(login.proof, key.public, typ=tokens.TokenKind.AUTH.typ)
        signer = key.agent
        tokens.judge_claims(
            tokens.TokenKind.AUTH, claims, now=int(now), audience=view.hub_id, issuer=key.agent
        )
        if claims["nonce"] != login.nonce:
            raise SessionAuthentication("the proof is over another nonce than this socket's")
        _check_url(claims["htu"], login)
    except ATPError as problem:
        return RefusedLogin(problem, signer)
    return ProvenLogin(login, key.agent, kid, claims["cnonce"])


def _standing(
    one: ProvenLogin, view: RegistryView, unvouched: Collection[str]
) -> ProvenLogin | RefusedLogin:
    key = view.key(one.kid)
    assert key is not None
    try:
        _check_standing(key, view)
        if one.agent in unvouched:
            raise IdentityNotActive(
                "the issuer that vouched for this agent was suspended or revoked; ask the officers"
                " for another attestation"
            )
    except ATPError as problem:
        return RefusedLogin(problem, one.agent)
    return one


def count_refused(refused: Iterable[RefusedLogin], now: float) -> None:
    """Count refused logins by agent and code; by the hub where the signature is bad."""
    counts = Counter((one.signer, one.problem.code) for one in refused)
    with transaction.atomic():
        count_refusals(counts, datetime.fromtimestamp(now, UTC))


def _check_url(dialled: str, login: LoginRequest) -> None:
    """Check the address in the proof: an agent that was lured to a relay dialled another one."""
    try:
        parts = urlsplit(dialled)
    except ValueError as exc:
        raise SessionAuthentication("the proof is for something that is no address") from exc
    if parts.scheme not in {"ws", "wss"} or parts.netloc.lower() != login.host.lower():
        raise SessionAuthentication("the proof is for another address than the one dialled")
    if parts.path != login.path:
        raise SessionAuthentication("the proof is for another path than the one dialled")


def _check_standing(key: KeyFacts, view: RegistryView) -> None:
    agent = view.agent(key.agent)
    if agent is None or agent.status == "revoked":
        raise IdentityRevoked("this agent has been revoked for good; the officers can say why")
    if key.status == "revoked":
        raise KeyRevoked(
            "an officer has refused or revoked this key; ask for another one-time token and enrol"
            " a new key"
        )
    if key.status == "retired":
        raise KeyRevoked("another key of this agent has taken the place of this one")
    if agent.status == "suspended":
        raise IdentityNotActive("this agent is suspended; the officers can say why, and resume it")
    if agent.status != "active" or key.status != "active":
        raise IdentityNotActive("an officer has not yet approved this agent's key")
