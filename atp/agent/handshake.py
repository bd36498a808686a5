"""The login over a socket, without I/O: challenge, authenticate, welcome.

See docs/protocol.md#connecting. The agent signs the hub's nonce. The hub signs the agent's nonce;
this is checked if the hub's key is known from enrolment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from atp.errors import (
    ATPError,
    KeyMissing,
    MalformedFrame,
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
from atp.wire.words import DONE, NOTICES

__all__ = ["FEATURES", "Handshake", "first_frame"]

FEATURES: Final = (DONE, NOTICES)  # those that this client uses (docs/protocol.md#features)


class Handshake:
    """One login of an agent at a hub. `nonce` is the agent's own and new for each login.

    Raises `KeyMissing` if `key` is `None`.
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
    ) -> None:
        if key is None:
            raise KeyMissing("on a network every message is signed; give the client a private key")
        self._agent = agent
        self._key = key
        self._hub_id = hub_id
        self._hub_key = hub_key
        self._url = url
        self._nonce = nonce
        self._features: tuple[str, ...] = ()

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
        claims = {
            "iss": self._agent,
            "aud": self._hub_id,
            "htu": self._url,
            "nonce": challenge.nonce,
            "cnonce": self._nonce,
        }
        proof = tokens.issue(tokens.TokenKind.AUTH, claims, self._key, now=int(now))
        self._features = tuple(name for name in FEATURES if name in challenge.features)
        return Authenticate(proof, features=self._features).to_bytes()

    def admit(self, message: bytes, *, now: float) -> Welcome:
        """Return the welcome, after checking that it is for this agent and from this hub.

        Raises the error that the hub sent instead, `MalformedFrame` for any other frame, and
        `SessionAuthentication` or `ReplayNonce` if the hub's proof is not valid.
        """
        welcome = first_frame(message)
        if not isinstance(welcome, Welcome):
            raise MalformedFrame("the hub did not answer the login with a welcome")
        if welcome.agent != self._agent:
            raise SessionAuthentication(f"the hub welcomed {excerpt(welcome.agent)} instead")
        if self._hub_key is not None:
            self._check_proof(welcome, self._hub_key, now=now)
        return replace(welcome, features=self._features)

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


def first_frame(message: bytes) -> Frame:
    """Return the only frame of a message; raises the error of a frame of type `error`."""
    frames = parse_message(message)
    if len(frames) != 1:
        raise MalformedFrame("the hub sent an array before the login was done")
    if isinstance(frames[0], Failure):
        failure = frames[0]
        raise from_code(failure.code, failure.detail, retry_after=failure.retry_after)
    return frames[0]
