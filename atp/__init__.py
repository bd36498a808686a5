"""Agent Trust Protocol: the protocol core and the agent SDK."""

from atp.agent.frames import Notice, Receipt
from atp.attestations import VerifiedAttestation, issue_attestation, verify_attestation
from atp.client import ATPClient
from atp.envelope import (
    Envelope,
    VerifiedEnvelope,
    envelope_from_value,
    new_document,
    parse_envelope,
    sign_envelope,
    signature_header,
    verify_envelope,
)
from atp.envelope_shell import ATPEnvelope
from atp.errors import ATPError
from atp.keys import PrivateKey, PublicKey
from atp.provenance import AddedEntry, sign_entry, verify_entries
from atp.transports import InMemoryTransport, Transport, WebSocketTransport
from atp.types import (
    DataSensitivity,
    IAgentIdentity,
    IATPConfig,
    IATPResponse,
    IAttestation,
    IPolicyContext,
    IProvenanceEntry,
    ITransportConfig,
    ITransportMessage,
    IValidationResult,
    MessageType,
    TransportType,
    TrustLevel,
)

__all__ = [
    "ATPClient",
    "ATPEnvelope",
    "ATPError",
    "AddedEntry",
    "DataSensitivity",
    "Envelope",
    "IATPConfig",
    "IATPResponse",
    "IAgentIdentity",
    "IAttestation",
    "IPolicyContext",
    "IProvenanceEntry",
    "ITransportConfig",
    "ITransportMessage",
    "IValidationResult",
    "InMemoryTransport",
    "MessageType",
    "Notice",
    "PrivateKey",
    "PublicKey",
    "Receipt",
    "Transport",
    "TransportType",
    "TrustLevel",
    "VerifiedAttestation",
    "VerifiedEnvelope",
    "WebSocketTransport",
    "envelope_from_value",
    "issue_attestation",
    "new_document",
    "parse_envelope",
    "sign_entry",
    "sign_envelope",
    "signature_header",
    "verify_attestation",
    "verify_entries",
    "verify_envelope",
]
