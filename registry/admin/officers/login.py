"""Signing in to the admin: entered in the trail, and slowed down for clients that guess passwords.

Failures are counted by account name and by where they come from, so that whoever guesses an
officer's password keeps nobody out but themselves. Guesses from many addresses are bounded for the
name as a whole, and the more so the longer they go on; a browser in which this officer has signed
in before is not part of that (OWASP, "Slow Down Online Guessing Attacks with Device Cookies").

Hashing a password is dear, so strangers are counted before it: so many of one network at a time,
and so many failures of one network in a minute over all names. A known browser passes both, and
its password is hashed before those of strangers (`registry.officers.hashing`).
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from registry.admin.officers.door import MOST_UNDER_WAY, Door
from registry.change import registry_change
from registry.officers.actor import Actor
from registry.officers.hashing import HashingBusy, Turn, turn
from registry.trail.actions import EntryDraft, count_refusals
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount

MOST_FAILURES = 5  # from one place for one account name in a minute; OWASP ASVS 5.0, 6.3.1
MOST_OF_NETWORK = 30  # failures in a minute, of one network over all names
MOST_ANYWHERE = 40  # for one name, wherever from; half of it after each minute with failures ...
FEWEST_ANYWHERE = 2  # ... of the last hour, down to this
REMEMBERED = timedelta(hours=1)
IPV6_NETWORK_BITS = 64  # what one customer has; single addresses cost them nothing
KNOWN_BROWSER_SECONDS = 180 * 86_400
NAME_HEX_CHARS = 12
_DOMAIN = b"atp account name\0"
BUSY = "Too many people are signing in right now. Wait a moment, go back and try again."
door = Door(MOST_UNDER_WAY)
_BROWSERS = signing.TimestampSigner(salt="atp known browser")


class OfficerLoginForm(AdminAuthenticationForm):
    """Django's own form, which also remembers who came and who was turned away.

    Names that nobody has are treated as those that somebody has: the answer tells no one which
    accounts exist. What was typed is kept as a keyed hash only, as it may well be a password.
    """

    def clean(self) -> dict[str, Any]:
        if not {"username", "password"} <= self.cleaned_data.keys():
            return self.cleaned_data  # the form says beside the field what is missing
        name = account_name(str(self.cleaned_data["username"]))
        browser = _known_browser(self.request, name)
        place = f"{name}:{_hashed(name + (browser or _network(self.request)))}"
        network = "" if browser else network_name(_network(self.request))
        if network and _failures_of(network) >= MOST_OF_NETWORK:
            raise ValidationError(
                "Too many failed attempts from your network. Wait a minute and try again."
            )
        if _failures_of(place) >= MOST_FAILURES or not (browser or _has_room(name)):
            raise ValidationError(
                "Too many failed attempts for this account. Wait a minute and try again."
            )
        try:
            with _hashing_as(Turn.KNOWN_BROWSER if browser else Turn.STRANGER):
                cleaned: dict[str, Any] = super().clean()
        except ValidationError:
            _note_failure(*filter(None, (name, place, network)))
            raise
        except HashingBusy as exc:
            raise ValidationError(BUSY) from exc
        _enter_login(self.get_user())
        return cleaned


def officer_login(request: HttpRequest) -> HttpResponseBase:
    """The admin's own page; a browser in which somebody signs in is known for that account."""
    if request.method != "POST" or _known_browser(request, _typed_account(request)):
        return _login(request)
    with door.entering(_network(request)) as admitted:
        return _login(request) if admitted else _too_many()


def _login(request: HttpRequest) -> HttpResponseBase:
    response: HttpResponseBase = admin.site.login(request)
    if request.method == "POST" and request.user.is_authenticated:
        name = account_name(request.user.get_username())
        response.set_cookie(
            _cookie(),
            _BROWSERS.sign(f"{name}:{secrets.token_hex(8)}"),
            max_age=KNOWN_BROWSER_SECONDS,
            path=reverse("admin:login"),
            secure=bool(settings.SESSION_COOKIE_SECURE),
            httponly=True,
            samesite="Strict",
        )
    return response


def account_name(typed: str) -> str:
    """What an account's name, or what was typed in its place, is counted under."""
    return f"login:{_hashed(typed)}"


def _typed_account(request: HttpRequest) -> str:
    """What the form of a request names, as the form would read it."""
    return account_name(str(request.POST.get("username", "")).strip())


def _too_many() -> HttpResponse:
    """A short answer, made without a template: there may be very many of them."""
    return HttpResponse(
        BUSY, status=429, content_type="text/plain; charset=utf-8", headers={"Retry-After": "5"}
    )


@contextmanager
def _hashing_as(whose: Turn) -> Iterator[None]:
    before = turn.set(whose)
    try:
        yield
    finally:
        turn.reset(before)


def network_name(network: str) -> str:
    """What the failures of a network are counted under, whatever names it tries."""
    return f"login-from:{_hashed(network)}"


def _known_browser(request: HttpRequest | None, name: str) -> str:
    """Which browser it is, where the account of that hashed name was signed in to; else ""."""
    signed = request.COOKIES.get(_cookie(), "") if request else ""
    try:
        known: str = _BROWSERS.unsign(signed, max_age=KNOWN_BROWSER_SECONDS)
    except signing.BadSignature:
        return ""
    return known if known.startswith(f"{name}:") else ""


def _cookie() -> str:
    return f"{settings.SESSION_COOKIE_NAME}_known"


def _network(request: HttpRequest | None) -> str:
    """The caller's address, as far as it says who that is."""
    text = str(request.META.get("REMOTE_ADDR", "")) if request else ""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(int(address) >> (address.max_prefixlen - IPV6_NETWORK_BITS))
    return text


def _failures_of(who: str) -> int:
    """Failed attempts in this minute, of a hashed name or from one place for it."""
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    rows = RefusalCount.objects.filter(agent=who, code=Kind.ADMIN_DENIED, minute=minute)
    return rows.aggregate(n=Sum("count"))["n"] or 0


def _has_room(name: str) -> bool:
    """Whether one more unknown browser may guess, as often as others have lately."""
    since = datetime.now(UTC) - REMEMBERED
    summaries = Entry.objects.filter(kind=Kind.REFUSALS_COUNTED, sender=name, time__gt=since)
    most = MOST_ANYWHERE >> min(summaries.count(), MOST_ANYWHERE.bit_length())
    return _failures_of(name) < max(FEWEST_ANYWHERE, most)


def _note_failure(*counted: str) -> None:
    counts = {(who, str(Kind.ADMIN_DENIED)): 1 for who in counted}
    with transaction.atomic():
        count_refusals(counts, datetime.now(UTC))


def _enter_login(user: Any) -> None:
    actor = Actor.of_user(user)
    with registry_change(actor, moves_epoch=False) as change:
        change.enter(EntryDraft(kind=Kind.ADMIN_LOGIN, actor=actor.name, subject=actor.name))


def _hashed(text: str) -> str:
    digest = hmac.new(settings.ATP_KEY_ENCRYPTION_KEY, _DOMAIN + text.encode(), sha256)
    return digest.hexdigest()[:NAME_HEX_CHARS]
