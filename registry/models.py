"""All models of the registry, where Django looks for them. Each is defined with its concept."""

from registry.agents.models import Agent, AgentKey, EnrolmentToken, Organisation, Tag
from registry.attestations.models import Attestation
from registry.bulk.models import BulkDecision
from registry.exports.models import TrailExport
from registry.hub.models import Hub, HubKey
from registry.issuers.models import Issuer, IssuerKey
from registry.officers.models import ApiToken, SentForm
from registry.policies.models import Condition, Policy, PolicyVersion, Rule, RuleNotice
from registry.scores.models import Conduct, GoodTraffic, Score, ScoringProfile, Violation
from registry.trail.models import Entry, EntryBody, Erasure, LegalHold, Log, RefusalCount

__all__ = [
    "Agent",
    "AgentKey",
    "ApiToken",
    "Attestation",
    "BulkDecision",
    "Condition",
    "Conduct",
    "EnrolmentToken",
    "Entry",
    "EntryBody",
    "Erasure",
    "GoodTraffic",
    "Hub",
    "HubKey",
    "Issuer",
    "IssuerKey",
    "LegalHold",
    "Log",
    "Organisation",
    "Policy",
    "PolicyVersion",
    "RefusalCount",
    "Rule",
    "RuleNotice",
    "Score",
    "ScoringProfile",
    "SentForm",
    "Tag",
    "TrailExport",
    "Violation",
]
