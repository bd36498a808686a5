"""Turn the URLs of database, Redis and broker into settings of Django, Channels and Celery."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from kombu import Exchange, Queue
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from atp_site import engine_tls

SQLITE_WAIT_SECONDS = 30  # for our writer lock and for the lock of SQLite
CONNECT_SECONDS = 5
LAYER_ANSWER_SECONDS = 2
BROKER_ANSWER_SECONDS = 3  # more than the second for which a worker asks Redis to wait for a task
BROKER_LOOK_SECONDS = 2  # between two looks whether Redis still answers a worker that waits
SQLITE_START = (
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"  # a commit survives a power cut
    "PRAGMA cache_size=-16384;"  # KiB, of each connection
    # Bytes, for all connections of the process: above them a connection reuses its own cache before
    # it takes more. Eleven threads of a hub would hold 180 MiB of the same pages otherwise.
    "PRAGMA soft_heap_limit=67108864;"
    # In pages, 64 MiB. A thread of the node copies the write-ahead log into the database
    # (messaging/node/node.py), because a commit that copies takes ten times as long. A commit
    # copies only if the thread can't keep up, and the log reaches this size.
    "PRAGMA wal_autocheckpoint=16384;"
    "PRAGMA temp_store=MEMORY;"
    "PRAGMA journal_size_limit=67108864"  # bytes; a larger log is cut to this
)
SESSION_ATTRS = ("read-write", "primary")  # a hub that may not write can do nothing
# What libpq takes, but what the URL says elsewhere (user, password, dbname, port), what is up to
# the hub (options, client_encoding) and what makes another kind of session (replication).
POSTGRES_PARAMETERS = frozenset((
    "application_name", "channel_binding", "connect_timeout", "fallback_application_name",
    "gssdelegation", "gssencmode", "gsslib", "host", "hostaddr", "keepalives", "keepalives_count",
    "keepalives_idle", "keepalives_interval", "krbsrvname", "load_balance_hosts",
    "max_protocol_version", "min_protocol_version", "passfile", "require_auth", "requirepeer",
    "service", "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcertmode",
    "sslcompression", "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslnegotiation", "sslpassword",
    "sslrootcert", "sslsni", "target_session_attrs", "tcp_user_timeout",
))  # fmt: skip
POSTGRES_NUMBERS = frozenset((  # libpq refuses them only when it connects
    "connect_timeout", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval",
    "tcp_user_timeout",
))  # fmt: skip
# A connection whose other side has gone without a word ends within these times: what was sent and
# not acknowledged after 10 s, what is idle after 10 + 3 * 3 s. Against a side that takes bytes and
# does not answer, see atp_site.postgresql.
POSTGRES_LIVENESS = {
    "tcp_user_timeout": 10_000,  # milliseconds; the others are seconds and a count
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
}
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
QUEUE_TYPES = ("classic", "quorum")
BROKER_SCHEMES = frozenset({"redis", "rediss", "amqp", "amqps"})
REDIS_SCHEMES = frozenset({"redis", "rediss", "unix"})
# Of a Redis or broker URL. Whom the client trusts and where it connects is no parameter: redis-py
# and kombu would take it before what the hub says.
CLIENT_PARAMETERS = frozenset({"db", "client_name", "heartbeat"})
# By these libpq goes elsewhere than the URL says, so the hub could not tell what it has to verify.
POSTGRES_DETOURS = ("PGHOSTADDR", "PGSERVICE")


def database(url: str, folder: Path, *, tls: str = "verify", ca_file: str = "") -> dict[str, Any]:
    """Return the `DATABASES` entry for `url`; for an SQLite file in `folder` if `url` is empty.

    `tls` and `ca_file` are ATP_ENGINE_TLS and ATP_ENGINE_CA_FILE.
    Raises `ImproperlyConfigured` if the URL is wrong; so do all functions of this module.
    """
    if not url:
        return _sqlite(folder / "hub.sqlite3")
    parts = _split(url, "ATP_DATABASE_URL")
    if parts.scheme == "sqlite":
        if not parts.path.strip("/") or parts.netloc:
            raise ImproperlyConfigured(
                "ATP_DATABASE_URL for SQLite names a file: sqlite:///relative or sqlite:////absolute."
            )
        return _sqlite(Path(unquote(parts.path[1:])).resolve())
    if parts.scheme in {"postgres", "postgresql"}:
        return _postgres(parts, tls, ca_file)
    raise ImproperlyConfigured(
        "ATP_DATABASE_URL must begin with postgres:// or sqlite:///, "
        f"not {parts.scheme or 'nothing'}."
    )


def are_shared(database_url: str, broker_url: str) -> bool:
    """Return whether a hub on these engines can run as several processes."""
    return bool(broker_url) or _split(database_url, "ATP_DATABASE_URL").scheme.startswith(
        "postgres"
    )


def channel_layer(url: str, *, tls: str = "verify", ca_file: str = "") -> dict[str, Any]:
    """Return the `CHANNEL_LAYERS` entry: Redis at `url`; the process's memory if `url` is empty.

    The layer uses pub/sub, which stores no messages and takes one round trip for each. The layer
    with queues takes eight. A lost message does no harm: nodes find the rows by their poll.
    """
    if not url:
        limits = {"capacity": 10_000, "expiry": 30}
        return {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": limits}
    parts = _split(url, "ATP_REDIS_URL")
    if not _begins_with(url, parts, REDIS_SCHEMES):
        raise ImproperlyConfigured("ATP_REDIS_URL must begin with redis:// or rediss://.")
    _check_client_url(parts, "ATP_REDIS_URL")
    host: dict[str, Any] = {
        "address": url,
        "socket_connect_timeout": CONNECT_SECONDS,
        # Twice this is less than a send may take: a connection that turns out to be dead costs the
        # time, not the message.
        "socket_timeout": LAYER_ANSWER_SECONDS,
        "retry": Retry(NoBackoff(), 1),
        **engine_tls.redis_layer(url, tls, ca_file),
    }
    if parts.scheme != "unix":
        host["socket_keepalive"] = True
    return {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [host], "prefix": "atp"},
    }


def broker(url: str) -> str:
    """Return the broker URL for Celery; `memory://` if `url` is empty and tasks run eagerly."""
    if not url:
        return "memory://localhost/"
    parts = _split(url, "ATP_BROKER_URL")
    if not _begins_with(url, parts, BROKER_SCHEMES):
        raise ImproperlyConfigured(
            "ATP_BROKER_URL must begin with redis://, rediss://, amqp:// or amqps://."
        )
    if ";" in url:
        raise ImproperlyConfigured("ATP_BROKER_URL names one broker; write %3B for a semicolon.")
    _check_client_url(parts, "ATP_BROKER_URL")
    return url


def task_queue(url: str, queue_type: str) -> Queue:
    """The queue of Celery's tasks, whose type is said to RabbitMQ.

    Said nothing, RabbitMQ takes the default of its virtual host, and Celery would treat a quorum
    queue as a classic one, which RabbitMQ refuses. The name has the type in it, because a queue
    that is there can't change it.
    """
    if not url.startswith("amqp"):
        return Queue("atp", Exchange("atp"), routing_key="atp")
    name = f"atp.{queue_type}"
    arguments = {"x-queue-type": queue_type}
    return Queue(name, Exchange(name), routing_key=name, queue_arguments=arguments)


def broker_options(url: str) -> dict[str, Any]:
    """Return Celery's transport options for the broker at `url`."""
    # With the defaults, each send takes 6 s while the broker is away.
    retries = {"max_retries": 1, "interval_start": 0}
    if not url.startswith(("redis", "rediss")):
        return retries
    return {
        **retries,
        "visibility_timeout": 300,  # seconds; then Redis gives an unacknowledged task out again
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": BROKER_ANSWER_SECONDS,
        "socket_keepalive": True,
        # A worker waits for tasks without a limit of the socket. If nothing has come for a second
        # and twice this time, kombu makes a new connection.
        "health_check_interval": BROKER_LOOK_SECONDS,
    }


def _begins_with(url: str, parts: SplitResult, schemes: frozenset[str]) -> bool:
    """Whether a URL begins with one of these, as it is spelt: TLS is chosen by it."""
    return parts.scheme in schemes and url.startswith(f"{parts.scheme}://")


def _check_client_url(parts: SplitResult, name: str) -> None:
    unknown = sorted(
        dict(parse_qsl(parts.query, keep_blank_values=True)).keys() - CLIENT_PARAMETERS
    )
    if unknown:
        raise ImproperlyConfigured(
            f"{name} has an unknown parameter {unknown[0]!r}; known are"
            f" {', '.join(sorted(CLIENT_PARAMETERS))}. ATP_ENGINE_TLS says what is verified."
        )
    database = parts.path.strip("/")
    if parts.scheme in {"redis", "rediss"} and database and not database.isdecimal():
        raise ImproperlyConfigured(f"{name} must end in the number of a Redis database, if any.")


def _split(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # this property raises if the port is wrong
    except ValueError:
        # The message has neither the URL nor the cause, which can contain a password.
        raise ImproperlyConfigured(f"{name} is not a valid URL.") from None
    return parts


def _sqlite(path: Path) -> dict[str, Any]:
    return {
        "ENGINE": "atp_site.sqlite",
        "NAME": str(path),
        "CONN_MAX_AGE": 0,
        "OPTIONS": {
            "timeout": SQLITE_WAIT_SECONDS,
            "transaction_mode": "IMMEDIATE",
            "init_command": SQLITE_START,
        },
        # Django's default would be a database in memory, which ignores the time-out.
        "TEST": {"NAME": str(path.with_name(f"test-{path.name}"))},
    }


def _postgres(parts: SplitResult, tls: str, ca_file: str) -> dict[str, Any]:
    options: dict[str, Any] = _once(parse_qsl(parts.query))
    unknown = sorted(set(options) - POSTGRES_PARAMETERS)
    if unknown:
        raise ImproperlyConfigured(
            f"ATP_DATABASE_URL has an unknown parameter {unknown[0]!r}; "
            f"known are {', '.join(sorted(POSTGRES_PARAMETERS))}."
        )
    for number in sorted(POSTGRES_NUMBERS & options.keys()):
        if not options[number].isdecimal():
            raise ImproperlyConfigured(f"The {number} in ATP_DATABASE_URL must be a whole number.")
    if options.get("sslmode", "prefer") not in SSL_MODES:
        raise ImproperlyConfigured(
            f"The sslmode in ATP_DATABASE_URL must be one of {', '.join(SSL_MODES)}."
        )
    if options.get("target_session_attrs", "read-write") not in SESSION_ATTRS:
        raise ImproperlyConfigured(
            "The target_session_attrs in ATP_DATABASE_URL must be one of "
            f"{', '.join(SESSION_ATTRS)}: the hub writes."
        )
    name = unquote(parts.path.strip("/"))
    if not name or "/" in name:
        raise ImproperlyConfigured("ATP_DATABASE_URL must end in the name of one database.")
    # The folder of a socket can't stand in the host part of a URL.
    host = _postgres_host(options.pop("host", "") or parts.hostname or "")
    return {
        "ENGINE": "atp_site.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or ""),
        # Under ASGI each request has its own thread, so a connection that is kept is never used
        # again. Long-lived threads (lanes, workers) keep theirs: there, no request ends.
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "atp",
            "server_side_binding": True,
            "prepare_threshold": 3,
            # After a failover the old server, read-only now, is not connected to again.
            "target_session_attrs": "read-write",
            **POSTGRES_LIVENESS,
            **engine_tls.postgres(host, tls, ca_file),
            **options,
            # Nor those of PGOPTIONS; what a session needs is set in it (atp_site.postgresql).
            "options": "",
        },
    }


def _once(parameters: list[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters of a URL; one that stands there twice has no meaning."""
    found = dict(parameters)
    if len(found) != len(parameters):
        raise ImproperlyConfigured("ATP_DATABASE_URL has a parameter twice; remove one of them.")
    return found


def _postgres_host(named: str) -> str:
    """Return the host or the socket's folder that libpq will use, for a host named in the URL."""
    for variable in POSTGRES_DETOURS:
        if os.environ.get(variable):
            raise ImproperlyConfigured(
                f"{variable} is set, and ATP_DATABASE_URL says where the database is; unset it."
            )
    host = named or os.environ.get("PGHOST", "")
    if "," in host:
        raise ImproperlyConfigured("ATP_DATABASE_URL names one host, not several.")
    return host
