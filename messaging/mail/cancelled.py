"""Tell the recipients of requests that their senders no longer wait (docs/protocol.md#frames)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from atp.types import MessageType
from atp.wire.frames import Cancelled
from messaging.layer import events
from messaging.layer.news import News
from messaging.layer.routes import Route, live_sessions, load_routes
from messaging.mail.answered import answered_among
from messaging.models import Delivery, Envelope


class Cancellation(NamedTuple):
    """What an agent said in a session: it no longer waits for the answer to its request."""

    agent: str
    session: str
    message_id: str


class _OpenRequest(NamedTuple):
    """A request that was accepted and delivered or waits, and has no answer."""

    sender: str
    message_id: str
    target: str
    digest: str


def tell_recipients(cancellations: Sequence[Cancellation]) -> None:
    """Tell each recipient that is connected; leave out what is no open request of its sender.

    Errors of the database are not caught.
    """
    sessions = live_sessions({one.agent for one in cancellations})
    ours = {(one.agent, one.message_id) for one in cancellations if one.session in sessions}
    requests = _open_requests(ours) if ours else []
    if requests:
        events.publish(_news(requests, load_routes({request.target for request in requests})))


def _open_requests(keys: Collection[tuple[str, str]]) -> list[_OpenRequest]:
    rows = (
        Envelope.objects.filter(
            message_id__in={message_id for _, message_id in keys},
            sender_id__in={sender for sender, _ in keys},
            message_type=MessageType.REQUEST,
            status=Envelope.Status.ACCEPTED,
            expires_at__gt=datetime.now(UTC),
            deliveries__state=Delivery.State.WAITING,
        )
        .order_by()
        .values_list("sender_id", "message_id", "target", "digest")
    )
    found = [_OpenRequest(*row) for row in rows if row[:2] in keys]
    answered = answered_among({one.digest for one in found}) if found else ()
    return [one for one in found if one.digest not in answered]


def _news(requests: Iterable[_OpenRequest], routes: Mapping[str, Route]) -> dict[str, News]:
    news: dict[str, News] = {}
    for request in requests:
        route = routes.get(request.target)
        if route is not None and route.live:
            frame = Cancelled(request.message_id, request.sender).to_bytes().decode()
            news.setdefault(route.channel, News()).cancels.append((request.target, frame))
    return news
