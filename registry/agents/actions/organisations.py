"""Actions on organisations, and on the tags that policy rules can test."""

from __future__ import annotations

import re
from collections.abc import Mapping

from atp.errors import MalformedDocument
from registry.agents.models import Organisation, Tag
from registry.change import registry_change
from registry.officers.actor import Actor
from registry.officers.reason import check_reason
from registry.plain_text import check_text
from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

NAME_MAX_CHARS = 120  # length of the column
CONTACT_MAX_CHARS = 200
TAG = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


def create_organisation(name: str, *, actor: Actor, contact: str = "") -> Organisation:
    """Create an organisation.

    Raises `MalformedDocument` if the name is empty, a text is too long or the name is taken. Two
    names that differ only in upper and lower case count as the same.
    """
    name, contact = _checked(name, contact)
    with registry_change(actor) as change:
        _check_free(name)
        row = Organisation.objects.create(name=name, contact=contact)
        after = {"uid": row.uid, "name": name, "contact": contact}
        change.enter(_draft(Kind.ORGANISATION_CREATED, row, actor, {"after": after}))
    return row


def change_organisation(
    organisation_id: int, *, name: str, contact: str, actor: Actor, reason: str
) -> Organisation:
    """Change the name and the contact of an organisation; entries keep the old name.

    Raises `MalformedDocument` as `create_organisation` does.
    """
    name, contact = _checked(name, contact)
    reason = check_reason(reason)
    with registry_change(actor) as change:
        row = Organisation.objects.select_for_update(no_key=True).get(pk=organisation_id)
        _check_free(name, besides=row)
        before = {"name": row.name, "contact": row.contact}
        row.name, row.contact = name, contact
        row.save(update_fields=["name", "contact"])
        body = {"before": before, "after": {"name": name, "contact": contact}, "reason": reason}
        change.enter(_draft(Kind.ORGANISATION_CHANGED, row, actor, body))
    return row


def create_tag(name: str, *, actor: Actor) -> Tag:
    """Create a tag. Raises `MalformedDocument` if it exists already or its name is malformed."""
    with registry_change(actor) as change:
        if Tag.objects.filter(name=name).exists():
            raise MalformedDocument(f"there is a tag '{name}' already", field="name")
        tags, drafts = add_missing_tags([name], actor=actor)
        change.enter(*drafts)
    return tags[0]


def add_missing_tags(names: list[str], *, actor: Actor) -> tuple[list[Tag], list[EntryDraft]]:
    """Return the tags with these names and the entries to append; create tags that are missing.

    Call it inside a `registry_change` that moves the epoch. Raises `MalformedDocument` if a name
    is malformed.
    """
    for name in names:
        if TAG.fullmatch(name) is None:
            raise MalformedDocument(
                "a tag has 1 to 60 lower-case letters, digits, hyphens and underscores",
                field="tags",
            )
    known = {tag.name for tag in Tag.objects.filter(name__in=names)}
    missing = sorted(set(names) - known)
    Tag.objects.bulk_create(Tag(name=name) for name in missing)
    drafts = [EntryDraft(Kind.TAG_CREATED, actor=actor.name, subject=name) for name in missing]
    return list(Tag.objects.filter(name__in=names)), drafts


def _checked(name: str, contact: str) -> tuple[str, str]:
    name, contact = check_text(name, "name"), check_text(contact, "contact")
    if not 1 <= len(name) <= NAME_MAX_CHARS or len(contact) > CONTACT_MAX_CHARS:
        raise MalformedDocument(
            f"an organisation has a name of 1 to {NAME_MAX_CHARS} characters and a contact of at"
            f" most {CONTACT_MAX_CHARS}"
        )
    return name, contact


def _check_free(name: str, *, besides: Organisation | None = None) -> None:
    others = Organisation.objects.exclude(pk=besides.pk) if besides else Organisation.objects
    if others.filter(name__iexact=name).exists():
        raise MalformedDocument(f"there is an organisation '{name}' already", field="name")


def _draft(kind: Kind, row: Organisation, actor: Actor, body: Mapping[str, object]) -> EntryDraft:
    return EntryDraft(
        kind=kind, actor=actor.name, subject=row.name, organisations=(row.uid,), shared=body
    )
