"""Settings from the environment: nothing is required, and nonsense is refused in one sentence."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from psycopg import pq

from atp_site import engines, env
from tests.processes import manage

NAME = "ATP_EXAMPLE"
SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("ON", True), ("no", False), (" 0 ", False)]
)
def test_it_reads_true_and_false(text: str, value: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    assert env.env_bool(NAME, default=not value) is value


def test_it_takes_an_empty_variable_for_an_absent_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "  ")
    assert env.env_bool(NAME, default=True) is True
    assert env.env_int(NAME, 7, least=1, most=9) == 7
    assert env.env_list(NAME, ["a"]) == ["a"]


@pytest.mark.parametrize("text", ["perhaps", "2", "tru", "yes!"])
def test_rejects_what_is_neither_true_nor_false(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.env_bool(NAME, default=True)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "8e3", "80 80", "٨٠", "0x50"])
def test_rejects_what_is_no_port(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match="1 to 65535"):
        env.env_int(NAME, 8000, least=1, most=65535)


def test_it_reads_a_secret_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    assert env.env_secret(NAME) == SECRET


def test_rejects_a_secret_given_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, SECRET)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path))
    with pytest.raises(ImproperlyConfigured) as refused:
        env.env_secret(NAME)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_rejects_a_secret_file_without_a_secret(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    with pytest.raises(ImproperlyConfigured, match="secret"):
        env.env_secret(NAME)


def test_it_makes_a_secret_once_and_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    made = env.secret_or_made(NAME, path)
    assert env.secret_or_made(NAME, path) == made
    assert len(env.decode_key(made, name=NAME)) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["secret"]


def test_it_agrees_on_one_secret_when_two_start_at_once(tmp_path: Path) -> None:
    found: set[str] = set()
    together = threading.Barrier(8)

    def make() -> None:
        together.wait(20)
        found.add(env.secret_or_made(NAME, tmp_path / "secret"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a thread is still making its secret"
    assert len(found) == 1


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_rejects_a_key_of_another_length(length: int) -> None:
    with pytest.raises(ImproperlyConfigured, match="32 bytes"):
        env.decode_key(base64.urlsafe_b64encode(bytes(length)).decode(), name=NAME)


def test_rejects_a_key_that_is_no_base64url() -> None:
    with pytest.raises(ImproperlyConfigured) as refused:
        env.decode_key("!" * 43, name=NAME)
    assert "!!" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["hub.example", "ftp://hub.example", "https://", "https://hub.example/a", "http://h:x"]
)
def test_rejects_what_is_no_public_url(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, url)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.public_url(NAME, "http://127.0.0.1:8000")


@pytest.mark.parametrize("text", ["hub.example.com", "0.0.0.0:80", "127.1", "any"])
def test_rejects_what_is_no_address(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.address(NAME, "127.0.0.1")


def test_it_takes_addresses_and_networks_of_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "10.0.0.5, 172.16.0.0/12, fd00::/8")
    assert env.networks(NAME) == ["10.0.0.5", "172.16.0.0/12", "fd00::/8"]


@pytest.mark.parametrize("text", ["*", "10.0.0.5,*", "0.0.0.0/0", "::/0", "proxy", "10.0.0.5/8"])
def test_rejects_everybody_as_a_proxy(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.networks(NAME)


def test_it_takes_every_part_of_a_postgresql_url(tmp_path: Path) -> None:
    url = "postgres://ann:p%40ss@db.example:5433/hub?sslmode=require&connect_timeout=3"
    entry = engines.database(url, tmp_path)
    assert entry["ENGINE"] == "atp_site.postgresql"
    assert (entry["USER"], entry["PASSWORD"], entry["NAME"]) == ("ann", "p@ss", "hub")
    assert (entry["HOST"], entry["PORT"]) == ("db.example", "5433")
    assert entry["OPTIONS"]["sslmode"] == "require"
    assert entry["OPTIONS"]["connect_timeout"] == "3"
    assert entry["OPTIONS"]["options"] == "", "a pooler refuses them"


def test_a_postgresql_connection_notices_by_itself_that_the_other_side_has_gone(
    tmp_path: Path,
) -> None:
    options = engines.database("postgres://db.example/hub", tmp_path)["OPTIONS"]
    assert options["tcp_user_timeout"] == 10_000
    assert (options["keepalives"], options["keepalives_idle"]) == (1, 10)
    assert (options["keepalives_interval"], options["keepalives_count"]) == (3, 3)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("keepalives_idle", "30"),
        ("tcp_user_timeout", "4000"),
        ("target_session_attrs", "read-write"),
        ("channel_binding", "require"),
        ("gssencmode", "disable"),
    ],
)
def test_a_postgresql_url_may_set_parameters_of_libpq(
    parameter: str, value: str, tmp_path: Path
) -> None:
    entry = engines.database(f"postgres://db.example/hub?{parameter}={value}", tmp_path)
    assert entry["OPTIONS"][parameter] == value


def test_every_parameter_that_a_url_may_set_is_one_of_libpq() -> None:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    assert known >= engines.POSTGRES_PARAMETERS >= engines.POSTGRES_LIVENESS.keys()


@pytest.mark.parametrize("parameter", ["keepalives_idle", "tcp_user_timeout", "connect_timeout"])
def test_rejects_a_parameter_that_must_be_a_number(parameter: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"{parameter}.*must be a whole number"):
        engines.database(f"postgres://db.example/hub?{parameter}=soon", tmp_path)


@pytest.mark.parametrize("parameter", ["options", "user", "password", "dbname", "replication"])
def test_rejects_parameters_that_are_the_hubs_own(parameter: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"unknown parameter '{parameter}'"):
        engines.database(f"postgres://db.example/hub?{parameter}=x", tmp_path)


def test_it_takes_an_sqlite_file_elsewhere(tmp_path: Path) -> None:
    entry = engines.database(f"sqlite:///{tmp_path}/other.sqlite3", tmp_path)
    assert entry["NAME"] == f"{tmp_path}/other.sqlite3"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ann:secret@db/hub",
        "postgres://ann:secret@db:port/hub",
        "postgres://ann:secret@db/",
        "postgres://ann:secret@db/a/b",
        "postgres://ann:secret@db/hub?synchronous_commit=off",
        "postgres://ann:secret@[db/hub",
        "sqlite://",
        "sqlite://file.db",
        "hub.sqlite3",
    ],
)
def test_rejects_a_database_url_without_repeating_its_password(url: str, tmp_path: Path) -> None:
    with pytest.raises(ImproperlyConfigured, match="ATP_DATABASE_URL") as refused:
        engines.database(url, tmp_path)
    assert "secret" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "url", ["http://host", "amqp://host", "localhost:6379", "redis", "redis://h/x"]
)
def test_rejects_a_layer_that_is_no_redis(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ATP_REDIS_URL"):
        engines.channel_layer(url)


@pytest.mark.parametrize(
    "url", ["http://host", "memory://", "h:6379", "sqla+sqlite://", "redis://h/x"]
)
def test_rejects_a_broker_of_another_kind(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="ATP_BROKER_URL"):
        engines.broker(url)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATP_PORT", "eighty"),
        ("ATP_DEBUG", "perhaps"),
        ("ATP_DATABASE_URL", "mysql://db/hub"),
        ("ATP_KEY_ENCRYPTION_KEY", "short"),
        ("ATP_LOG_LEVEL", "LOUD"),
        ("ATP_LOG_FORMAT", "xml"),
        ("ATP_METRICS_TOKEN", "short"),
        ("ATP_DATA_DIR", "/dev/null/data"),
    ],
)
def test_it_refuses_to_start_with_one_clear_sentence(name: str, value: str, tmp_path: Path) -> None:
    done = manage(["hub"], tmp_path, {name: value})
    assert done.returncode == 1
    assert name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_it_still_takes_what_the_secret_before_has_signed(tmp_path: Path) -> None:
    sign = "from django.core import signing; print(signing.dumps(7))"
    signed = manage(["shell", "-v", "0", "-c", sign], tmp_path, {"ATP_SECRET_KEY": "old" * 20})
    read = f"from django.core import signing; print(signing.loads({signed.stdout.strip()!r}))"
    for fallback, answer in (({"ATP_SECRET_KEY_OLD": "old" * 20}, "7\n"), ({}, "")):
        env = {"ATP_SECRET_KEY": "new" * 20, **fallback}
        assert manage(["shell", "-v", "0", "-c", read], tmp_path, env).stdout == answer


def test_rejects_workers_that_could_not_reach_the_nodes(tmp_path: Path) -> None:
    done = manage(["check"], tmp_path, {"ATP_BROKER_URL": "redis://127.0.0.1:6379/9"})
    assert done.returncode == 1
    assert "atp.E001" in done.stderr


def test_it_passes_the_deployment_checks_in_production_settings(tmp_path: Path) -> None:
    key = base64.urlsafe_b64encode(os.urandom(32)).decode()
    production = {
        "ATP_DATABASE_URL": "postgres://hub@127.0.0.1/hub",
        "ATP_REDIS_URL": "redis://127.0.0.1/0",
        "ATP_BROKER_URL": "redis://127.0.0.1/1",
        "ATP_PUBLIC_URL": "https://hub.example.org",
        "ATP_SECRET_KEY": key * 2,
        "ATP_KEY_ENCRYPTION_KEY": key,
    }
    done = manage(["check", "--deploy", "--fail-level", "WARNING"], tmp_path, production)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="it writes where nobody can, in /proc")
def test_rejects_a_folder_that_only_seems_writable() -> None:
    """To root every folder does."""
    with pytest.raises(ImproperlyConfigured, match=r"/proc can't be written: .* ATP_DATA_DIR"):
        env.kept_secret(Path("/proc/secret-key"), size=3)
