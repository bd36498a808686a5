"""Signing in to the admin: entered in the trail, and limited for clients that guess passwords.

Failures are counted by account name and by client (a network address or a known browser). So a
client that guesses an officer's password locks out only itself. Guesses from many addresses have a
limit for each name, which falls while the guessing goes on. This limit does not apply to a browser
in which the officer has signed in before (OWASP, "Slow Down Online Guessing Attacks with Device
Cookies").

Hashing a password is expensive, so there are limits before it: on the sign-ins of one network at a
time, and on the failures of one network in a minute over all names. A known browser passes both,
and its password is hashed before those of strangers (`registry.officers.hashing`). It has a limit
of its own, on the sign-ins of its account at a time. A new password makes all browsers of the
account unknown again, because whoever knew the old one may have one.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from typing import Any

from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth import get_user_model
from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Sum
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse

from registry.admin.officers.sign_in_limit import MOST_UNDER_WAY, SignInLimit
from registry.change import registry_change
from registry.officers.actor import Actor
from registry.officers.hashing import HashingBusy, HashingPriority, hashing_priority
from registry.trail.actions import EntryDraft, count_refusals
from registry.trail.kinds import Kind
from registry.trail.models import Entry, RefusalCount, RefusedSignIn
from registry.trail.refused_sign_ins import note_refused_sign_in

MOST_FAILURES = 5  # by one client for one account name in a minute; OWASP ASVS 5.0, 6.3.1
MOST_OF_NETWORK = 30  # failures of one network in a minute, over all names
MOST_ANYWHERE = 40  # for one name by all clients in a minute; each minute with failures halves it
FEWEST_ANYWHERE = 2  # the lowest value of that limit
REMEMBERED = timedelta(hours=1)
IPV6_NETWORK_BITS = 64  # one customer has a whole /64, so single addresses are not counted
KNOWN_BROWSER_SECONDS = 180 * 86_400
NAME_HEX_CHARS = 12
ADDRESS_MAX_CHARS = RefusedSignIn.ADDRESS_MAX_CHARS
BROWSER_MAX_CHARS = RefusedSignIn.BROWSER_MAX_CHARS
_DOMAIN = b"atp account name\0"
BUSY = "Too many people are signing in right now. Wait a moment, go back and try again."
sign_in_limit = SignInLimit(MOST_UNDER_WAY)
_BROWSERS = signing.TimestampSigner(salt="atp known browser")


class OfficerLoginForm(AdminAuthenticationForm):
    """Django's own form, which also enters log-ins and counts failures.

    Unknown names are treated like known ones, so the answer does not tell which accounts exist.
    The typed name is kept only as a keyed hash, because people sometimes type a password there.
    """

    def clean(self) -> dict[str, Any]:
        if not {"username", "password"} <= self.cleaned_data.keys():
            return self.cleaned_data  # the form says beside the field what is missing
        typed = str(self.cleaned_data["username"])
        name = account_name(typed)
        browser = _known_browser(self.request, typed)
        place = f"{name}:{_hashed(name + (browser or _network(self.request)))}"
        network = "" if browser else network_name(_network(self.request))
        if network and failures_of(network) >= MOST_OF_NETWORK:
            raise ValidationError(
                "Too many failed attempts from your network. Wait a minute and try again."
            )
        if failures_of(place) >= MOST_FAILURES or not (browser or _has_room(name)):
            raise ValidationError(
                "Too many failed attempts for this account. Wait a minute and try again."
            )
        try:
            with _hashing_for(known=bool(browser)):
                cleaned: dict[str, Any] = super().clean()
        except ValidationError:
            note_failure(*filter(None, (name, place, network)), came_from=_client(self.request))
            raise
        except HashingBusy as exc:
            raise ValidationError(BUSY) from exc
        _enter_login(self.get_user(), _client(self.request))
        return cleaned


def officer_login(request: HttpRequest) -> HttpResponseBase:
    """Show the admin's own sign-in page; after success, mark the browser as known by a cookie.

    A network with too many sign-ins under way gets 429 before any password is hashed, and so does
    an account in the browsers that it is known in.
    """
    if request.method != "POST":
        return _login(request)
    typed = _typed_name(request)
    known = _known_browser(request, typed)
    with sign_in_limit.counting(account_name(typed) if known else _network(request)) as admitted:
        return _login(request) if admitted else too_many()


def _login(request: HttpRequest) -> HttpResponseBase:
    response: HttpResponseBase = admin.site.login(request)
    if request.method == "POST" and request.user.is_authenticated:
        response.set_cookie(
            _cookie(),
            _BROWSERS.sign(f"{_mark(request.user)}:{secrets.token_hex(8)}"),
            max_age=KNOWN_BROWSER_SECONDS,
            path=reverse("admin:login"),
            secure=bool(settings.SESSION_COOKIE_SECURE),
            httponly=True,
            samesite="Strict",
        )
    return response


def account_name(typed: str) -> str:
    """Return the name under which failures are counted: a keyed hash of the typed text."""
    return f"login:{_hashed(typed)}"


def _typed_name(request: HttpRequest) -> str:
    """What the form of a request names, as the form would read it."""
    return str(request.POST.get("username", "")).strip()


def too_many() -> HttpResponse:
    """A short answer, made without a template: there may be very many of them."""
    return HttpResponse(
        BUSY, status=429, content_type="text/plain; charset=utf-8", headers={"Retry-After": "5"}
    )


@contextmanager
def _hashing_for(*, known: bool) -> Iterator[None]:
    """Hash with the priority of a known browser, or of a stranger, until the block ends."""
    before = hashing_priority.set(
        HashingPriority.KNOWN_BROWSER if known else HashingPriority.STRANGER
    )
    try:
        yield
    finally:
        hashing_priority.reset(before)


def network_name(network: str) -> str:
    """What the failures of a network are counted under, whatever names it tries."""
    return f"login-from:{_hashed(network)}"


def _known_browser(request: HttpRequest | None, typed: str) -> str:
    """Return the browser's signed mark if this account has signed in there before, else "".

    It has done so with the password that it has now; the account is looked up only where a browser
    says so with the hub's signature.
    """
    signed = request.COOKIES.get(_cookie(), "") if request else ""
    try:
        known: str = _BROWSERS.unsign(signed, max_age=KNOWN_BROWSER_SECONDS)
    except signing.BadSignature:
        return ""
    if not known.startswith(f"{account_name(typed)}:"):
        return ""
    accounts = get_user_model()._default_manager.filter(username=typed, is_active=True)
    account = accounts.first()
    return known if account and known.startswith(f"{_mark(account)}:") else ""


def _mark(account: Any) -> str:
    """What a known browser holds of an account: its name and its password, as keyed hashes."""
    return f"{account_name(account.get_username())}:{_hashed(account.password)}"


def _cookie() -> str:
    return f"{settings.SESSION_COOKIE_NAME}_known"


def _network(request: HttpRequest | None) -> str:
    """Return the caller's IPv4 address or IPv6 network."""
    text = str(request.META.get("REMOTE_ADDR", "")) if request else ""
    try:
        address = ip_address(text)
    except ValueError:
        return text
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(int(address) >> (address.max_prefixlen - IPV6_NETWORK_BITS))
    return text


def failures_of(who: str) -> int:
    """Return the failed attempts of this minute, for a hashed name or for one client and name."""
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    rows = RefusalCount.objects.filter(agent=who, code=Kind.ADMIN_DENIED, minute=minute)
    return rows.aggregate(n=Sum("count"))["n"] or 0


def _has_room(name: str) -> bool:
    """Return whether one more attempt from an unknown browser is allowed in this minute.

    The limit is halved for each minute of the last hour that had failures.
    """
    since = datetime.now(UTC) - REMEMBERED
    summaries = Entry.objects.filter(kind=Kind.REFUSALS_COUNTED, sender=name, time__gt=since)
    most = MOST_ANYWHERE >> min(summaries.count(), MOST_ANYWHERE.bit_length())
    return failures_of(name) < max(FEWEST_ANYWHERE, most)


def note_failure(*counted: str, came_from: Mapping[str, str] | None = None) -> None:
    """Count one failed attempt for each of these; keep for the first where it came from."""
    counts = {(who, str(Kind.ADMIN_DENIED)): 1 for who in counted}
    now = datetime.now(UTC)
    with transaction.atomic():
        if came_from is not None:
            note_refused_sign_in(counted[0], now, **came_from)
        count_refusals(counts, now)


def _enter_login(user: Any, client: Mapping[str, str]) -> None:
    actor = Actor.of_user(user)
    with registry_change(actor, moves_epoch=False) as change:
        change.enter(EntryDraft(Kind.ADMIN_LOGIN, subject=actor.name, personal=client))


def _client(request: HttpRequest | None) -> Mapping[str, str]:
    """Return the caller's address and browser, as the section `personal` has them."""
    said = request.META if request else {}
    address, browser = str(said.get("REMOTE_ADDR", "")), str(said.get("HTTP_USER_AGENT", ""))
    return {"address": address[:ADDRESS_MAX_CHARS], "browser": browser[:BROWSER_MAX_CHARS]}


def _hashed(text: str) -> str:
    digest = hmac.new(settings.ATP_KEY_ENCRYPTION_KEY, _DOMAIN + text.encode(), sha256)
    return digest.hexdigest()[:NAME_HEX_CHARS]
