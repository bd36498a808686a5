"""The compliance officer: signs in to the admin, reads its pages and fills in its forms.

It uses HTTP only, as a person with a browser does. It has no access to the hub's code or database.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urljoin

import httpx

from examples.story.pages import Page, read_page
from examples.story.voice import StoryError

__all__ = ["Officer"]

HTTP_SECONDS: Final = 30.0
TOKEN: Final = re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])")  # 256 bits


class Officer:
    """A person with an account on the hub; each method uses one or two pages of the admin.

    Every method raises `StoryError` if a page shows an error or is not as expected.
    """

    def __init__(self, hub_url: str) -> None:
        self._http = httpx.Client(
            base_url=hub_url,
            timeout=HTTP_SECONDS,
            follow_redirects=True,
            trust_env=False,  # no proxy reads what stays on this machine
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def sign_in(self, name: str, password: str) -> None:
        """Sign in. Raises `StoryError` if name or password is wrong."""
        self._press("/admin/login/?next=/admin/", "Log in", username=name, password=password)

    def add_organisation(self, name: str) -> None:
        """Add an organisation."""
        self._press("/admin/registry/organisation/add/", "Add", name=name)

    def register(self, agent: str, *, organisation: str, owner: str, **more: Any) -> None:
        """Register an agent; `more` has further fields of the form."""
        self._press(
            "/admin/registry/agent/add/",
            "Register",
            id=agent,
            organisation=organisation,
            owner_name=owner,
            **more,
        )

    def issue_token(self, agent: str) -> str:
        """Issue a one-time token; return it from the page, which shows it once."""
        page = self._press(f"{_agent_url(agent)}invite/", "Issue the token")
        found = TOKEN.search(page.text)
        if found is None:
            raise StoryError(f"the page shows no enrolment token for {agent}")
        return found.group()

    def approve(self, agent: str, *, read_out: str) -> None:
        """Approve the waiting key. Raises `StoryError` if its fingerprint is not `read_out`."""
        address = self._look(f"{_agent_url(agent)}change/").link_ending("/approve/")
        if address is None:
            raise StoryError(f"no key of {agent} waits to be approved")
        if read_out not in self._look(address).text:
            raise StoryError(f"the fingerprint of {agent} is not the one that was read out")
        self._press(address, "Approve this key", compared="on")

    def attest(self, agent: str, level: str, capabilities: Sequence[str]) -> None:
        """Attest an agent for 30 days, by the first issuer that may vouch for this much."""
        address, names = f"{_agent_url(agent)}attest/", "\n".join(capabilities)
        form = self._look(address).form_with("Attest")
        issuers = list(form.choices.get("issuer", {}).values()) if form else []
        refused = StoryError(f"{address} offers no issuer")
        for issuer in filter(None, issuers):
            try:
                self._press(
                    address, "Attest", issuer=issuer, level=level, capabilities=names, days="30"
                )
            except StoryError as problem:
                refused = problem
            else:
                return
        raise refused

    def attest_as_offered(self, agent: str) -> None:
        """Attest an agent with the values that the form suggests."""
        self._press(f"{_agent_url(agent)}attest/", "Attest")

    def suspend(self, agent: str, *, reason: str) -> None:
        """Suspend an agent."""
        self._press(f"{_agent_url(agent)}suspend/", "Suspend", reason=reason)

    def resume(self, agent: str, *, reason: str) -> None:
        """Resume a suspended agent."""
        self._press(f"{_agent_url(agent)}resume/", "Resume", reason=reason)

    def revoke(self, agent: str, *, reason: str) -> None:
        """Revoke an agent for good."""
        self._press(f"{_agent_url(agent)}revoke/", "Revoke for good", reason=reason)

    def read_trail(self, parameters: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return the entries of all pages of `GET /api/v1/provenance/`.

        The API takes the session of the admin.
        """
        entries: list[dict[str, Any]] = []
        address: str | None = f"/api/v1/provenance/?{httpx.QueryParams(list(parameters))}"
        while address:
            page = self._json(address)
            entries += page["results"]
            address = page["next"]
        return entries

    def trail_size(self) -> int:
        """Return how many entries the trail has."""
        return int(self._json("/api/v1/provenance/?limit=1")["logSize"])

    def _json(self, address: str) -> dict[str, Any]:
        answer = self._http.get(address)
        if answer.status_code != httpx.codes.OK:
            raise StoryError(f"{address} answers {answer.status_code}: {answer.text[:200]}")
        content: dict[str, Any] = answer.json()
        return content

    def _look(self, address: str) -> Page:
        answer = self._http.get(address)
        page = read_page(str(answer.url), answer.status_code, answer.text)
        if answer.status_code != httpx.codes.OK:
            raise StoryError(f"{address} answers {answer.status_code}")
        return page

    def _press(self, address: str, button: str, **values: str) -> Page:
        """Open a page, fill in its form, press a button and return the next page."""
        page = self._look(address)
        form = page.form_with(button)
        if form is None:
            raise StoryError(f"{address} has no button “{button}”")
        filled: dict[str, Any] = {**form.values, **_chosen(form.choices, values)}
        target = urljoin(page.url, form.action) if form.action else page.url
        answer = self._http.post(target, data=filled, headers={"Referer": page.url})
        after = read_page(str(answer.url), answer.status_code, answer.text)
        if after.errors or answer.status_code != httpx.codes.OK:
            raise StoryError(f"{address}, “{button}”: {_complaint(after)}")
        return after


def _agent_url(agent: str) -> str:
    return f"/admin/registry/agent/{agent}/"


def _chosen(
    choices: Mapping[str, Mapping[str, str]], values: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the values to send, with the labels of choices replaced by their values."""
    return {name: choices.get(name, {}).get(value, value) for name, value in values.items()}


def _complaint(page: Page) -> str:
    return "; ".join(page.errors) or f"it answers {page.status}"
