"""The entries about sessions: opened, superseded, closed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.trail.actions import EntryDraft
from registry.trail.kinds import Kind

__all__ = ["closed_entry", "opened_entry", "superseded_entry"]


def opened_entry(
    agent: str, session: str, organisation: str, *, kid: str, address: str, send_only: bool
) -> EntryDraft:
    """Return the entry that a login with the key `kid` opened a session.

    `organisation` is the uid of the agent's organisation. The address may be a person's.
    """
    return _entry(
        Kind.SESSION_OPENED,
        agent,
        session,
        organisation,
        shared={"kid": kid, "sendOnly": True} if send_only else {"kid": kid},
        personal={"remoteAddress": address} if address else {},
    )


def superseded_entry(
    agent: str, session: str, organisation: str, *, by: str, live: bool
) -> EntryDraft:
    """Return the entry that the session `by` took the place of a session, which was `live` then."""
    said = {"by": by, "live": live}
    return _entry(Kind.SESSION_SUPERSEDED, agent, session, organisation, shared=said)


def closed_entry(agent: str, session: str, organisation: str, *, code: str) -> EntryDraft:
    """Return the entry that a session was closed with this code."""
    return _entry(Kind.SESSION_CLOSED, agent, session, organisation, shared={"code": code})


def _entry(
    kind: Kind,
    agent: str,
    session: str,
    organisation: str,
    *,
    shared: Mapping[str, Any],
    personal: Mapping[str, Any] | None = None,
) -> EntryDraft:
    return EntryDraft(
        kind=kind,
        actor=f"agent:{agent}",
        sender=agent,
        session=session,
        sender_organisation=organisation,
        organisations=(organisation,) if organisation else (),
        shared=shared,
        personal=personal or {},
    )
