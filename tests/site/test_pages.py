"""What every page of the hub has in common, asked of a live one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

if TYPE_CHECKING:
    from tests.conftest import LiveHub

PAGES = ["/admin/login/", "/api/docs/", "/healthz"]


def test_it_says_that_it_lives_and_is_ready(hub: LiveHub) -> None:
    assert httpx.get(f"{hub.url}/healthz").json() == {"status": "ok"}
    ready = httpx.get(f"{hub.url}/readyz")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "failed": []})


@pytest.mark.parametrize("page", PAGES)
def test_it_protects_every_page(page: str, hub: LiveHub) -> None:
    headers = httpx.get(hub.url + page).headers
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe-inline" not in headers["Content-Security-Policy"].split("style-src")[0]
    assert ("unsafe-inline" in headers["Content-Security-Policy"]) == (page == "/api/docs/")
    assert "geolocation=()" in headers["Permissions-Policy"]
    assert "server" not in headers


@pytest.mark.parametrize("page", ["/admin/login/", "/api/docs/"])
def test_it_fetches_nothing_from_elsewhere(page: str, hub: LiveHub) -> None:
    html = httpx.get(hub.url + page).text
    assets = re.findall(r'<(?:script|link|img)[^>]+?(?:src|href)="([^"]+)"', html)
    assert assets
    for asset in assets:
        if asset.startswith("data:"):
            continue
        url = urljoin(hub.url + page, asset.replace("&amp;", "&"))
        assert urlsplit(url).netloc == urlsplit(hub.url).netloc, asset
        assert httpx.get(url).status_code == 200, asset


def test_it_serves_the_schema_of_the_api(hub: LiveHub) -> None:
    schema = httpx.get(f"{hub.url}/api/schema/", headers={"Accept": "application/json"})
    assert schema.status_code == 200
    assert schema.json()["openapi"].startswith("3.")


def test_it_sets_cookies_that_scripts_and_other_sites_cannot_use(hub: LiveHub) -> None:
    cookie = httpx.get(f"{hub.url}/admin/login/").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_rejects_another_host(hub: LiveHub) -> None:
    answer = httpx.get(f"{hub.url}/admin/login/", headers={"Host": "evil.example"})
    assert answer.status_code == 400
    assert "evil" not in answer.text


def test_it_shows_no_traceback(hub: LiveHub) -> None:
    answer = httpx.get(f"{hub.url}/no/such/page")
    assert answer.status_code == 404
    assert "Traceback" not in answer.text
    assert "urlpatterns" not in answer.text
