"""Agent Trust Protocol: the protocol core and the agent SDK."""

from atp.agent.outcomes import Reject, Retry
from atp.client import ATPClient
from atp.envelope_shell import ATPEnvelope
from atp.errors import ATPError
from atp.memory.transport import InMemoryTransport
from atp.transports import Transport, WebSocketTransport
from atp.trust.attestations import VerifiedAttestation, issue_attestation, verify_attestation
from atp.trust.envelope import (
    Envelope,
    VerifiedEnvelope,
    envelope_from_value,
    new_document,
    parse_envelope,
    sign_envelope,
    signature_header,
    verify_envelope,
)
from atp.trust.keys import PrivateKey, PublicKey
from atp.trust.provenance import AddedEntry, sign_entry, verify_entries
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
from atp.version import VERSION as __version__
from atp.wire.frames import Notice, Receipt

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
    "Reject",
    "Retry",
    "Transport",
    "TransportType",
    "TrustLevel",
    "VerifiedAttestation",
    "VerifiedEnvelope",
    "WebSocketTransport",
    "__version__",
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
