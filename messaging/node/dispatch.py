"""Having a batch judged, whatever happens to it.

See docs/design/architecture.md#when-a-batch-goes-wrong.

A batch whose outcome is lost is sent again under the same id. One that fails is sent once more
and then halved, until the envelope that fails stands alone. Where it fails again and others pass,
it is refused as invalid, with an entry and an alarm. What could not be judged ten seconds after it
arrived hears `busy`, whatever the reason.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
from django.conf import settings

from atp.errors import ATPError
from atp.trust.envelope import parse_envelope
from atp.wire import frames
from messaging.judging import outcome
from messaging.judging.poison import record_poison
from messaging.judging.withdrawal import withdraw
from messaging.layer import events
from messaging.layer.news import News
from messaging.node.suspects import Suspects
from messaging.telemetry import instruments

logger = logging.getLogger(__name__)

POISONED_AFTER = 3  # attempts that failed, the last two with nothing but this envelope
LEAST_PATIENCE_SECONDS = 0.2  # for an outcome, however late it is
UNSTORED_SECONDS = 5.0  # that a node counts as not able to store after a worker said so
BUSY_RETRY_SECONDS = 2.0
LOOK_UP_SECONDS = 3.0  # for the database to say what became of a batch before `busy` is told
FIRST_BACKOFF_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class IncomingEnvelope:
    """The text of an envelope, as it came in over a session's socket; not parsed yet.

    `arrived` is by `time.monotonic`.
    """

    session: str
    agent: str
    text: str
    arrived: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Attempt:
    envelopes: Sequence[IncomingEnvelope]
    failures: int = 0
    silences: int = 0
    batch: str = field(default_factory=lambda: str(uuid.uuid4()))
    before: tuple[str, ...] = ()  # batches that these envelopes were part of

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(one.agent, one.text) for one in self.envelopes]


class BatchDispatcher:
    """Sends batches to Celery and waits for their outcomes on the node's layer channel."""

    def __init__(
        self,
        channel: str,
        executor: Executor,
        *,
        tell: Callable[[str, str], None],
        settle: Callable[[str, int], None],
        sees: Callable[[], bool],
    ) -> None:
        """`tell` writes to a session; `sees` tells whether the database answers this node.

        `settle` hears, once, how many envelopes of a session are done with.

        Receipts may be told twice, when a batch was sent again and both copies were judged.
        """
        self._channel = channel
        self._executor = executor
        self._tell = tell
        self._settle = settle
        self._sees = sees
        self._outcomes: dict[str, asyncio.Future[str]] = {}
        self._begun: set[str] = set()
        self._suspects = Suspects()
        self._away = False  # whether no worker could judge the last attempt
        self._unstored_at: float | None = None  # when a worker said so last, and none passed since

    def on_news(self, news: News) -> None:
        """Take a worker's word on a batch; do nothing if its outcome is known, or was given up."""
        waiting = self._outcomes.get(news.batch)
        if waiting is None or waiting.done():  # told twice, or too late
            return
        if news.status == "begun":
            self._begun.add(news.batch)
            return
        if news.status == "unavailable":
            self._unstored_at = time.monotonic()
        waiting.set_result(news.status)

    def stores(self) -> bool:
        """Whether the database takes what this node has judged, as far as its batches tell."""
        return self._unstored_at is None or (
            time.monotonic() - self._unstored_at > UNSTORED_SECONDS
        )

    async def judge(self, batch: Sequence[IncomingEnvelope]) -> None:
        """See to it that each envelope of the batch gets a receipt, in time from its arrival."""
        give_up_at = min(one.arrived for one in batch) + settings.ATP_BUSY_AFTER_SECONDS
        work, failed = deque(self._attempts(batch)), list[_Attempt]()
        if self._away and time.monotonic() >= give_up_at:  # it waited while others tried
            self._answer_busy(batch)
            return
        while work:
            attempt = work.popleft()
            status = await self._measured(attempt, give_up_at)
            if status == "done":
                self._settled(attempt.envelopes)
                continue
            if status == "failed":
                again = self._after_failure(attempt)
                work.extendleft(reversed(again))
                failed += [] if again else [attempt]
            else:
                attempt.silences += 1
                work.appendleft(attempt)
                await self._pause(attempt, give_up_at)
            if time.monotonic() >= give_up_at:
                break
        if work:
            await self._give_up(work)
        for one in failed:  # at the end, when it is known whether others passed
            await self._decide(one)

    def _attempts(self, batch: Sequence[IncomingEnvelope]) -> list[_Attempt]:
        """The batch as it is, or in parts where envelopes of it were in batches that failed."""
        return [
            _Attempt(
                batch[start:end],
                # What failed alone is not tried more than once more, a part goes on in halves.
                failures=POISONED_AFTER - 1 if company == 1 else bool(company),
            )
            for start, end, company in self._suspects.runs([(e.agent, e.text) for e in batch])
        ]

    async def _pause(self, attempt: _Attempt, give_up_at: float) -> None:
        backoff = FIRST_BACKOFF_SECONDS * 2 ** min(attempt.silences, 4)
        await asyncio.sleep(max(0.0, min(backoff, give_up_at - time.monotonic())))

    async def _measured(self, attempt: _Attempt, give_up_at: float) -> str:
        """The outcome of one attempt; what it says of the hub and of the envelopes is noted."""
        seconds = float(settings.ATP_OUTCOME_SECONDS)
        if self._away or attempt.silences or attempt.failures:
            left = give_up_at - time.monotonic()
            seconds = min(seconds, max(left, LEAST_PATIENCE_SECONDS))
        with instruments.batch_under_way(attempt.batch, len(attempt.envelopes)) as under_way:
            status = await self._try(attempt, under_way.traceparent, seconds)
            under_way.outcome = status
        self._away = status == "unavailable"
        if status == "done":
            self._unstored_at = None
            self._suspects.note_pass(attempt.texts)
        elif status == "failed":
            self._suspects.note_failure(attempt.texts)
        return status

    async def _try(self, attempt: _Attempt, traceparent: str, seconds: float) -> str:
        """The batch's outcome: done, failed (its own fault), or unavailable (it was not judged)."""
        loop = asyncio.get_running_loop()
        waiting = self._outcomes[attempt.batch] = loop.create_future()
        payload = {
            "batch": attempt.batch,
            "channel": self._channel,
            "frames": [[e.session, e.agent, e.text] for e in attempt.envelopes],
            "announce": bool(attempt.failures or attempt.silences),
            "dispatched": time.time(),
            "traceparent": traceparent,
        }
        dispatch = partial(events.dispatch_check, payload, expires_seconds=seconds)
        try:
            handing_over = loop.run_in_executor(self._executor, dispatch)
            handing_over.add_done_callback(_note_end)
            # Whatever hangs, broker or database, senders hear in time that they are to wait.
            async with asyncio.timeout(seconds):
                await asyncio.shield(handing_over)  # within one process it is judged in there
                status: str = await waiting
                return status
        except TimeoutError:
            # A batch that was begun and is silent has killed its worker, unless the database hangs.
            patient = seconds >= settings.ATP_OUTCOME_SECONDS
            killed = patient and attempt.batch in self._begun and self._sees()
            return "failed" if killed else "unavailable"
        except Exception:  # the broker is away: no worker has the batch
            logger.exception("a batch could not be handed to the workers")
            return "unavailable"
        finally:
            del self._outcomes[attempt.batch]
            self._begun.discard(attempt.batch)

    def _after_failure(self, attempt: _Attempt) -> list[_Attempt]:
        """What to try next; nothing where an envelope has failed alone too often."""
        attempt.failures += 1
        if len(attempt.envelopes) == 1:
            return [attempt] if attempt.failures < POISONED_AFTER else []
        if attempt.failures == 1:
            return [attempt]
        half = len(attempt.envelopes) // 2
        logger.warning("batch %s failed twice; trying it in halves", attempt.batch)
        before = (*attempt.before, attempt.batch)
        parts = (attempt.envelopes[:half], attempt.envelopes[half:])
        return [_Attempt(part, 1, before=before) for part in parts]

    async def _decide(self, attempt: _Attempt) -> None:
        """Refuse an envelope that failed alone while others passed; else tell its sender to wait.

        Where nothing passes, the fault may be the hub's own.
        """
        loop = asyncio.get_running_loop()
        envelope, batches = attempt.envelopes[0], (*attempt.before, attempt.batch)
        refuse = self._suspects.others_passed(envelope.agent, envelope.text)
        try:
            deciding = loop.run_in_executor(
                self._executor, partial(_last_word, envelope, batches, refuse=refuse)
            )
            deciding.add_done_callback(_note_end)
            async with asyncio.timeout(settings.ATP_OUTCOME_SECONDS):
                receipt = await asyncio.shield(deciding)
        except Exception:  # without an entry in the trail it is not refused for good
            logger.exception("a poisoned envelope of %s could not be entered", envelope.agent)
            receipt = None
        if receipt is None:
            self._answer_busy([envelope])
            return
        self._tell_receipt(envelope, receipt)

    async def _give_up(self, attempts: Collection[_Attempt]) -> None:
        """Tell `busy`, but of what is stored its receipt: its outcome was lost on the way."""
        envelopes = [envelope for attempt in attempts for envelope in attempt.envelopes]
        batches = [batch for one in attempts for batch in (*one.before, one.batch)]
        loop = asyncio.get_running_loop()
        look = loop.run_in_executor(self._executor, _withdraw, batches, envelopes)
        look.add_done_callback(_note_end)
        try:
            receipts = await asyncio.wait_for(asyncio.shield(look), LOOK_UP_SECONDS)
        except Exception:  # the database is away; a sender that sends it again gets its result
            logger.exception("it is not known whether %d envelopes were stored", len(envelopes))
            receipts = [None] * len(envelopes)
        told = list(zip(envelopes, receipts, strict=True))
        self._answer_busy([envelope for envelope, receipt in told if receipt is None])
        for envelope, receipt in told:
            if receipt is not None:
                self._tell_receipt(envelope, receipt)

    def _tell_receipt(self, envelope: IncomingEnvelope, receipt: dict[str, Any]) -> None:
        self._settled([envelope])
        instruments.count_envelopes(receipt["status"], receipt.get("code", ""), 1)
        self._tell(envelope.session, orjson.dumps(receipt).decode())

    def _answer_busy(self, unjudged: Sequence[IncomingEnvelope]) -> None:
        self._settled(unjudged)
        instruments.count_envelopes("busy", "flow.busy", len(unjudged))
        for envelope in unjudged:
            receipt = frames.receipt_members(
                _message_id(envelope.text),
                "busy",
                code="flow.busy",
                detail="the hub can't judge envelopes at the moment; send it again later",
                retry_after=BUSY_RETRY_SECONDS,
            )
            self._tell(envelope.session, orjson.dumps(receipt).decode())

    def _settled(self, done: Sequence[IncomingEnvelope]) -> None:
        for session, count in Counter(envelope.session for envelope in done).items():
            self._settle(session, count)


def _last_word(
    envelope: IncomingEnvelope, batches: Sequence[str], *, refuse: bool
) -> dict[str, Any] | None:
    """The receipt of an envelope on which every attempt failed, perhaps after its commit.

    `None` where it was not stored and is not to be refused.
    """
    message_id = _message_id(envelope.text)
    if not refuse:
        logger.error("an envelope of %s failed, and no other passed since", envelope.agent)
        return _withdraw(batches, [envelope])[0]
    stored = record_poison(envelope.agent, message_id, batches=batches)
    if stored is not None:
        return outcome.stored_receipt(stored)
    detail = "the hub failed on this envelope; officers have been told"
    return frames.receipt_members(message_id, "invalid", code="malformed.envelope", detail=detail)


def _withdraw(
    batches: Sequence[str], envelopes: Sequence[IncomingEnvelope]
) -> list[dict[str, Any] | None]:
    """The receipt of each envelope that is stored, `None` of one that never will be by these."""
    keys = [(envelope.agent, _message_id(envelope.text) or "") for envelope in envelopes]
    receipts = withdraw(batches, keys)
    return [receipts.get(key) for key in keys]


def _note_end(handing_over: asyncio.Future[Any]) -> None:
    """Retrieve the exception of a hand-over that was given up, or asyncio logs it as lost."""
    if not handing_over.cancelled():
        handing_over.exception()


def _message_id(text: str) -> str | None:
    try:
        return parse_envelope(text, max_bytes=settings.ATP_MAX_ENVELOPE_BYTES).message_id
    except ATPError:
        return None
