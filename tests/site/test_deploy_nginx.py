"""The nginx of deploy/ in front of this run's hub and a stopped node."""

from __future__ import annotations

import asyncio
import getpass
import json
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from django.contrib.staticfiles import finders
from pytest_django.fixtures import Settings
from websockets.sync.client import connect

from atp import ATPClient
from atp.transports.websocket import WebSocketTransport
from messaging.models import Session
from tests.cast import Player, make_agent, prove
from tests.conftest import LiveHub
from tests.needs import need_program
from tests.processes import free_port
from tests.sources import ROOT
from tests.wire import SUBPROTOCOL

DEPLOY = ROOT / "deploy"
START_SECONDS = 20
SOMEBODY = "127.0.0.2"  # an address of the loopback that is not the proxy's
CLAIMED = "203.0.113.9"

MAIN = """\
user {user};
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{}}
http {{
    include /etc/nginx/mime.types;
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/atp.conf;
}}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """The proxy, as clients of it see it."""

    port: int
    plain_port: int
    tls: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"wss://localhost:{self.port}/ws/agents/"


@pytest.fixture(scope="module")
def front(hub: LiveHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    need_program("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    shutil.copy(DEPLOY / "prepare", folder)
    subprocess.run([folder / "prepare", "localhost"], capture_output=True, check=True, timeout=60)
    tls = ssl.create_default_context(cafile=str(folder / "secrets" / "tls.crt"))
    made = Front(free_port(), free_port(), tls)
    _write(folder, made, urlsplit(hub.url).port or 0)
    _nginx(folder, "-t")
    with subprocess.Popen(
        ["nginx", "-e", folder / "error.log", "-c", folder / "nginx.conf"]
    ) as run:
        try:
            _wait(lambda: httpx.get(made.url + "/healthz", verify=tls).status_code == 200)
            yield made
        finally:
            run.terminate()


def _write(folder: Path, front: Front, hub_port: int) -> None:
    """The files as they are, but for places and ports of this run."""
    conf = (DEPLOY / "nginx" / "atp.conf").read_text()
    changes = {
        "/etc/atp/": f"{folder}/secrets/",
        "/etc/nginx/": f"{folder}/",
        "/var/www/atp/": f"{folder}/",
        "listen 80;": f"listen {front.plain_port};",
        "listen 443 ssl;": f"listen {front.port} ssl;",
        "hub.example.com": "localhost",
    }
    for old, new in changes.items():
        assert old in conf, old
        conf = conf.replace(old, new)
    (folder / "atp.conf").write_text(conf)
    upstream = (DEPLOY / "nginx" / "upstream.conf").read_text()
    assert "127.0.0.1:8000" in upstream
    upstream = upstream.replace(":8000", f":{free_port()}").replace(":8001", f":{hub_port}")
    (folder / "atp-upstream.conf").write_text(upstream)
    (folder / "nginx.conf").write_text(MAIN.format(user=getpass.getuser(), folder=folder))
    style = folder / "static" / "admin" / "css" / "base.css"
    style.parent.mkdir(parents=True)
    shutil.copy(str(finders.find("admin/css/base.css")), style)
    style.write_text(style.read_text() + "/* by nginx */")


def _nginx(folder: Path, *options: str) -> None:
    done = subprocess.run(
        ["nginx", "-e", folder / "error.log", "-c", folder / "nginx.conf", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def _wait(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "nginx does not answer"
        time.sleep(0.05)


def get(front: Front, path: str) -> httpx.Response:
    return httpx.get(front.url + path, verify=front.tls)


async def test_it_lets_agents_talk_through_tls(front: Front) -> None:
    heard: list[object] = []

    async def keep(envelope: object) -> None:
        heard.append(envelope)

    def client(player: Player) -> ATPClient:
        transport = WebSocketTransport(
            front.ws_url, hub_id=player.hub, hub_key=player.hub_key, tls=front.tls
        )
        return ATPClient(player.identity, None, player.key, transport=transport)

    alice = await asyncio.to_thread(make_agent)
    bob = await asyncio.to_thread(make_agent, organisation=alice.organisation)
    receiver, sender = client(bob), client(alice)
    receiver.on_message("notification", keep)
    async with receiver, sender:
        receipt = await sender.send_notification(bob.id, {"over": "tls"})
        assert receipt.status == "accepted"
        async with asyncio.timeout(START_SECONDS):
            while not heard:
                await asyncio.sleep(0.02)


def test_it_tells_the_hub_who_is_there_and_not_who_they_say_they_are(front: Front) -> None:
    player = make_agent()
    with connect(
        front.ws_url,
        subprotocols=[SUBPROTOCOL],
        ssl=front.tls,
        source_address=(SOMEBODY, 0),
        additional_headers={"X-Forwarded-For": CLAIMED, "X-Forwarded-Proto": "http"},
    ) as agent:
        nonce = json.loads(agent.recv(timeout=START_SECONDS))["nonce"]
        proof = prove(player, url=front.ws_url, nonce=nonce)
        agent.send(json.dumps({"type": "authenticate", "proof": proof}))
        welcome = json.loads(agent.recv(timeout=START_SECONDS))
        assert Session.objects.get(pk=welcome["session"]).remote_address == SOMEBODY


def test_it_serves_static_files_itself(front: Front) -> None:
    answer = get(front, "/static/admin/css/base.css")
    assert answer.status_code == 200
    assert answer.text.endswith("/* by nginx */")
    assert answer.headers["content-type"].startswith("text/css")
    assert get(front, "/static/../atp.conf").status_code == 404
    assert get(front, "/static../atp.conf").status_code == 404


def test_it_serves_admin_and_api_under_the_address_that_was_asked_for(
    front: Front, settings: Settings
) -> None:
    settings.ATP_PUBLIC_URL = front.url
    page = get(front, "/admin/login/")
    assert page.status_code == 200
    assert "csrftoken" in page.text or "csrfmiddlewaretoken" in page.text
    assert get(front, "/api/v1/hub").json()["websocket"] == front.ws_url


def test_rejects_what_is_not_for_the_outside(front: Front) -> None:
    assert get(front, "/metrics").status_code == 404
    assert "atp_" not in get(front, "/metrics").text
    large = httpx.post(front.url + "/api/v1/enrol", content=b"x" * 3_000_000, verify=front.tls)
    assert large.status_code == 413


def test_it_leads_from_http_to_https(front: Front) -> None:
    answer = httpx.get(f"http://localhost:{front.plain_port}/admin/?a=1")
    assert answer.status_code == 301
    assert re.fullmatch(r"https://localhost/admin/\?a=1", answer.headers["location"])
