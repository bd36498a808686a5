"""The closed list of kinds of entries (docs/design/provenance.md#entry)."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """A kind of entry, named `subject.event`.

    Auditors filter by these names, so a name never changes its meaning.
    """

    LOG_STARTED = "log.started"
    LOG_GAP = "log.gap"
    HUB_CLOCK = "hub.clock"
    HUB_KEY_ROTATED = "hub.key_rotated"
    HUB_KEYS_RESEALED = "hub.keys_resealed"

    ENVELOPE_ACCEPTED = "envelope.accepted"
    ENVELOPE_DENIED = "envelope.denied"
    ENVELOPE_WITHHELD = "envelope.withheld"
    ENVELOPE_RELEASED = "envelope.released"
    ENVELOPE_EXPIRED = "envelope.expired"
    ENVELOPE_POISONED = "envelope.poisoned"
    DELIVERY_PLACED = "delivery.placed"
    DELIVERY_ACKNOWLEDGED = "delivery.acknowledged"
    DELIVERY_REFUSED = "delivery.refused"
    DELIVERY_REDELIVERED = "delivery.redelivered"
    REFUSALS_COUNTED = "refusals.counted"

    SESSION_OPENED = "session.opened"
    SESSION_CLOSED = "session.closed"
    SESSION_SUPERSEDED = "session.superseded"

    ORGANISATION_CREATED = "organisation.created"
    ORGANISATION_CHANGED = "organisation.changed"
    TAG_CREATED = "tag.created"
    AGENT_CREATED = "agent.created"
    AGENT_CHANGED = "agent.changed"
    AGENT_INVITED = "agent.invited"
    AGENT_ENROLLED = "agent.enrolled"
    AGENT_APPROVED = "agent.approved"
    AGENT_SUSPENDED = "agent.suspended"
    AGENT_RESTORED = "agent.restored"
    AGENT_REVOKED = "agent.revoked"
    KEY_ADDED = "key.added"
    KEY_APPROVED = "key.approved"
    KEY_REFUSED = "key.refused"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"

    ISSUER_CREATED = "issuer.created"
    ISSUER_CHANGED = "issuer.changed"
    ISSUER_SUSPENDED = "issuer.suspended"
    ISSUER_RESTORED = "issuer.restored"
    ISSUER_REVOKED = "issuer.revoked"
    ATTESTATION_ISSUED = "attestation.issued"
    ATTESTATION_VERIFIED = "attestation.verified"
    ATTESTATION_RENEWED = "attestation.renewed"
    ATTESTATION_EXPIRED = "attestation.expired"
    ATTESTATION_REVOKED = "attestation.revoked"

    POLICY_STATED = "policy.stated"
    POLICY_CREATED = "policy.created"
    POLICY_CHANGED = "policy.changed"
    NOTIFICATION_SEEN = "notification.seen"
    PROFILE_STATED = "profile.stated"
    PROFILE_CHANGED = "profile.changed"
    SCORE_CHANGED = "score.changed"
    VIOLATION_RECORDED = "violation.recorded"
    VIOLATION_CLOSED = "violation.closed"
    VIOLATION_ANNULLED = "violation.annulled"

    ADMIN_LOGIN = "admin.login"
    ADMIN_DENIED = "admin.denied"
    OFFICER_CREATED = "officer.created"
    OFFICER_CHANGED = "officer.changed"
    OFFICER_PASSWORD_CHANGED = "officer.password_changed"  # noqa: S105  # a kind of entry
    OFFICER_DELETED = "officer.deleted"
    GROUP_CREATED = "group.created"
    GROUP_CHANGED = "group.changed"
    GROUP_DELETED = "group.deleted"
    TOKEN_ISSUED = "token.issued"  # noqa: S105  # a kind of entry
    TOKEN_CHANGED = "token.changed"  # noqa: S105  # a kind of entry
    TOKEN_REVOKED = "token.revoked"  # noqa: S105  # a kind of entry
    TOKEN_DELETED = "token.deleted"  # noqa: S105  # a kind of entry
    ENGAGEMENT_BEGUN = "engagement.begun"
    ENGAGEMENT_OPENED = "engagement.opened"
    ENGAGEMENT_ENDED = "engagement.ended"
    PERSON_NAMED = "person.named"
    PERSON_ERASED = "person.erased"
    TRAIL_QUERIED = "trail.queried"
    TRAFFIC_READ = "traffic.read"
    EXPORT_CREATED = "export.created"
    EXPORT_ENDED = "export.ended"
    RETENTION_ERASED = "retention.erased"
    RETENTION_HELD = "retention.held"
    RETENTION_RELEASED = "retention.released"
    TASK_REQUESTED = "task.requested"

    @property
    def about(self) -> str:
        """Return the part before the dot, such as `agent`."""
        return self.value.partition(".")[0]


# The verdicts in entries: on an envelope, and on a delivery that ended otherwise than by an ack.
VERDICTS = (
    "accepted",
    "denied",
    "withheld",
    "released",
    "expired",
    "refused",
    "redelivered",
    "invalid",
)


def kinds_named(text: str) -> list[Kind]:
    """Return the kind with this name, or all kinds of `subject.*`; empty if there is none."""
    return [kind for kind in Kind if text in (kind.value, f"{kind.about}.*")]
