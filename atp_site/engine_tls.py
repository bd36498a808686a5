"""TLS to PostgreSQL, Redis and the broker: which certificates a connection accepts.

The hub verifies the certificate chain and the host name. `ATP_ENGINE_TLS=unverified` switches that
off for all three (docs/production.md#tls-to-the-engines).
"""

from __future__ import annotations

import ssl
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MODES = ("verify", "unverified")


def postgres(host: str, mode: str, ca_file: str) -> dict[str, str]:
    """Return libpq's parameters for a server on `host`; a URL's own parameters override them.

    For a Unix socket or the loopback it returns none, because no network can be listened to.
    """
    if mode != "verify" or is_local(host):
        return {}
    return {"sslmode": "verify-full", "sslrootcert": ca_file or _system_roots()}


def redis_layer(url: str, mode: str, ca_file: str) -> dict[str, Any]:
    """Return redis-py's arguments for a `rediss://` address, and none for another."""
    if not url.startswith("rediss:"):
        return {}
    if mode != "verify":
        return {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    roots = {"ssl_ca_certs": ca_file} if ca_file else {}
    return {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **roots}


def broker(url: str, mode: str, ca_file: str) -> dict[str, Any] | None:
    """Return Celery's `broker_use_ssl`; `None` for a broker without TLS."""
    if url.startswith("rediss:"):
        arguments = redis_layer(url, mode, ca_file)
        required = arguments["ssl_cert_reqs"] == "required"
        # kombu takes the constant where redis-py also takes the word.
        arguments["ssl_cert_reqs"] = ssl.CERT_REQUIRED if required else ssl.CERT_NONE
        return arguments
    if not url.startswith("amqps:"):
        return None
    if mode != "verify":
        return {"cert_reqs": ssl.CERT_NONE}
    context: dict[str, Any] = {"check_hostname": True}
    if ca_file:
        context["cafile"] = ca_file
    # py-amqp compares the name only with a context, and kombu turns localhost into an address.
    return {"context": context, "server_hostname": urlsplit(url).hostname}


def is_local(host: str) -> bool:
    """Return whether a host is the loopback, a Unix socket's folder, or "" (libpq's socket)."""
    if not host or host.startswith("/") or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def unprotected(url: str) -> str:
    """Return the host to which a Redis or broker URL sends its login in clear, or ""."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return host if parts.scheme in {"redis", "amqp"} and not is_local(host) else ""


def _system_roots() -> str:
    """Return the file of root certificates that this Python trusts.

    psycopg's wheel has its own OpenSSL, which does not know where this system has its certificates.
    """
    found = ssl.get_default_verify_paths().cafile
    return found if found and Path(found).is_file() else "system"
