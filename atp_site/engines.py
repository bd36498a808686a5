"""From the URLs of a database, a Redis and a broker to what Django, Channels and Celery want."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured
from kombu import Exchange, Queue
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from atp_site import engine_tls

SQLITE_WAIT_SECONDS = 30  # for the writer lock and for SQLite's own
CONNECT_SECONDS = 5
LAYER_ANSWER_SECONDS = 2
SQLITE_START = (
    "PRAGMA journal_mode=WAL;"
    "PRAGMA synchronous=FULL;"  # a commit survives a power cut, not just a crash
    "PRAGMA cache_size=-16384;"  # KiB, of each connection
    # Pages of the log that a commit leaves for the node's own thread to carry over (messaging/
    # node.py): a commit that does it itself takes ten times as long. Only where that thread can't
    # keep up does a commit help, from 64 MiB on.
    "PRAGMA wal_autocheckpoint=16384;"
    "PRAGMA temp_store=MEMORY;"
    "PRAGMA journal_size_limit=67108864"  # bytes that stay of a log that once grew
)
# What libpq takes, but what the URL says elsewhere (user, password, dbname, port), what the hub
# sets itself (options, client_encoding) and what makes another kind of session (replication).
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
POSTGRES_SESSION = (
    "-c synchronous_commit=on"  # whatever the server's default is: a receipt is a promise
    " -c idle_in_transaction_session_timeout=60000"  # ms; a stuck process must not hold the log
    # A batch asks for a few hundred rows by key: what it asks for is in memory, or on a fast disk.
    # With the default of 4, tables of up to some 20,000 rows were read from end to end for it.
    " -c random_page_cost=1.1"
)
QUEUE_TYPES = ("classic", "quorum")
BROKER_SCHEMES = frozenset({"redis", "rediss", "amqp", "amqps"})
REDIS_SCHEMES = frozenset({"redis", "rediss", "unix"})


def database(url: str, folder: Path, *, tls: str = "verify", ca_file: str = "") -> dict[str, Any]:
    """Return the `DATABASES` entry for `url`; without one, SQLite in `folder`.

    `tls` and `ca_file` are ATP_ENGINE_TLS and ATP_ENGINE_CA_FILE. Raises `ImproperlyConfigured`.
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
    """Whether a hub on these engines can be several processes, on several machines."""
    return bool(broker_url) or _split(database_url, "ATP_DATABASE_URL").scheme.startswith(
        "postgres"
    )


def channel_layer(url: str, *, tls: str = "verify", ca_file: str = "") -> dict[str, Any]:
    """Return the `CHANNEL_LAYERS` entry: Redis with a URL, else the memory of this process.

    Redis passes messages on and keeps none (pub/sub): that is one round trip for each, where the
    layer that queues takes eight, and what is lost is found by the poll either way.
    """
    if not url:
        limits = {"capacity": 10_000, "expiry": 30}
        return {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": limits}
    parts = _split(url, "ATP_REDIS_URL")
    if parts.scheme not in REDIS_SCHEMES:
        raise ImproperlyConfigured("ATP_REDIS_URL must begin with redis:// or rediss://.")
    _need_number(parts, "ATP_REDIS_URL")
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
    """The broker URL for Celery; `memory://` where none is given and tasks run eagerly."""
    if not url:
        return "memory://localhost/"
    parts = _split(url, "ATP_BROKER_URL")
    if parts.scheme not in BROKER_SCHEMES:
        raise ImproperlyConfigured("ATP_BROKER_URL must begin with redis://, rediss:// or amqp://.")
    _need_number(parts, "ATP_BROKER_URL")
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
    """Celery's transport options; Redis has no acknowledgements of its own."""
    dialling = {"max_retries": 1, "interval_start": 0}  # or each send to a broker away takes 6 s
    if not url.startswith(("redis", "rediss")):
        return dialling
    return {
        **dialling,
        "visibility_timeout": 300,  # seconds until an unacknowledged task comes back
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": CONNECT_SECONDS,  # kombu blocks for a second in one read
        "socket_keepalive": True,
    }


def _need_number(parts: SplitResult, name: str) -> None:
    database = parts.path.strip("/")
    if parts.scheme in {"redis", "rediss"} and database and not database.isdecimal():
        raise ImproperlyConfigured(f"{name} must end in the number of a Redis database, if any.")


def _split(url: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # a property that raises where the port is none
    except ValueError:
        # The URL may hold a password, so it is not repeated; nor is the cause, which quotes it.
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
    options: dict[str, Any] = dict(parse_qsl(parts.query))
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
    name = unquote(parts.path.strip("/"))
    if not name or "/" in name:
        raise ImproperlyConfigured("ATP_DATABASE_URL must end in the name of one database.")
    # A folder with a socket does not fit before the path.
    host = options.pop("host", "") or parts.hostname or ""
    return {
        "ENGINE": "atp_site.postgresql",
        "NAME": name,
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": host,
        "PORT": str(parts.port or ""),
        # Under ASGI each request has a thread of its own, so a kept connection would be kept for
        # nobody. Threads that live on (lanes, workers) hold theirs: nothing ends a request there.
        "CONN_MAX_AGE": 0,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "connect_timeout": CONNECT_SECONDS,
            "application_name": "atp",
            "server_side_binding": True,
            "prepare_threshold": 3,
            **POSTGRES_LIVENESS,
            **engine_tls.postgres(host, tls, ca_file),
            **options,
            "options": POSTGRES_SESSION,
        },
    }
