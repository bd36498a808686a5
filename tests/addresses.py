"""Every address of the hub, read from its URL resolver, with the keys of rows that exist."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.urls import URLPattern, URLResolver, get_resolver

from atp.judging.policy import BASELINE
from messaging.models import BackgroundTask, Envelope, Mailbox, Node, Process, Session
from registry.models import (
    AgentKey,
    EnrolmentToken,
    Entry,
    Organisation,
    Score,
    ScoringProfile,
    Tag,
)
from registry.officers.actions import issue_api_token
from registry.officers.engagements import begin_engagement
from registry.officers.models import ApiToken, Person
from registry.policies.actions import save_policy
from registry.policies.models import Policy, RuleNotice
from registry.scores.actions import recompute
from tests.registry.agent_cast import OFFICER, active, attest, issuer
from tests.registry.score_cast import violate


@dataclass(frozen=True, slots=True)
class Address:
    """An address of the resolver: its route, and what is put into it for a row that exists."""

    route: str
    parts: Mapping[str, str]

    @property
    def path(self) -> str:
        return self.filled()

    def filled(self, **others: str) -> str:
        """The path, with some of its parts in place of those of the row."""
        return _fill(self.route, {**self.parts, **others})


@dataclass(frozen=True, slots=True)
class World:
    """At least one row of every model that has a page, by the model's label."""

    rows: Mapping[str, Any]

    def key(self, label: str) -> str:
        return quote(str(self.rows[label].pk)) if self.rows.get(label) else "1"


def furnish() -> World:
    """Make rows of this world's own, so that what happens to them disturbs no other test."""
    organisation = Organisation.objects.create(name=_fresh("Org"))
    tag = Tag.objects.create(name=_fresh("tag"))
    enrolled = active(organisation=organisation, tags=[tag.name])
    agent = enrolled.row.agent
    own = issuer()
    now = datetime.now(UTC)
    user = get_user_model()._default_manager.create_user(_fresh("walked"), is_staff=True)
    node = Node.objects.create(
        id=uuid.uuid4(), name="n", channel="c", started_at=now, lease_until=now, stopped_at=now
    )
    attestation = attest(agent.pk, own)
    recompute([agent.pk], "walk")
    issue_api_token(user, "walk", days=1)
    former = get_user_model()._default_manager.create_user(_fresh("former"), is_active=False)
    begun = begin_engagement(
        _fresh("auditor"), organisations=[organisation.uid], everything=False, begins_at=now,
        ends_at=now + timedelta(days=1), actor=OFFICER,
    )  # fmt: skip
    return World(
        {
            "registry.agent": agent,
            "registry.agentkey": AgentKey.objects.get(pk=enrolled.row.pk),
            "registry.enrolmenttoken": EnrolmentToken.objects.get(agent=agent),
            "registry.organisation": organisation,
            "registry.tag": tag,
            "registry.attestation": attestation,
            "registry.issuer": own,
            "registry.issuerkey": own.keys.get(),
            "registry.apitoken": ApiToken.objects.get(user=user),
            "registry.policy": _policy(),
            "registry.rulenotice": RuleNotice.objects.create(
                policy="p", rule=_fresh("r"), sender=agent.pk, recipient="b", message_id="m",
                count=1, first_at=now, last_at=now,
            ),
            "registry.score": Score.objects.filter(agent=agent).latest("pk"),
            "registry.scoringprofile": ScoringProfile.objects.first(),
            "registry.violation": violate(agent, "low"),
            "registry.entry": Entry.objects.latest("position"),
            "registry.person": Person.objects.get(account=former),
            "registry.engagement": begun.row,
            "auth.user": user,
            "auth.group": Group.objects.create(name=_fresh("Group")),
            "messaging.node": node,
            "messaging.session": Session.objects.create(
                id=uuid.uuid4(), agent=agent, node=node, kid="k", opened_at=now, closed_at=now
            ),
            "messaging.mailbox": Mailbox.objects.create(agent=agent, stream="mail"),
            "messaging.process": Process.objects.create(
                kind="beat", name=_fresh("b"), started_at=now, seen_at=now, stopped_at=now
            ),
            "messaging.backgroundtask": BackgroundTask.objects.get_or_create(
                name="messaging.tasks.sweep"
            )[0],
            "messaging.envelope": Envelope.objects.create(
                sender=agent, message_id=str(uuid.uuid4()), digest="d", kid="k", target="b",
                message_type="notification", sensitivity="public", status="denied", score=1,
                judged_at=now, expires_at=now + timedelta(days=1), batch_id="b", size=2,
                content=b"{}",
            ),
        }
    )  # fmt: skip


def _policy() -> Policy:
    """One that is off: it decides nothing in other tests."""
    document = {**BASELINE[0], "name": _fresh("Policy"), "mode": "off"}
    return save_policy(document, actor=OFFICER, reason="walked")


def addresses(world: World) -> list[Address]:
    """All of them, in the resolver's order."""
    return [_address(route, world) for route in _routes(get_resolver())]


def admin_addresses(world: World) -> list[Address]:
    return [each for each in addresses(world) if each.route.startswith("admin/")]


def lists(world: World) -> list[str]:
    """The labels of the models that have a list in the admin."""
    return [model._meta.label_lower for model in admin.site._registry]


def _routes(resolver: URLResolver, before: str = "") -> Iterator[str]:
    for each in resolver.url_patterns:
        if isinstance(each, URLResolver):
            yield from _routes(each, before + str(each.pattern))
        elif isinstance(each, URLPattern):
            yield before + str(each.pattern)


def _address(route: str, world: World) -> Address:
    about = ".".join(route.split("/")[1:3])
    parts = {
        "<path:object_id>": world.key(about),
        "<str:object_id>": world.key(about),
        "<id>": world.key(about),
        "<str:kid>": world.key(
            "registry.issuerkey" if "/issuer/" in route else "registry.agentkey"
        ),
        "<str:agent_id>": world.key("registry.agent"),
        "<str:pk>": world.key("registry.agent"),
        "<slug:slug>": world.rows["registry.issuer"].slug,
        "<int:index>": world.key("registry.entry"),
        "<path:content_type_id>": str(ContentType.objects.get_for_model(Policy).pk),
        "^(?P<app_label>registry|auth|messaging)/$": "registry/",
        "<str:pseudonym>": world.rows["registry.person"].pseudonym,
        "<str:secret>": "no-such-link",
        "<str:name>": "no-such-export",
        "(?P<url>.*)$": "no/such/page",
    }
    parts = {slot: part for slot, part in parts.items() if slot in route}
    if route.startswith("admin/r/"):
        parts["<path:object_id>"] = world.key("registry.policy")
    return Address(route, {_name(slot): part for slot, part in parts.items()})


SLOTS = {
    "object_id": ("<path:object_id>", "<str:object_id>"),
    "id": ("<id>",),
    "kid": ("<str:kid>",),
    "agent_id": ("<str:agent_id>",),
    "pk": ("<str:pk>",),
    "slug": ("<slug:slug>",),
    "index": ("<int:index>",),
    "content_type_id": ("<path:content_type_id>",),
    "app_label": ("^(?P<app_label>registry|auth|messaging)/$",),
    "pseudonym": ("<str:pseudonym>",),
    "secret": ("<str:secret>",),
    "name": ("<str:name>",),
    "url": ("(?P<url>.*)$",),
}


def _name(slot: str) -> str:
    return next(name for name, slots in SLOTS.items() if slot in slots)


def _fill(route: str, parts: Mapping[str, str]) -> str:
    for name, part in parts.items():
        for slot in SLOTS[name]:
            route = route.replace(slot, part)
    assert "<" not in route, f"{route}: give a value for this part in tests/addresses.py"
    return f"/{route}"


def _fresh(name: str) -> str:
    return f"{name}-{secrets.token_hex(5)}"
