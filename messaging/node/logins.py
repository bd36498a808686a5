"""The lane of logins: sessions are opened in batches, because each one appends to the trail."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from atp.errors import ATPError, FlowBusy
from messaging.layer.events import publish_superseded
from messaging.node.lanes import Lane
from messaging.node.threads import NodeThreads
from messaging.sessions.proofs import LoginRequest
from messaging.sessions.sessions import Opened, open_sessions
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

MOST_LOGINS = 64  # in a batch; a login reads more rows than an ack or a closing


class Logins:
    """Opens sessions on one node; `abandon` closes a session that will not be used."""

    def __init__(
        self, node_id: uuid.UUID, threads: NodeThreads, abandon: Callable[[Opened], None]
    ) -> None:
        self._node_id = node_id
        self._threads = threads
        self._abandon = abandon
        self.lane: Lane[tuple[LoginRequest, asyncio.Future[Opened]]] = Lane(
            "logins", self._open, most_items=MOST_LOGINS
        )

    async def log_in(self, login: LoginRequest) -> Opened:
        """Open a session. Raises the `ATPError` that refuses it."""
        future: asyncio.Future[Opened] = asyncio.get_running_loop().create_future()
        self.lane.put((login, future))
        try:
            return await future
        except asyncio.CancelledError:  # it took too long: what was opened will not be used
            if future.done() and not future.cancelled() and future.exception() is None:
                self._abandon(future.result())
            raise
        finally:
            # A future that failed refers to its exception, whose traceback refers to this frame,
            # which refers to the future: a cycle that would keep the socket in memory until the
            # garbage collector runs.
            del future

    async def _open(self, waiting: list[tuple[LoginRequest, asyncio.Future[Opened]]]) -> None:
        logins = [login for login, _ in waiting]
        answers: list[Opened | ATPError]
        try:
            answers = await self._threads.run(open_sessions, logins, self._node_id)
        except Exception:  # the database is away: every socket of the batch hears of it
            logger.exception("%d logins could not be handled", len(logins))
            answers = [FlowBusy("the hub can't open sessions at the moment") for _ in logins]
        for (login, future), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, Opened) and answer.send_only:
                _tell_of_send_only(answer, login.remote_address)
            self._answer(future, answer)

    def _answer(self, future: asyncio.Future[Opened], answer: Opened | ATPError) -> None:
        if isinstance(answer, ATPError):
            if not future.cancelled():
                future.set_exception(answer)
            return
        if answer.superseded is not None and answer.superseded[1]:  # else it is of this batch
            publish_superseded(*answer.superseded)
        if future.cancelled():
            self._abandon(answer)
        else:
            future.set_result(answer)


def _tell_of_send_only(opened: Opened, address: str) -> None:
    """Count a session that only sends; warn if it is from another address than the agent's own.

    It does not disturb the running agent, so that one does not notice a stolen key by it.
    """
    elsewhere = bool(opened.beside) and address != opened.beside
    instruments.count_send_only(elsewhere=elsewhere)
    if elsewhere:
        logger.warning(
            "agent %s: session %s from %s only sends, beside the agent's session from %s",
            opened.agent, opened.session, address, opened.beside,
        )  # fmt: skip
