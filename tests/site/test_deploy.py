"""deploy/ is true: its commands, options, variables and files are those of the project."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from atp_site import settings as source
from tests.needs import need_program
from tests.sources import ROOT

DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
HARDENING = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "User": "atp",
    "UMask": "0077",
    "Restart": "always",
    "KillSignal": "SIGTERM",
}
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def unit(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[method-assign,assignment]  # names keep their case
    parser.read(path)
    return parser


def commands() -> Iterator[tuple[str, list[str]]]:
    """Where a command of `manage.py` is named, and its words."""
    for path in UNITS:
        line = unit(path)["Service"]["ExecStart"].replace("%i", "8000")
        yield path.name, shlex.split(line.partition("manage.py ")[2])
    for line in (DEPLOY / "Procfile").read_text().splitlines():
        yield "Procfile", shlex.split(line.partition("manage.py ")[2])
    for name, service in COMPOSE["services"].items():
        if service.get("image") == "atp-hub":
            yield f"compose.yaml {name}", service["command"]
    for name in ("prepare", "Dockerfile", "nginx/atp.conf"):
        text = (DEPLOY / name).read_text()
        for words in re.findall(r"manage\.py (\w+)", text):
            yield name, [words]
    (default,) = re.findall(r"^CMD \[(.*)\]$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    yield "Dockerfile", yaml.safe_load(f"[{default}]")


@pytest.mark.parametrize(("place", "words"), list(commands()))
def test_it_names_commands_that_exist_with_options_that_they_take(
    place: str, words: list[str]
) -> None:
    name, *arguments = words
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    parser.parse_args(arguments)


def test_it_starts_every_kind_of_process_everywhere() -> None:
    kinds: dict[str, set[str]] = {}
    for place, (name, *_) in commands():
        kinds.setdefault(place.partition(" ")[0].partition("-")[0], set()).add(name)
    for place in ("atp", "Procfile", "compose.yaml"):
        assert {"hub", "worker", "beat"} <= kinds[place]


def test_it_names_variables_that_the_settings_read() -> None:
    known = set(re.findall(r"^(ATP_\w+) ", source.__doc__ or "", re.MULTILINE))
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "secrets" not in path.parts:
            named = set(re.findall(r"\bATP_[A-Z_]+", path.read_text()))
            unknown = {n for n in named if n not in known and n.removesuffix("_FILE") not in known}
            assert not unknown, path


def test_it_hardens_every_unit() -> None:
    assert len(UNITS) == 3
    for path in UNITS:
        service = unit(path)["Service"]
        assert {name: service.get(name) for name in HARDENING} == HARDENING, path.name
        given = re.findall(r"^LoadCredential=([\w-]+):", path.read_text(), re.MULTILINE)
        read = re.findall(r"^Environment=ATP_\w+_FILE=%d/([\w-]+)$", path.read_text(), re.MULTILINE)
        assert given == read


def test_it_gives_each_process_the_time_to_end_well() -> None:
    limits = {path.name: int(unit(path)["Service"]["TimeoutStopSec"]) for path in UNITS}
    from messaging.node import node
    from messaging.process import serve

    draining = node.DRAIN_SECONDS + node.GOODBYE_SECONDS + node.STOP_SECONDS + serve.GRACE_SECONDS
    assert limits["atp-hub@.service"] > draining
    assert limits["atp-worker@.service"] > source.CELERY_TASK_TIME_LIMIT
    graces = {
        name: int(service["stop_grace_period"].removesuffix("s"))
        for name, service in COMPOSE["services"].items()
        if service.get("image") == "atp-hub" and name not in {"static", "beat"}
    }
    for name, seconds in graces.items():
        least = draining if name.startswith("node") else source.CELERY_TASK_TIME_LIMIT
        assert seconds > least, name


def test_it_has_units_that_systemd_takes(tmp_path: Path) -> None:
    need_program("systemd-analyze")
    for path in [*UNITS, DEPLOY / "systemd" / "atp.target"]:
        text = path.read_text().replace("/opt/atp/.venv/bin/python", sys.executable)
        (tmp_path / path.name).write_text(text.replace("/opt/atp", str(ROOT)))
    started = ["atp-hub@8000.service", "atp-worker@1.service", "atp-beat.service", "atp.target"]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(f"./{name}" for name in started)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_runs_commands_with_what_the_units_are_given(tmp_path: Path) -> None:
    script = (DEPLOY / "systemd" / "atp-manage").read_text()
    for old, new in {
        "/etc/atp/": f"{tmp_path}/",
        "/var/lib/atp": f"{tmp_path}/data",
        "/opt/atp": str(ROOT),
        ".venv/bin/python": sys.executable,
    }.items():
        assert old in script
        script = script.replace(old, new)
    named = set(re.findall(r"^(ATP_\w+_FILE)=", script, re.MULTILINE))
    for path in UNITS:
        assert set(re.findall(r"^Environment=(ATP_\w+_FILE)=", path.read_text(), re.M)) == named
    shutil.copy(DEPLOY / "systemd" / "atp.env", tmp_path)
    (tmp_path / "secret-key").write_text("0123456789" * 6)
    (tmp_path / "key-encryption-key").write_text("A" * 43)
    (tmp_path / "database-url").write_text("postgres://127.0.0.1/hub\n")
    for name in ("broker-url", "redis-url"):
        (tmp_path / name).write_text("redis://127.0.0.1/0\n")
    done = subprocess.run(
        ["sh", "-c", script, "atp-manage", "check", "--deploy", "--fail-level", "WARNING"],
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (
        0,
        "System check identified no issues (0 silenced).\n",
    ), done.stderr


def test_it_composes_services_that_find_each_other() -> None:
    services = COMPOSE["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"]), name
        for volume in service.get("volumes", []):
            place = volume.partition(":")[0]
            assert place.startswith("./") or place in COMPOSE["volumes"], name
            if place.startswith("./") and "secrets" not in place:
                assert (DEPLOY / place).exists(), place
    upstream = (DEPLOY / "nginx" / "compose-upstream.conf").read_text()
    nodes = re.findall(r"^server ([\w-]+):8000 ", upstream, re.MULTILINE)
    assert nodes == [name for name in services if name.startswith("node")]
    proxy = services["nginx"]["networks"]["inside"]["ipv4_address"]
    for node in nodes:
        assert services[node]["environment"]["ATP_TRUSTED_PROXIES"] == proxy
        assert "ports" not in services[node], "only nginx is reached from outside"


def test_it_builds_an_image_from_files_that_exist() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}" in ignored
    assert re.search(r"^USER 1\d{4}$", text, re.MULTILINE), "not root"


def test_it_prepares_the_secrets_of_the_compose_file_once(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "prepare", tmp_path)
    for _ in range(2):
        done = subprocess.run(
            [tmp_path / "prepare", "hub.test"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        made = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
        assert {Path(s["file"]).name for s in COMPOSE["secrets"].values()} <= set(made)
        assert not any(content.decode() in done.stdout for content in made.values())
    assert made["postgres-password"] in made["database-url"]
    from atp_site import env

    env.decode_key(made["key-encryption-key"].decode(), name="ATP_KEY_ENCRYPTION_KEY")
    assert len(made["secret-key"]) >= 50  # Django's check W009
    before = made
    subprocess.run([tmp_path / "prepare"], capture_output=True, check=True, timeout=60)
    assert {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()} == before
