"""Tell the senders of requests at once that their recipients have refused them.

This is news without a place, which may be lost: then the sender's timeout ends the request. A
sender that asked for notices gets one with a place besides (`notices.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from django.db import transaction

from atp.types import MessageType
from atp.wire.frames import Notice
from messaging.layer import events
from messaging.layer.news import News
from messaging.layer.routes import Route, load_routes, load_send_only
from messaging.models import Delivery


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A refused request: its sender, the taker of the session that sent it, its id and the code."""

    sender: str
    sent_by: str
    message_id: str
    code: str


def tell_on_commit(refused: Iterable[Delivery]) -> None:
    """Tell the senders of the requests among these dead letters, after the commit.

    `envelope` must be loaded. If that fails, it is logged.
    """
    refusals = [
        _Refusal(row.sender, row.envelope.sent_by, row.envelope.message_id, row.code)
        for row in refused
        if row.envelope.message_type == MessageType.REQUEST and row.envelope.sent_by
    ]
    if refusals:
        transaction.on_commit(lambda: events.publish(_news(refusals)), robust=True)


def _news(refusals: Sequence[_Refusal]) -> dict[str, News]:
    senders = {one.sender for one in refusals}
    routes, send_only = load_routes(senders), load_send_only(senders)
    news: dict[str, News] = {}
    for one in refusals:
        text = Notice(one.message_id, Delivery.State.REFUSED.value, one.code).to_bytes().decode()
        for route in _sessions(one, routes, send_only):
            news.setdefault(route.channel, News()).receipts.append((route.session, text))
    return news


def _sessions(
    one: _Refusal, routes: Mapping[str, Route], send_only: Mapping[str, Sequence[Route]]
) -> Iterator[Route]:
    """Yield the live sessions of the process that has sent the request."""
    taking = routes.get(one.sender)
    found = [*([taking] if taking is not None and taking.live else []),
             *send_only.get(one.sender, ())]  # fmt: skip
    return (route for route in found if route.taker == one.sent_by)
