"""Addresses of hubs, and the proxies on the way to them.

A proxy is taken from the environment as curl takes it: `HTTPS_PROXY`, else `ALL_PROXY`, unless
`NO_PROXY` names the host. This machine is never reached through a proxy, because a proxy would read
what goes to the loopback in clear.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies, proxy_bypass

from atp.errors import SessionTransport, excerpt
from atp.wire.json_faults import type_name

__all__ = ["AddressError", "Proxy", "is_loopback", "proxy_for", "split_address"]

PROXY_SCHEMES: Final = ("http", "https")
_VARIABLES: Final = ("https", "all")  # as `getproxies` names HTTPS_PROXY and ALL_PROXY


class AddressError(SessionTransport, ValueError, code=SessionTransport.code):
    """An address of a hub or of a proxy can't be used; trying again changes nothing."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy of the environment; its URL may hold a password and is in no message."""

    url: str = field(repr=False)
    host: str
    variable: str

    def __str__(self) -> str:
        return f"the proxy {self.host} of {self.variable}"


def split_address(text: str) -> SplitResult:
    """Return the parts of a URL with a host that can be looked up and a port that exists.

    Raises `AddressError` for anything else.
    """
    if not isinstance(text, str):
        raise AddressError(f"an address is a text, not a value of the type {type_name(text)}")
    if not text.isprintable() or " " in text:  # `urlsplit` would drop some of them in silence
        raise AddressError(f"{excerpt(text)} is not an address: a space or control character in it")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # an empty or an overlong label is no name
    except ValueError as exc:  # UnicodeError is one
        raise AddressError(f"{excerpt(text)} is not an address: {_reason(exc)}") from exc
    if not host or port == 0:
        raise AddressError(f"{excerpt(text)} has no host, or the port 0")
    return parts


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by name or by address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that leads to `url`, or `None`.

    Raises `AddressError` for a proxy that this client cannot use.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host) or proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    configured = getproxies()
    for name in _VARIABLES:
        if text := configured.get(name):
            return _usable(text, _variable(name))
    return None


def _usable(text: str, variable: str) -> Proxy:
    text = text if "://" in text else f"http://{text}"  # as curl reads host:port
    advice = f"set {variable} to http://host:port, or name the hub's host in NO_PROXY"
    try:
        parts = split_address(text)
    except AddressError:  # it quotes the address, which may hold a password
        raise AddressError(f"{variable} is not the address of a proxy; {advice}") from None
    if bool(parts.username) != bool(parts.password) or parts.path.strip("/") or parts.query:
        raise AddressError(
            f"{variable} has a user without a password, or more than host and port; {advice}"
        )
    if parts.scheme not in PROXY_SCHEMES:
        raise AddressError(
            f"{variable} names a proxy of the kind {excerpt(parts.scheme)}, and only"
            f" {' and '.join(PROXY_SCHEMES)} are supported; {advice}"
        )
    host = f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    return Proxy(text, host, variable)


def _variable(name: str) -> str:
    """The variable as it is spelt in the environment; elsewhere it is a setting of the system."""
    spelt = (f"{name}_proxy", f"{name}_proxy".upper())
    return next((found for found in spelt if found in os.environ), spelt[1])


def _reason(problem: ValueError) -> str:
    return str(problem) or type(problem).__name__
