"""The hub gives its logins only to an engine whose certificate names the engine's host."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis.asyncio as redis
from channels_redis.utils import create_pool
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.core.exceptions import ImproperlyConfigured
from kombu import Connection

from atp_site import checks, engine_tls, engines

POSTGRES_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
SECONDS = 5
HUNG_UP = r"(?i)clos|eof|reset"  # the server of these tests answers nothing


@dataclass
class Engine:
    """A TLS server that takes what comes after the handshake, and answers nothing."""

    port: int
    heard: list[bytes] = field(default_factory=list)


class Authority:
    """A certificate authority of this test alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Of {folder.name}")])
        self.file = folder / "ca.pem"
        root = self._builder(self.name, self.key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.file.write_bytes(self._signed(root))

    def server(self, host: str) -> ssl.SSLContext:
        """What a server for `host` needs."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        leaf = self._builder(subject, key.public_key()).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False
        )
        path = self.folder / f"{host}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        path.write_bytes(private + self._signed(leaf))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(path)
        return context

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> Any:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextmanager
def engine(context: ssl.SSLContext, *, is_postgres: bool = False) -> Iterator[Engine]:
    """Serve until the caller is done; a client may try more than once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = Engine(listener.getsockname()[1])
        done = threading.Event()
        thread = threading.Thread(target=_serve, args=(listener, context, found, is_postgres, done))
        thread.start()
        try:
            yield found
        finally:
            done.set()
            thread.join(2 * SECONDS)


def _serve(
    listener: socket.socket,
    context: ssl.SSLContext,
    found: Engine,
    is_postgres: bool,
    done: threading.Event,
) -> None:
    listener.settimeout(0.1)
    while not done.is_set():
        with suppress(OSError):  # a client hangs up where it does not trust the certificate
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                if is_postgres:
                    assert connection.recv(8) == POSTGRES_SSL_REQUEST
                    connection.sendall(b"S")
                with context.wrap_socket(connection, server_side=True) as secure:
                    found.heard.append(secure.recv(4096))


def connect_redis_broker(port: int, mode: str, ca_file: str) -> None:
    _connect_broker(f"rediss://:secret@localhost:{port}/1", mode, ca_file)


def connect_rabbitmq(port: int, mode: str, ca_file: str) -> None:
    _connect_broker(f"amqps://hub:secret@localhost:{port}//", mode, ca_file)


def _connect_broker(url: str, mode: str, ca_file: str) -> None:
    with Connection(
        engines.broker(url),
        ssl=engine_tls.broker(url, mode, ca_file) or False,
        transport_options=engines.broker_options(url),
        connect_timeout=SECONDS,
    ) as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=SECONDS)


def connect_layer(port: int, mode: str, ca_file: str) -> None:
    """As channels_redis does: its pool, redis-py's asynchronous client."""
    entry = engines.channel_layer(f"rediss://:secret@localhost:{port}/0", tls=mode, ca_file=ca_file)
    host = entry["CONFIG"]["hosts"][0]

    async def ping() -> None:
        async with redis.Redis(connection_pool=create_pool(dict(host))) as client:
            await client.ping()

    asyncio.run(ping())


def connect_postgres(port: int, mode: str, ca_file: str) -> None:
    """By `hostaddr` the loopback stands for a host elsewhere."""
    url = f"postgres://hub:secret@db.example:{port}/hub"
    options = engines.database(url, Path("/nowhere"), tls=mode, ca_file=ca_file)["OPTIONS"]
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    psycopg.connect(
        host="db.example", hostaddr="127.0.0.1", port=port, user="hub", password="secret",
        dbname="hub", connect_timeout=SECONDS, **tls,
    )  # fmt: skip


CLIENTS = {
    "broker rediss": (connect_redis_broker, "localhost"),
    "broker amqps": (connect_rabbitmq, "localhost"),
    "layer rediss": (connect_layer, "localhost"),
    "postgres": (connect_postgres, "db.example"),
}
EITHER = pytest.mark.parametrize("client", CLIENTS)


@EITHER
@pytest.mark.parametrize("trusted", [True, False], ids=["other name", "unknown authority"])
def test_it_hands_no_login_to_a_stranger(
    client: str, trusted: bool, authority: Authority, tmp_path: Path
) -> None:
    connect, host = CLIENTS[client]
    name = "other.example" if trusted else host
    signer = authority if trusted else Authority(tmp_path)
    with (
        engine(signer.server(name), is_postgres=client == "postgres") as stranger,
        pytest.raises(Exception, match=r"(?i)certificate"),
    ):
        connect(stranger.port, "verify", str(authority.file))
    assert not any(stranger.heard)


@EITHER
def test_it_talks_to_the_engine_that_the_certificate_names(
    client: str, authority: Authority
) -> None:
    connect, host = CLIENTS[client]
    with (
        engine(authority.server(host), is_postgres=client == "postgres") as named,
        pytest.raises(Exception, match=HUNG_UP),
    ):
        connect(named.port, "verify", str(authority.file))
    assert any(named.heard)


@EITHER
def test_it_takes_any_certificate_when_told_to(client: str, tmp_path: Path) -> None:
    connect, _ = CLIENTS[client]
    any_name = Authority(tmp_path).server("other.example")
    with (
        engine(any_name, is_postgres=client == "postgres") as stranger,
        pytest.raises(Exception, match=HUNG_UP),
    ):
        connect(stranger.port, "unverified", "")
    assert any(stranger.heard)


def test_it_lets_a_url_choose_its_own_sslmode() -> None:
    url = "postgres://hub@db.example/hub?sslmode=disable"
    assert engines.database(url, Path("/nowhere"))["OPTIONS"]["sslmode"] == "disable"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", ""])
def test_it_asks_no_certificate_of_this_machine(host: str) -> None:
    options = engines.database(f"postgres://hub@{host}/hub", Path("/nowhere"))["OPTIONS"]
    assert "sslmode" not in options


def test_rejects_an_sslmode_that_does_not_exist() -> None:
    with pytest.raises(ImproperlyConfigured, match="verify-full"):
        engines.database("postgres://hub@db.example/hub?sslmode=yes", Path("/nowhere"))


@pytest.mark.parametrize(
    "url",
    [
        "REDISS://redis.example/0",  # redis-py and kombu take it as TLS
        "rediss://redis.example/0?ssl_cert_reqs=none",
        "rediss://redis.example/0?ssl_check_hostname=",
        "redis:///0?host=redis.example",
    ],
)
def test_rejects_redis_urls_that_would_switch_off_what_is_verified(url: str) -> None:
    for read in (engines.channel_layer, engines.broker):
        with pytest.raises(ImproperlyConfigured, match=r"ATP_(REDIS|BROKER)_URL") as refused:
            read(url)
        assert "redis.example" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "AMQPS://mq.example//",  # kombu would connect with TLS and verify nothing
        "amqps://mq.example//?ssl=0",
        "amqps://mq.example//;amqp://other.example//",
    ],
)
def test_rejects_broker_urls_that_would_switch_off_what_is_verified(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ATP_BROKER_URL"):
        engines.broker(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgres:///hub?host=/tmp,db.example",  # a socket first, then another machine
        "postgres://localhost,db.example/hub",
        "postgres://db.example/hub?sslmode=verify-full&sslmode=disable",
        "postgres:///hub?host=/tmp&host=db.example",
    ],
)
def test_rejects_database_urls_that_say_two_things(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ATP_DATABASE_URL"):
        engines.database(url, Path("/nowhere"))


def test_it_verifies_a_server_that_only_the_environment_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libpq reads PGHOST where the URL names no host."""
    monkeypatch.setenv("PGHOST", "db.example")
    found = engines.database("postgres:///hub", Path("/nowhere"))
    assert (found["HOST"], found["OPTIONS"]["sslmode"]) == ("db.example", "verify-full")


@pytest.mark.parametrize("variable", engines.POSTGRES_DETOURS)
def test_rejects_an_environment_that_leads_elsewhere(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "192.0.2.1")
    with pytest.raises(ImproperlyConfigured, match=variable):
        engines.database("postgres://localhost/hub", Path("/nowhere"))


def test_it_warns_before_going_live(settings: Any) -> None:
    settings.ATP_ENGINE_TLS = "unverified"
    settings.CELERY_BROKER_URL = "amqp://hub:secret@mq.example//"
    found = checks.engines_are_verified(None)
    assert [message.id for message in found] == ["atp.W002", "atp.W003"]
    assert "mq.example" in found[1].msg
    assert "secret" not in repr(found)
