"""`/metrics`: its access, its figures, and its answer while services are away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families

from registry.trail.models import RefusalCount
from tests.conftest import LiveHub
from tests.docs.tables import code, rows
from tests.processes import HubProcess, start_hub
from tests.services import PrivateRedis

PAGE = "docs/monitoring.md"
TOKEN = "correct-horse-battery-staple"
SCRAPE_SECONDS = 10  # Prometheus's own limit


def scrape(url: str, **headers: str) -> dict[str, float]:
    """The samples without labels, by name."""
    answer = httpx.get(f"{url}/metrics", headers=headers, timeout=SCRAPE_SECONDS)
    assert answer.status_code == 200, answer.text
    families = text_string_to_metric_families(answer.text)
    return {s.name: s.value for family in families for s in family.samples if not s.labels}


@pytest.fixture
def token(settings: Any) -> str:
    settings.ATP_METRICS_TOKEN = TOKEN
    return TOKEN


@pytest.fixture(scope="module")
def services() -> Iterator[PrivateRedis]:
    with PrivateRedis() as services:
        yield services


@pytest.fixture(scope="module")
def behind_a_queue(
    services: PrivateRedis, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HubProcess]:
    """A node whose tasks no worker takes."""
    folder = tmp_path_factory.mktemp("metrics")
    (folder / "token").write_text(f"{TOKEN}\n")
    engines = {"ATP_REDIS_URL": services.database(0), "ATP_BROKER_URL": services.database(1)}
    env = {**engines, "ATP_METRICS_TOKEN_FILE": str(folder / "token")}
    hub = start_hub(folder / "data", env=env)
    yield hub
    services.resume()
    hub.kill()


def test_it_answers_this_machine(hub: LiveHub) -> None:
    figures = scrape(hub.http_url)
    assert figures["atp_node_blind"] == 0
    assert figures["atp_database_up"] == 1
    assert figures["process_resident_memory_bytes"] > 0


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via"]
)
def test_rejects_who_comes_through_a_proxy(hub: LiveHub, header: str) -> None:
    """The proxy is on this machine, and speaks for the world."""
    answer = httpx.get(f"{hub.http_url}/metrics", headers={header: "127.0.0.1"})
    assert answer.status_code == 404
    assert "atp_" not in answer.text


def test_it_answers_the_bearer_of_the_token_from_anywhere(hub: LiveHub, token: str) -> None:
    from_afar = {"X-Forwarded-For": "192.0.2.7", "Authorization": f"Bearer {token}"}
    assert scrape(hub.http_url, **from_afar)["atp_node_blind"] == 0


@pytest.mark.parametrize(
    "given", ["", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN]
)
def test_rejects_who_has_no_token_though_on_this_machine(
    hub: LiveHub, token: str, given: str
) -> None:
    answer = httpx.get(f"{hub.http_url}/metrics", headers={"Authorization": given})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "atp_" not in answer.text


def test_rejects_a_post(hub: LiveHub) -> None:
    assert httpx.post(f"{hub.http_url}/metrics").status_code in {403, 405}


def test_it_tells_what_the_page_tells(behind_a_queue: HubProcess) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    text = httpx.get(f"{behind_a_queue.url}/metrics", headers=bearer).text
    shown = {
        f"{family.name}_total" if family.type == "counter" else family.name: family
        for family in text_string_to_metric_families(text)
        if family.name.startswith("atp_")
    }
    told = {code(row["metric"]) for row in rows(PAGE, columns=("metric", "what", "alarm"))}
    assert told == set(shown)
    assert all(family.documentation for family in shown.values())


def test_it_counts_tasks_that_no_worker_has_taken(
    services: PrivateRedis, behind_a_queue: HubProcess
) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    before = scrape(behind_a_queue.url, **bearer)["atp_broker_waiting_tasks"]
    with redis.Redis.from_url(services.database(1)) as broker:
        broker.rpush("atp", b"{}", b"{}", b"{}")
    assert scrape(behind_a_queue.url, **bearer)["atp_broker_waiting_tasks"] == before + 3


def test_it_answers_while_the_broker_does_not(
    services: PrivateRedis, behind_a_queue: HubProcess
) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert scrape(behind_a_queue.url, **bearer)["atp_broker_up"] == 1
    services.pause()
    try:
        figures = [scrape(behind_a_queue.url, **bearer) for _ in range(2)]
    finally:
        services.resume()
    for silent in figures:
        assert silent["atp_broker_up"] == 0
        assert "atp_broker_waiting_tasks" not in silent
        assert silent["atp_database_up"] == 1

    deadline = time.monotonic() + 20
    while not scrape(behind_a_queue.url, **bearer)["atp_broker_up"]:
        assert time.monotonic() < deadline, "the broker does not count as up again"


def test_it_says_how_old_the_oldest_refusal_is_that_waits_for_its_entry(
    hub: LiveHub,
) -> None:
    old = datetime.now(UTC) - timedelta(hours=3)
    waiting = RefusalCount.objects.create(
        agent="agent-of-the-metrics", code="signature.header", minute=old, count=1
    )
    try:
        assert scrape(hub.http_url)["atp_trail_lag_seconds"] >= 3 * 3600
    finally:
        waiting.delete()
