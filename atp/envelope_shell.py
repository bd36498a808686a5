"""`ATPEnvelope`: a mutable envelope for applications, over the strict one of `atp.trust.envelope`.

Example::

    envelope = ATPEnvelope(IATPConfig(identity, TrustLevel.VERIFIED, payload={"task": "add"}))
    envelope.sign("a demo key")
    restored = ATPEnvelope.from_serialized(envelope.serialize())
    assert restored.verify_signature()
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from atp.agent.receiving import DeliveryFacts, Received, read_claims
from atp.errors import (
    ATPError,
    AttestationExpired,
    AttestationMissing,
    KeyMissing,
    KeyUnknown,
    SignatureMissing,
    TrustLevelTooLow,
)
from atp.memory.keys import DEMO_HUB_ID, DIRECTORY, DemoKey, read_key
from atp.memory.trust import believed_score, covers_now
from atp.trust.envelope import (
    Envelope,
    envelope_from_value,
    new_document,
    parse_envelope,
    sign_envelope,
    signature_header,
    verify_signature,
)
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.provenance import sign_entry
from atp.trust.signing import read_header, unverified_claims
from atp.types import (
    BROADCAST_TARGET,
    IAgentIdentity,
    IATPConfig,
    IPolicyContext,
    IProvenanceEntry,
    IValidationResult,
    MessageType,
    TrustLevel,
)
from atp.wire.timestamps import format_timestamp

__all__ = ["ATPEnvelope"]

UNNAMED: Final = IAgentIdentity("unnamed-agent")
# docs/protocol.md#digest-and-signature: anything but a request
SIGNED_LIFETIME_SECONDS: Final = 24 * 3600
_PAYLOAD_MEMBERS: Final = ("messageType", "targetAgent")

Clock = Callable[[], float]


class ATPEnvelope:
    """A message with its security and trust metadata.

    `payload` is the payload of the wire; `payload["data"]` is the sender's data. A change after
    signing makes the signature invalid. `clock` returns seconds since 1970.
    """

    _key: PrivateKey | None
    _sender_keys: tuple[PublicKey, ...]

    def __init__(self, config: IATPConfig | None = None, *, clock: Clock | None = None) -> None:
        config = config or IATPConfig(UNNAMED, TrustLevel.UNVERIFIED)
        given = dict(config.payload or {})
        if not given.keys() >= set(_PAYLOAD_MEMBERS):
            given = {"messageType": "broadcast", "targetAgent": BROADCAST_TARGET, "data": given}
        document = new_document(
            identity=config.agent_identity,
            message_type=MessageType(given["messageType"]),
            target=given["targetAgent"],
            data=given.get("data"),
            trust_level=config.trust_level,
            policy_context=config.policy_context,
        )
        document["payload"] = {**document["payload"], **given}
        document["timestamp"] = format_timestamp((clock or time.time)())
        self._begin(document, clock, read_key(config.private_key))

    @classmethod
    def from_serialized(
        cls, serialized: str | bytes | Mapping[str, Any], *, clock: Clock | None = None
    ) -> ATPEnvelope:
        """Read the text of `serialize`; raises a `MalformedError` if it is not an envelope."""
        if isinstance(serialized, str | bytes):
            return cls.from_envelope(parse_envelope(serialized), clock=clock)
        return cls.from_envelope(envelope_from_value(copy.deepcopy(dict(serialized))), clock=clock)

    @classmethod
    def from_envelope(cls, envelope: Envelope, *, clock: Clock | None = None) -> ATPEnvelope:
        """Return a mutable envelope with the content of a strict one, which stays unchanged."""
        shell = cls.__new__(cls)
        shell._begin(envelope.document, clock, None)
        shell.payload = dict(shell.payload)  # what is changed in it is changed here only
        return shell

    @classmethod
    def from_received(
        cls,
        received: Received,
        *,
        agent: str,
        key: PrivateKey | None,
        sender_keys: tuple[PublicKey, ...],
        clock: Clock,
        attempt: int = 1,
    ) -> ATPEnvelope:
        """Return the envelope for a handler of `agent`.

        Its score is the hub's. `key` signs the provenance entries that the handler adds. `attempt`
        counts the handlers that have begun with it, this one included.
        """
        shell = cls.from_envelope(received.envelope, clock=clock)
        shell._key = key
        shell.told_score = received.delivery.score
        shell.delivery = DeliveryFacts(
            attempt,
            received.delivery.redelivered,
            received.accepted_at,
            received.expires_at,
        )
        shell._added_by = agent
        shell._delivered = (received.envelope.digest, received.envelope.signature)
        shell._sender_keys = sender_keys
        return shell

    @property
    def request_id(self) -> str | None:
        """The id that a request and its response share; `None` for other messages."""
        return self.payload.get("requestId")

    @property
    def data(self) -> Any:
        """The sender's data."""
        return self.payload.get("data")

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """The entries, oldest first. An entry added after signing has the member `agent`."""
        return [_readable(entry) for entry in self._entries]

    def sign(
        self,
        private_key: PrivateKey | str | bytes | None = None,
        *,
        hub_id: str = DEMO_HUB_ID,
        req: str | None = None,
    ) -> None:
        """Sign the current content; `timestamp` becomes the time of signing.

        A string that is not a PEM is a demo key. A response needs `req`, the digest of its request.
        Raises `KeyMissing` without a key, and a `MalformedError` if a reader would refuse the
        content.
        """
        key = read_key(private_key) or self._key
        if key is None:
            raise KeyMissing("sign(private_key) needs a key, or a config with one")
        signed = sign_envelope(
            self._document(),
            key,
            hub_id=hub_id,
            now=self._clock(),
            lifetime_seconds=SIGNED_LIFETIME_SECONDS,
            req=req,
        )
        self._load(parse_envelope(signed).document)
        self._key, self._sender_keys = key, (key.public,)
        DIRECTORY.note(self.agent_identity.id, key)

    def verify_signature(self, public_key: PublicKey | str | None = None) -> bool:
        """Return whether a known key of the sender signed the current content.

        `public_key` is the sender's key. Without it, the client's `trusted_keys` count, and the
        keys that signed in this process. The result is also `False` if no key of the sender is
        known here, even if the hub has verified the signature.
        """
        try:
            self._verify(public_key)
        except ATPError:
            return False
        return True

    def validate(self) -> IValidationResult:
        """Return the faults (`errors`) and the weaknesses (`warnings`) of the envelope.

        A signature that can't be checked here, because no key of the sender is known, is a fault.
        There is one exception: if a handler got the envelope and it is unchanged, this is a
        warning, because the hub verified the signature when it accepted the envelope. An unsigned
        envelope of an agent below `certified` is valid; `verify_signature` says whether a known key
        signed.
        """
        errors: list[str] = []
        warnings: list[str] = []
        try:
            self._envelope()
        except ATPError as problem:
            return IValidationResult(valid=False, trust_score=0, errors=[str(problem)])
        for found, serious in (*self._signature_problems(), *self._attestation_problems()):
            (errors if serious else warnings).append(str(found))
        return IValidationResult(not errors, self.get_trust_score(), errors, warnings)

    def get_trust_score(self) -> int:
        """Return the sender's score, 0 to 100: the hub's, or one computed here (demo mode)."""
        if self.told_score is not None:
            return self.told_score
        signed = self.signature is not None
        return believed_score(
            self.agent_identity,
            self.trust_level,
            now=self._clock(),
            key_algorithm=self._algorithm(),
            signatures=(int(signed and self.verify_signature()), int(signed)),
        )

    def meets_trust_threshold(self, threshold: int) -> bool:
        """Return whether the score is at least `threshold`."""
        return self.get_trust_score() >= threshold

    def add_provenance(self, entry: IProvenanceEntry | Mapping[str, Any]) -> None:
        """Add a provenance entry: `type`, `id`, `action`, and `timestamp`, which defaults to now.

        Before signing, the envelope's signature will cover it. After signing, the entry becomes a
        token signed with this agent's key; raises `KeyMissing` if there is no key.
        """
        if not isinstance(entry, IProvenanceEntry):
            stamped = {"timestamp": format_timestamp(self._clock()), **entry}
            entry = IProvenanceEntry.from_wire(stamped)
        if self.signature is None:
            self._entries.append(entry.to_wire())
            return
        if self._key is None:
            raise KeyMissing("adding to a signed envelope takes a key to sign the entry with")
        token = sign_entry(
            entry,
            self._key,
            agent=self._added_by or self.agent_identity.id,
            digest=self._envelope().digest,
            entries=self._entries,
            now=int(self._clock()),
        )
        self._entries.append(token)

    def serialize(self) -> str:
        """Return the RFC 8785 form; raises a `MalformedError` if a reader would refuse it."""
        return self._envelope().canonical.decode()

    def to_envelope(self) -> Envelope:
        """Return the current content as a strict, frozen envelope; raises a `MalformedError`."""
        return self._envelope()

    def __repr__(self) -> str:
        return f"ATPEnvelope({self.message_id!r}, from {self.agent_identity.id!r})"

    def _begin(self, document: dict[str, Any], clock: Clock | None, key: PrivateKey | None) -> None:
        self._clock: Clock = clock or time.time
        self._key = key
        self.told_score: int | None = None  # the hub's score of the sender
        self.delivery: DeliveryFacts | None = None  # of a message that a hub delivered
        self._sender_keys = ()
        self._added_by: str | None = None
        self._delivered: tuple[str, str | None] | None = None
        self._load(document)

    def _load(self, document: dict[str, Any]) -> None:
        self._loaded = document
        self.version: str = document["version"]
        self.message_id: str = document["messageId"]
        self.agent_identity = IAgentIdentity.from_wire(document["agentIdentity"])
        level = document.get("trustLevel")
        self.trust_level = None if level is None else TrustLevel(level)
        context = document.get("policyContext")
        self.policy_context = None if context is None else IPolicyContext.from_wire(context)
        self.timestamp: str = document["timestamp"]
        self.payload: dict[str, Any] = document["payload"]
        self.signature: str | None = document.get("signature")
        self.trust_score: int | None = document.get("trustScore")
        self._entries: list[dict[str, Any] | str] = list(document.get("provenance", ()))

    def _document(self) -> dict[str, Any]:
        document = {
            "version": self.version,
            "messageId": self.message_id,
            "agentIdentity": self._part("agentIdentity", self.agent_identity),
            "trustLevel": None if self.trust_level is None else str(self.trust_level),
            "policyContext": self._part("policyContext", self.policy_context),
            "provenance": self._entries or None,
            "timestamp": self.timestamp,
            "payload": self.payload,
            "trustScore": self.trust_score,
            "signature": self.signature,
        }
        return {name: value for name, value in document.items() if value is not None}

    def _part(self, name: str, value: IAgentIdentity | IPolicyContext | None) -> Any:
        """Return the member as it was read, if unchanged: writing it anew may add defaults."""
        was = self._loaded.get(name)
        if value is None or (was is not None and type(value).from_wire(was) == value):
            return None if value is None else was
        return value.to_wire()

    def _envelope(self) -> Envelope:
        return envelope_from_value({"ATP": self._document()})

    def _verify(self, public_key: PublicKey | str | None) -> None:
        envelope = self._envelope()
        header = signature_header(envelope)
        keys = self._known_keys(public_key)
        if not keys:
            raise KeyUnknown("this process does not know the sender's key")
        key = next((key for key in keys if key.kid == header.kid), keys[0])
        audience = read_claims(envelope).get("aud")
        hub_id = audience[0] if isinstance(audience, list) and audience else ""
        verify_signature(envelope, key, hub_id=hub_id)

    def _known_keys(self, public_key: PublicKey | str | None) -> tuple[PublicKey, ...]:
        if isinstance(public_key, PublicKey):
            return (public_key,)
        if public_key is not None:
            return (DemoKey(public_key).public,)
        if self._delivered is not None:  # the client knows which keys count for the sender
            return self._sender_keys
        found = DIRECTORY.find(self.agent_identity.id)
        return self._sender_keys or (() if found is None else (found,))

    def _algorithm(self) -> str | None:
        if self.signature is None:
            return None
        try:
            alg = read_header(self.signature).alg
        except ATPError:
            return None
        return "EdDSA" if alg == "Ed25519" else alg

    def _signature_problems(self) -> Iterator[tuple[ATPError, bool]]:
        if self.signature is None:
            # README "Trust Levels": required of certified, recommended to verified agents.
            if self.trust_level is not None and self.trust_level >= TrustLevel.VERIFIED:
                serious = self.trust_level is TrustLevel.CERTIFIED
                yield SignatureMissing(f"a {self.trust_level} agent signs"), serious
            return
        try:
            self._verify(None)
        except ATPError as problem:
            vouched = isinstance(problem, KeyUnknown) and self._is_as_delivered()
            yield problem, not vouched

    def _is_as_delivered(self) -> bool:
        """Whether the signed part and the signature are those that the hub delivered."""
        envelope = self._envelope()
        return self._delivered == (envelope.digest, envelope.signature)

    def _attestation_problems(self) -> Iterator[tuple[ATPError, bool]]:
        attestation = self.agent_identity.attestation
        if attestation is None:
            yield AttestationMissing("the sender has no attestation in this process"), False
            return
        if not covers_now(attestation, now=self._clock()):
            yield AttestationExpired("the attestation's dates do not allow it now"), True
        if self.trust_level is not None and self.trust_level > attestation.level:
            yield TrustLevelTooLow(f"the attestation is for {attestation.level} only"), True


def _readable(entry: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(entry, dict):
        return dict(entry)
    claims = unverified_claims(entry)
    return {**claims.get("entry", {}), "agent": claims.get("iss")}
