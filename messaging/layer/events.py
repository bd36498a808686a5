"""Send over the channel layer and dispatch tasks. No other module does either."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from celery import current_app
from channels.layers import get_channel_layer
from django.db import transaction

from messaging import failpoints
from messaging.layer.loops import send_loop
from messaging.layer.news import News
from messaging.models import Presence, SendOnlySession

NEWS = "node.news"  # the only type of layer message; nothing from a client ever goes into it
CHECK_ENVELOPES = "messaging.tasks.check_envelopes"
FAN_OUT = "messaging.tasks.fan_out"


def dispatch_check(batch: Mapping[str, Any], *, expires_seconds: float) -> None:
    """Send a batch to Celery to be judged.

    A worker drops the task if it starts after `expires_seconds`. In the embedded hub the batch is
    judged before this returns. Raises kombu's `OperationalError` if the broker is away.
    """
    task = current_app.tasks[CHECK_ENVELOPES]
    task.apply_async(  # type: ignore[call-arg]  # argsrepr: an option of Celery's that its stubs lack
        args=(batch,),
        argsrepr=batch["batch"],  # what workers may write into logs, instead of envelopes
        expires=expires_seconds,
        ignore_result=True,
    )


def dispatch_fan_out() -> None:
    """Start the fan-out task. Call it after the commit that accepted the broadcasts.

    Raises kombu's `OperationalError` if the broker is away.
    """
    current_app.tasks[FAN_OUT].apply_async(ignore_result=True)


def dispatch_scheduled(name: str, *, expires_seconds: float) -> None:
    """Start a scheduled task now.

    In the embedded hub the task has ended when this returns. Raises kombu's `OperationalError` if
    the broker is away.
    """
    current_app.tasks[name].apply_async(expires=expires_seconds, ignore_result=True)


async def ping(channel: str) -> None:
    """Say nothing on a node's channel, on the node's own loop: so it hears whether it hears."""
    await get_channel_layer().send(channel, {"type": NEWS, "payload": News().pack()})


def publish(news_of_channel: Mapping[str, News]) -> None:
    """Send each node its news, in one layer message; the keys are the nodes' channels.

    A send that fails is logged and counted, not raised (`messaging/layer/loops.py`).
    """
    for channel, news in news_of_channel.items():
        failpoints.hit("before_publish", news)
        send_loop.run(_send(channel, news.pack()))


def publish_close_on_commit(agents: Collection[str], code: str) -> None:
    """Close the sockets of `agents` on every node with `code`, after the transaction commits."""
    wanted = sorted(agents)
    transaction.on_commit(lambda: _publish_close(wanted, code))


def _publish_close(agents: list[str], code: str) -> None:
    channels: dict[str, News] = {}
    for sessions in (Presence.objects, SendOnlySession.objects):
        rows = sessions.filter(agent_id__in=agents).values_list("agent_id", "node__channel")
        for agent, channel in rows.distinct():
            channels.setdefault(channel, News(close_code=code)).close_agents.append(agent)
    publish(channels)


async def _send(channel: str, packed: bytes) -> None:
    failpoints.hit("before_layer_send", packed)
    await get_channel_layer().send(channel, {"type": NEWS, "payload": packed})


def publish_superseded(session: str, channel: str) -> None:
    """Tell the node on `channel` to close a session that a newer login of its agent replaced."""
    publish({channel: News(close_sessions=[session], close_code="session.superseded")})
