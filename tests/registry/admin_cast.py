"""Officers at the admin, through Django's own test client."""

from __future__ import annotations

import secrets
from html import unescape
from html.parser import HTMLParser
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

HIDDEN = "made_from"  # what a form was made from


class Browser(Client):
    """Django's client, which opens a form before it sends it, as a browser does.

    It adds the hidden field of the officers' forms, unless the values have it.
    """

    def post(self, path: Any, data: Any = None, *args: Any, **extra: Any) -> Any:
        values = {} if data is None else data
        if isinstance(values, dict) and HIDDEN not in values and path.startswith("/admin/"):
            page = self.get(path)
            made_from = form_of(page).get(HIDDEN) if page.status_code == 200 else None
            values = values if made_from is None else {**values, HIDDEN: made_from}
        return super().post(path, values, *args, **extra)


def officer_client(*, superuser: bool = True, permissions: tuple[str, ...] = ()) -> Client:
    """Return a logged-in client of a new officer with these permissions of the registry."""
    users = get_user_model()._default_manager
    user = users.create_user(f"olive-{secrets.token_hex(6)}", is_staff=True, is_superuser=superuser)
    user.user_permissions.set(
        Permission.objects.filter(content_type__app_label="registry", codename__in=permissions)
    )
    client = Browser(HTTP_HOST="localhost")
    client.force_login(user)
    return client


def text_of(response: Any) -> str:
    assert response.status_code == 200
    return unescape(response.content.decode())


def form_of(response: Any) -> dict[str, str]:
    values = _Form(response.content.decode()).values
    values.pop("", None)
    return values


class _Form(HTMLParser):
    """Return the fields of the page's forms, as a browser without scripts sends them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self._select = ""
        self._textarea = ""
        self._templates = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._templates += tag == "template"
        if self._templates:
            return
        if tag == "input" and given.get("type") not in ("submit", "checkbox"):
            self.values[given.get("name", "")] = given.get("value", "")
        if tag == "input" and given.get("type") == "checkbox" and "checked" in given:
            self.values[given["name"]] = "on"
        if tag == "select":
            self._select = given["name"]
            self.values[self._select] = ""
        if tag == "option" and "selected" in given:
            self.values[self._select] = given["value"]
        self._textarea = given["name"] if tag == "textarea" else ""

    def handle_endtag(self, tag: str) -> None:
        self._templates -= tag == "template"
        self._textarea = ""

    def handle_data(self, data: str) -> None:
        if self._textarea:
            self.values[self._textarea] = data.strip()
