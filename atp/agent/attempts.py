"""One attempt to handle a message: it runs the handler, answers a caller, and returns the outcome.

The failure of a request is answered. Any other message is handled again after a failure, at most
`MOST_ATTEMPTS` times in all, and then it is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from secrets import SystemRandom
from typing import Final

from atp.agent.failures import HandlerFailure
from atp.agent.handler_table import Handler, HandlerTable
from atp.agent.handlers import HandlerPool, handler_slot_freed, is_cut
from atp.agent.mail import MOST_ATTEMPTS, Mail
from atp.agent.outcomes import Reject, Retry
from atp.agent.responding import Answer, Responder
from atp.envelope_shell import ATPEnvelope
from atp.errors import ClockExpired, HandlerFailed, RecipientNoHandler

__all__ = ["AttemptOutcome", "Attempts", "DONE", "RETRY_SECONDS"]  # noqa: RUF022

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0  # the pause before the second attempt; each later one is longer
RETRY_GROWTH: Final = 3
RETRY_SPREAD: Final = 0.2  # of a pause, so that many do not come back at once
NO_ANSWER: Final = "returned without answering"
ANSWERED_TWICE: Final = "answered twice"

_jitter = SystemRandom()


@dataclass(frozen=True, slots=True)
class AttemptOutcome:
    """The end of an attempt: done; refused with `code`; or to be repeated after a pause."""

    code: str = ""
    retry_after: float | None = None


DONE: Final = AttemptOutcome()


class Attempts:
    """The runner of the handlers of one agent.

    `retry_seconds` is the first pause of a retry. `ends` is whether the client ends, with its event
    loop or for another reason.
    """

    def __init__(
        self,
        agent: str,
        table: HandlerTable,
        pool: HandlerPool,
        *,
        retry_seconds: float,
        ends: Callable[[], bool],
    ) -> None:
        self._agent = agent
        self._table = table
        self._pool = pool
        self._retry_seconds = retry_seconds
        self._ends = ends

    async def notify(self, envelope: Callable[[], ATPEnvelope], mail: Mail) -> AttemptOutcome:
        """Handle a notification or a broadcast once."""
        handler = self._table.find(mail.kind)
        if handler is None:
            logger.warning("%s: refused, there is no handler for it: %s", self._agent, mail)
            return AttemptOutcome(code=RecipientNoHandler.code)
        try:
            await self._pool.call(handler, envelope())
        except Retry as wish:
            logger.info("%s: the handler asks for a retry: %s", self._agent, mail)
            return self._again(mail, wish.after)
        except Reject as refusal:
            logger.info("%s: rejected (%s): %s", self._agent, refusal, mail)
            return AttemptOutcome(code=refusal.code)
        except asyncio.CancelledError:
            if not self._is_failure():
                raise
            logger.error("%s: the handler was cancelled from inside: %s", self._agent, mail)
            return self._again(mail, None)
        except Exception:  # whatever the handler raised, the message is handled again
            logger.exception("%s: the handler failed: %s", self._agent, mail)
            return self._again(mail, None)
        return DONE

    async def answer(
        self, envelope: Callable[[], ATPEnvelope], respond: Responder, mail: Mail
    ) -> AttemptOutcome:
        """Handle a request once, and see to it that its caller hears of the end."""
        handler = self._table.find(mail.kind)
        if handler is None:
            logger.warning("%s: there is no handler for it: %s", self._agent, mail)
            problem = "this agent has no handler for requests"
            await respond.fail(HandlerFailure(problem, RecipientNoHandler.code))
            return DONE
        try:
            await self._run(handler, envelope(), respond)
        except Retry as wish:
            return await self._again_in_time(mail, respond, wish.after)
        except Reject as refusal:
            await respond.fail(HandlerFailure(refusal.detail, refusal.code))
        except ClockExpired as problem:
            logger.warning("%s: %s: %s", self._agent, problem.detail, mail)
        except asyncio.CancelledError:
            if respond.request.stopped or not self._is_failure():
                raise
            logger.error("%s: the handler was cancelled from inside: %s", self._agent, mail)
            await respond.fail(HandlerFailure("the handler was cancelled"))
        except Exception as problem:  # whatever the handler raised, its caller must be told
            if respond.request.cancelled:
                logger.info("%s: the handler of a cancelled request ended: %s", self._agent, mail)
                return DONE
            logger.exception("%s: the handler failed: %s", self._agent, mail)
            # Send the type only: the text of an exception may be confidential.
            text = f"the handler failed ({type(problem).__name__})"
            await respond.fail(HandlerFailure(ANSWERED_TWICE if respond.is_second else text))
        return DONE

    async def _run(self, handler: Handler, envelope: ATPEnvelope, respond: Responder) -> None:
        args = (envelope, respond) if self._table.gives_respond else (envelope,)
        value = await self._pool.call(handler, *args)
        if respond.request.cancelled:
            return
        returned = value is not None and not isinstance(value, Answer)
        if respond.is_second or (respond.used and returned):
            await self._fail(respond, envelope, ANSWERED_TWICE)
        elif respond.answer is not None and respond.used:
            await respond.answer.deliver()
        elif returned:
            await respond(value)
        elif respond.is_later:
            await self._wait_for_answer(respond, envelope)
        else:
            await self._fail(respond, envelope, NO_ANSWER)

    async def _fail(self, respond: Responder, envelope: ATPEnvelope, problem: str) -> None:
        logger.error("%s: the handler of %r %s", self._agent, envelope, problem)
        await respond.fail(HandlerFailure(problem))

    async def _wait_for_answer(self, respond: Responder, envelope: ATPEnvelope) -> None:
        async with handler_slot_freed():
            answered = await respond.wait()
        if not answered:
            logger.warning("%s: %r expired before its later answer", self._agent, envelope)

    async def _again_in_time(
        self, mail: Mail, respond: Responder, after: float | None
    ) -> AttemptOutcome:
        """Return when to try a request again, or tell its caller that it failed."""
        outcome = self._again(mail, after)
        if respond.used:
            return DONE
        if outcome.retry_after is not None and outcome.retry_after < respond.seconds_left:
            return outcome
        await respond.fail(HandlerFailure("the handler asked for a retry, and the time is over"))
        return DONE

    def _again(self, mail: Mail, after: float | None) -> AttemptOutcome:
        failures = mail.failures + 1
        if failures >= MOST_ATTEMPTS:
            logger.error("%s: refused after %d attempts: %s", self._agent, failures, mail)
            return AttemptOutcome(code=HandlerFailed.code)
        return AttemptOutcome(retry_after=self._pause(failures) if after is None else after)

    def _is_failure(self) -> bool:
        """Whether a cancellation is the handler's own: it cancelled itself, or a task of its own.

        Then it counts as a failure, and the task goes on. Otherwise the client cuts the handler, or
        the event loop ends.
        """
        if is_cut() or self._ends():
            return False
        task = asyncio.current_task()
        while task is not None and task.cancelling():
            task.uncancel()
        return True

    def _pause(self, failures: int) -> float:
        pause = self._retry_seconds * float(RETRY_GROWTH) ** (failures - 1)
        return pause * _jitter.uniform(1 - RETRY_SPREAD, 1 + RETRY_SPREAD)
