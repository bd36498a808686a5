"""Users who read the trail over HTTP, and entries for them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import httpx
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import transaction

from registry.officers.actions import issue_api_token
from registry.officers.groups import AUDITORS, ensure_groups
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind
from tests.waits import LONGEST_SECONDS

PROVENANCE = "/api/v1/provenance/"


def fresh(name: str) -> str:
    """Return a name that no other test uses."""
    return f"{name}-{secrets.token_hex(5)}"


def add(*drafts: EntryDraft) -> int:
    with transaction.atomic():
        return append(drafts)


def note(**fields: Any) -> EntryDraft:
    return EntryDraft(**{"kind": Kind.ENVELOPE_ACCEPTED, **fields})


def person(*groups: str) -> Any:
    ensure_groups()
    user = get_user_model()._default_manager.create_user(fresh("person"))
    user.groups.set(Group.objects.filter(name__in=groups))
    return user


def token_of(user: Any) -> str:
    return issue_api_token(user, "tests", days=1).text


def reader(url: str, *groups: str, user: Any = None) -> httpx.Client:
    """Return a client with the token of a user in these groups; by default of an auditor."""
    user = user or person(*(groups or (AUDITORS,)))
    headers = {"Authorization": f"Token {token_of(user)}"}
    return httpx.Client(base_url=url, headers=headers, timeout=30)


def listed(client: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    answer = client.get(PROVENANCE, params=asked)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def problem(client: httpx.Client, path: str = PROVENANCE, **asked: Any) -> dict[str, Any]:
    """Return the errors of a request, by parameter."""
    answer = client.get(path, params=asked)
    assert answer.status_code == 400, answer.text
    errors: dict[str, Any] = answer.json()["errors"]
    return errors


def eventually(look: Callable[[], Any], what: str, *, seconds: float = LONGEST_SECONDS) -> Any:
    """Look again and again until there is something, and return it."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
    return found
