"""The login over a socket, without I/O: challenge, authenticate, welcome.

See docs/protocol.md#connecting. The agent signs the hub's nonce. The hub signs the agent's nonce;
this is checked if the hub's key is known from enrolment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from atp.errors import (
    ATPError,
    ClockError,
    KeyMissing,
    MalformedFrame,
    MalformedTimestamp,
    ReplayNonce,
    SessionAuthentication,
    SignatureAudience,
    excerpt,
    from_code,
)
from atp.trust import tokens
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.signing import read_header
from atp.wire.frames import (
    Authenticate,
    Challenge,
    Failure,
    Frame,
    Welcome,
    parse_message,
)
from atp.wire.timestamps import parse_timestamp
from atp.wire.words import CANCEL, DONE, NOTICES, SEND_ONLY

__all__ = ["FEATURES", "Handshake", "first_frame"]

# Those that this client uses (docs/protocol.md#features).
FEATURES: Final = (DONE, CANCEL, NOTICES, SEND_ONLY)


class Handshake:
    """One login of an agent at a hub. `nonce` is the agent's own and new for each login.

    `began` is this machine's time before the socket was opened, in seconds since 1970; `None` is
    the time of `answer`. `behind` is how many seconds this machine's clock is behind the hub's at
    least, below 0 if it is ahead; it is known after `answer`, and 0 where the time on the way
    explains the difference. `takeover`, `resumes` and `send_only` are those of `Login`. Raises
    `KeyMissing` if `key` is `None`.
    """

    def __init__(
        self,
        *,
        agent: str,
        key: PrivateKey | None,
        hub_id: str,
        hub_key: PublicKey | None,
        url: str,
        nonce: str,
        began: float | None = None,
        takeover: bool = True,
        resumes: str = "",
        send_only: bool = False,
    ) -> None:
        if key is None:
            raise KeyMissing("on a network every message is signed; give the client a private key")
        self._agent = agent
        self._key = key
        self._hub_id = hub_id
        self._hub_key = hub_key
        self._url = url
        self._nonce = nonce
        self._takeover = takeover
        self._resumes = resumes
        self._send_only = send_only
        self._features: tuple[str, ...] = ()
        self._began = began
        self.behind = 0.0

    def answer(self, message: bytes, *, now: float) -> bytes:
        """Return the authenticate frame for the hub's challenge.

        Raises `SignatureAudience` if the agent is enrolled at another hub than the one that
        answers: a proof must be valid at one hub only.
        """
        challenge = first_frame(message)
        if not isinstance(challenge, Challenge):
            raise MalformedFrame("the hub did not begin with a challenge")
        if challenge.hub != self._hub_id:
            raise SignatureAudience(
                f"the hub at {self._url} is {excerpt(challenge.hub)}, but this agent is enrolled at"
                f" {excerpt(self._hub_id)}; check the address, or enrol again"
            )
        self.behind = _seconds_behind(
            challenge.time, now if self._began is None else self._began, now
        )
        claims = {
            "iss": self._agent,
            "aud": self._hub_id,
            "htu": self._url,
            "nonce": challenge.nonce,
            "cnonce": self._nonce,
        }
        proof = tokens.issue(tokens.TokenKind.AUTH, claims, self._key, now=int(now))
        self._features = tuple(name for name in FEATURES if name in challenge.features)
        return Authenticate(
            proof,
            features=self._features,
            takeover=self._takeover or SEND_ONLY not in self._features,
            resumes=self._resumes,
            send_only=self._send_only and SEND_ONLY in self._features,
        ).to_bytes()

    def admit(self, message: bytes, *, now: float) -> Welcome:
        """Return the welcome, after checking that it is for this agent and from this hub.

        Raises the error that the hub sent instead, `MalformedFrame` for any other frame, a
        `ClockError` that tells the difference of the clocks if that is what refuses the login, and
        `SessionAuthentication` or `ReplayNonce` if the hub's proof is not valid.
        """
        try:
            return self._admit(message, now=now)
        except ClockError as problem:
            raise self._told(problem) from problem

    def _admit(self, message: bytes, *, now: float) -> Welcome:
        welcome = first_frame(message)
        if not isinstance(welcome, Welcome):
            raise MalformedFrame("the hub did not answer the login with a welcome")
        if welcome.agent != self._agent:
            raise SessionAuthentication(f"the hub welcomed {excerpt(welcome.agent)} instead")
        if self._hub_key is not None:
            self._check_proof(welcome, self._hub_key, now=now)
        return replace(welcome, features=self._features)

    def _told(self, problem: ClockError) -> ATPError:
        """Return a refusal because of the clocks, with their difference if it is known."""
        advice = f"compare this machine's clock with the clock of {self._hub_id}"
        if self.behind:
            side = "behind" if self.behind > 0 else "ahead of"
            advice = (
                f"this machine's clock is {abs(self.behind):.0f} s {side} the clock of"
                f" {self._hub_id}; set it"
            )
        return from_code(problem.code, f"the login was refused ({problem.detail}): {advice}")

    def _check_proof(self, welcome: Welcome, hub_key: PublicKey, *, now: float) -> None:
        try:
            claims = tokens.verify(
                tokens.TokenKind.WELCOME,
                welcome.proof,
                self._successor(welcome, hub_key, now=now),
                now=now,
                audience=self._agent,
                issuer=self._hub_id,
            )
        except ClockError:
            raise
        except ATPError as exc:
            raise SessionAuthentication(
                f"the hub's proof is not valid ({exc}); if the hub has a new key, enrol again"
            ) from exc
        if claims["nonce"] != self._nonce:
            raise ReplayNonce("the hub's proof is for the nonce of another login")
        if claims["session"] != welcome.session:
            raise SessionAuthentication("the hub's proof is for another session")

    def _successor(self, welcome: Welcome, known: PublicKey, *, now: float) -> PublicKey:
        """Return the hub's current key, following the succession tokens from the `known` key.

        Only the known key, and keys that a trusted key names as its successor, are trusted.
        """
        signer = read_header(welcome.proof).kid
        for token in welcome.succession:
            if known.kid == signer:
                break
            if read_header(token).kid == known.kid:
                claims = tokens.verify(
                    tokens.TokenKind.SUCCESSION,
                    token,
                    known,
                    now=now,
                    audience=None,
                    issuer=self._hub_id,
                )
                known = PublicKey.from_jwk(claims["jwk"])
        return known


def _seconds_behind(hub_time: str, began: float, now: float) -> float:
    """Return how much later it is for the hub than here; below 0 if it is earlier there.

    The hub wrote its time after `began` and before `now`. A time that can't be read gives 0.
    """
    try:
        there = parse_timestamp(hub_time)
    except MalformedTimestamp:
        return 0.0
    return max(0.0, there - now) or min(0.0, there - began)


def first_frame(message: bytes) -> Frame:
    """Return the only frame of a message; raises the error of a frame of type `error`."""
    frames = parse_message(message)
    if len(frames) != 1:
        raise MalformedFrame("the hub sent an array before the login was done")
    if isinstance(frames[0], Failure):
        failure = frames[0]
        raise from_code(failure.code, failure.detail, retry_after=failure.retry_after)
    return frames[0]
