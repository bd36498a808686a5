"""What a list costs does not grow with its table: no filter reads every row to find its choices."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.db.models import Model
from django.http import StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from messaging.models import DeadLetter, Envelope, Session
from registry.models import Score
from registry.scores.actions import recompute
from tests.addresses import World, addresses, furnish
from tests.registry.admin_cast import officer_client, text_of

pytestmark = pytest.mark.usefixtures("database")

GROWING = (Envelope, DeadLetter, Session, Score)  # with every message, login or event


@pytest.fixture(scope="module")
def world(database: None) -> World:
    return furnish()


@pytest.fixture
def boss(database: None) -> Client:
    return officer_client()


def asked_of_the_database(client: Client, path: str) -> list[str]:
    with CaptureQueriesContext(connection) as queries:
        answer = client.get(path)
        if isinstance(answer, StreamingHttpResponse):
            async_to_sync(_read_to_its_end)(answer)  # or an export keeps its slot
    return [query["sql"] for query in queries]


async def _read_to_its_end(answer: StreamingHttpResponse) -> None:
    async for _ in answer:
        pass


def test_no_list_looks_for_the_values_of_a_column(boss: Client, world: World) -> None:
    """Neither a list of the admin nor one of the API, with its counts of choices or without."""
    lists = [
        each.path
        for each in addresses(world)
        if (each.route.startswith("admin/") and each.route.count("/") == 3)
        or each.route.startswith("api/")
    ]
    assert len(lists) > 25
    found = {
        (path, sql)
        for path in lists
        for asked in ("", "?_facets=True")
        for sql in asked_of_the_database(boss, path + asked)
        if sql.startswith("SELECT DISTINCT")
    }
    assert not found


@pytest.mark.parametrize("model", GROWING)
def test_no_list_counts_every_row(model: type[Model], boss: Client, world: World) -> None:
    opts = model._meta
    path = f"/admin/{opts.app_label}/{opts.model_name}/"
    for asked in ("", "?_facets=True", "?q=nobody"):
        queries = asked_of_the_database(boss, path + asked)
        assert not [sql for sql in queries if "GROUP BY" in sql]
        counts = [sql for sql in queries if "COUNT(" in sql]
        unbounded = [sql for sql in counts if opts.db_table in sql and not _is_bounded(sql)]
        assert counts
        assert not unbounded


def _is_bounded(sql: str) -> bool:
    """Whether the rows that are counted are those of a query with a limit."""
    return re.search(r"LIMIT \d+\) ", sql) is not None


@pytest.mark.parametrize(
    ("path", "shown", "hidden"),
    [
        ("messaging/envelope/?code=policy.*", "policy.denied", "flow.busy"),
        ("messaging/envelope/?code=policy.denied", "policy.denied", "policy.none"),
        ("messaging/envelope/?code=none", "accepted", "policy.denied"),
        ("messaging/envelope/?message_type=broadcast", "policy.none", "policy.denied"),
        ("messaging/envelope/?sensitivity=restricted", "flow.busy", "policy.denied"),
    ],
)
def test_it_filters_by_words_and_by_what_they_begin_with(
    path: str, shown: str, hidden: str, boss: Client, world: World
) -> None:
    sender = f"filtered-{world.key('registry.agent')}"
    for code, others in {
        "policy.denied": {},
        "policy.none": {"message_type": "broadcast"},
        "flow.busy": {"sensitivity": "restricted"},
        "": {"status": "accepted"},
    }.items():
        letter(sender, code, **others)
    listed = text_of(boss.get(f"/admin/{path}&q={sender}"))
    rows = listed.partition('id="result_list"')[2].partition("</table>")[0]
    assert shown in rows
    assert hidden not in rows


@pytest.mark.parametrize("value", ["nothing", "policy", "policy.", "*", ".*", "policy.%"])
def test_a_word_that_is_none_of_the_list_selects_nothing(
    value: str, boss: Client, world: World
) -> None:
    assert "No row matches" in text_of(boss.get("/admin/messaging/envelope/", {"code": value}))


def test_the_list_of_scores_shows_the_newest_of_each_agent(boss: Client, world: World) -> None:
    agent = world.rows["registry.agent"].pk
    recompute([agent], "agent.changed")
    recompute([agent], "agent.suspended")
    listed = text_of(boss.get("/admin/registry/score/", {"q": agent}))
    assert "1 score" in listed
    assert "agent.suspended</td>" in listed
    assert "agent.changed</td>" in text_of(
        boss.get("/admin/registry/score/", {"q": agent, "which": "all", "because": "agent.changed"})
    )


def letter(target: str, code: str, **others: str) -> None:
    now = datetime.now(UTC)
    parts = {
        "sender_id": "somebody", "target": target, "message_id": str(uuid4()), "digest": "d",
        "kid": "k", "message_type": "request", "sensitivity": "public", "status": "denied",
        "code": code, "score": 1, "judged_at": now, "expires_at": now, "batch_id": "b", "size": 2,
        "content": b"{}",
    }  # fmt: skip
    Envelope.objects.create(**{**parts, **others})
