"""One batch of envelopes, from raw frames to receipts (architecture.md, "One envelope's way").

(1) parse; (2) drop what a superseded session sent; (3) tell repeats their state; (4) verify
signatures; (5) load facts; (6) judge; (7) store, trail last; (8) publish after the commit.
What changed in the registry meanwhile sends it back to (4), with nothing written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from atp.errors import ATPError, ClockExpired, FlowThrottled, ReplayConflict
from atp.judging import judgement
from atp.judging.judgement import Verdict
from atp.trust.envelope import Envelope, VerifiedEnvelope, parse_envelope, signature_header
from atp.trust.provenance import entry_kids
from atp.types import BROADCAST_TARGET
from messaging import failpoints
from messaging.judging import outcome, rule_notices
from messaging.judging.accept import FINAL, AlreadyJudged, Judged, Stored, store
from messaging.judging.facts import BatchFacts, Place, ask_places, load_facts, places_of
from messaging.judging.registry_view import RegistryView, ask_epoch, current_view
from messaging.layer import events
from messaging.models import Batch
from messaging.models import Envelope as EnvelopeRow
from messaging.telemetry import telemetry
from registry.storage.compiled import Compiled
from registry.storage.round_trips import Asked, one_trip
from registry.trail.actions import EpochMoved

logger = logging.getLogger(__name__)

_KNOWN = Compiled(
    lambda ids: EnvelopeRow.objects.filter(message_id__any_of=ids).order_by().values_list("id")
)
MOST_JUDGEMENTS = 5  # of one batch, while officers keep changing the registry under it


@dataclass(slots=True)
class Item:
    """One frame of a batch on its way through the steps."""

    session: str
    agent: str
    text: str
    envelope: Envelope | None = None
    kid: str = ""
    verified: VerifiedEnvelope | None = None
    verdict: Verdict | None = None
    fenced: bool = False
    repeat_of: EnvelopeRow | None = None
    echo_of: Item | None = None

    @property
    def open(self) -> bool:
        """Whether nothing has decided about it yet."""
        return not (self.verdict or self.fenced or self.repeat_of or self.echo_of)


def check(batch: Mapping[str, Any]) -> None:
    """Judge and store a batch `{"batch", "channel", "frames": [[session, agent, text], ...]}`.

    Raises whatever the database raises; nothing is half-written then.
    """
    items = [Item(*frame) for frame in batch["frames"]]
    for item in items:  # (1)
        failpoints.hit("before_parse", item.text)
        _parse(item)
    telemetry.lap("parse")
    targets = {i.envelope.target for i in items if i.envelope}
    with one_trip():
        asked_places = ask_places({i.agent for i in items} | targets)
        known, epoch = _ask_known(items), ask_epoch()
    places = places_of(asked_places)
    _fence(items, places)  # (2)
    telemetry.lap("fence")
    _find_repeats(items, known)  # (3)
    telemetry.lap("repeats")
    try:
        stored = _judge_and_store(batch["batch"], items, places, epoch)
    except AlreadyJudged:  # this very batch came before: its receipts are told again
        stored = Stored(unstored=Batch.objects.get(id=batch["batch"]).unstored)
        for item in items:
            if item.envelope and not item.fenced:
                item.verdict = item.repeat_of = item.echo_of = None
        _find_repeats(items, _ask_known(items))
    failpoints.hit("after_commit", items)
    news = outcome.news(batch["batch"], batch["channel"], items, stored, places)
    telemetry.lap("receipts")
    news[batch["channel"]].tally = telemetry.tally(map(_outcome, items))
    _log_outcomes(items, stored)
    events.publish(news)  # (8)
    if stored.broadcasts:
        events.dispatch_fan_out()
    rule_notices.tell(_decided(items, stored), stored.accepted_at)


def _parse(item: Item) -> None:
    try:
        item.envelope = parse_envelope(item.text, max_bytes=settings.ATP_MAX_ENVELOPE_BYTES)
    except ATPError as problem:
        item.verdict = _unusable(problem)


def _fence(items: Iterable[Item], places: Mapping[str, Place]) -> None:
    """An older session of an agent, or one on a node without a lease, can do no harm.

    It is not looked at again before the commit: what a session sent that ends meanwhile was its
    agent's, and what that agent sends anew on the next one is a repeat, by (agent, messageId).
    """
    for item in items:
        place = places.get(item.agent)
        if place is None or place.session != item.session or not place.live:
            item.fenced, item.verdict = True, None


def _ask_known(items: Iterable[Item]) -> Asked:
    return _KNOWN.ask({i.envelope.message_id for i in items if i.envelope})


def _find_repeats(items: Iterable[Item], asked: Asked) -> None:
    """Repeats are looked up before signatures are verified; (agent, messageId) is the key."""
    known = {key for (key,) in asked.rows()}
    found = EnvelopeRow.objects.filter(pk__in=known).defer("content") if known else ()
    rows = {(row.sender_id, row.message_id): row for row in found}
    first: dict[tuple[str, str], Item] = {}
    for item in items:
        if not (item.open and item.envelope):
            continue
        key = (item.agent, item.envelope.message_id)
        digest = item.envelope.digest
        row, earlier = rows.get(key), first.setdefault(key, item)
        if row is not None:
            item.repeat_of = row
            conflict = row.digest != digest
        elif earlier is not item:
            item.echo_of = earlier
            conflict = earlier.envelope is not None and earlier.envelope.digest != digest
        else:
            continue
        if conflict:
            item.repeat_of = item.echo_of = None
            item.verdict = _unusable(
                ReplayConflict("another envelope with this messageId was sent before")
            )


def _judge_and_store(
    batch_id: str, items: list[Item], places: dict[str, Place], epoch: Asked | None
) -> Stored:
    """Steps (4) to (7), until the registry holds still; first at the epoch that was asked for."""
    undecided = [i for i in items if i.open]
    for _ in range(MOST_JUDGEMENTS):
        now = round(time.time(), 3)
        for item in undecided:
            item.verified = item.verdict = None
        view, epoch = current_view(now, epoch), None
        _verify(undecided, view, now)
        telemetry.lap("verify")
        verified = [i.verified for i in undecided if i.verified]
        facts = load_facts(verified, view, places, now)  # (5)
        telemetry.lap("facts")
        _judge(undecided, facts)
        telemetry.lap("judge")
        judged = [one for item in items if (one := _judged(item))]
        if not judged:  # nothing but repeats
            return Stored()
        try:
            return store(batch_id, judged, facts)
        except EpochMoved:
            logger.info("the registry changed while batch %s was judged; judging again", batch_id)
        finally:
            telemetry.lap("store")
    raise EpochMoved("the registry kept changing while a batch was judged")


def _verify(items: list[Item], view: RegistryView, now: float) -> None:
    kids = {kid for item in items for kid in _kids(item)}
    view.load({i.agent for i in items}, kids)
    for item in items:  # (4)
        if item.verdict is None:
            _verify_one(item, view, now)


def _kids(item: Item) -> set[str]:
    """The thumbprints that its signatures name; an unusable signature decides about the item."""
    assert item.envelope is not None
    try:
        item.kid = signature_header(item.envelope).kid
    except ATPError as problem:
        item.verdict = _unusable(problem)
        return set()
    return {item.kid} | entry_kids(item.envelope.provenance)


def _verify_one(item: Item, view: RegistryView, now: float) -> None:
    assert item.envelope is not None
    try:
        item.verified = judgement.verify(
            item.envelope,
            view.key(item.kid),
            session_agent=item.agent,
            hub_id=view.hub_id,
            now=now,
            find_key=view.key,
        )
    except ClockExpired as problem:
        item.verdict = Verdict("expired", problem.code, problem.detail)
    except ATPError as problem:
        item.verdict = _unusable(problem)


def _judge(items: Iterable[Item], facts: BatchFacts) -> None:
    for item in items:  # (6)
        if item.verified is None or item.verdict is not None:
            continue
        if (excess := _excess(item.verified, facts)) is not None:
            item.verdict = Verdict(
                "throttled", excess.code, excess.detail, retry_after=excess.retry_after
            )
            continue
        failpoints.hit("judge", item.verified)
        item.verdict = judgement.judge(item.verified, facts.of(item.verified))
        facts.note_judged(item.agent, item.verdict)
        if item.verdict.accepted:
            facts.note_accepted(item.verified)


def _excess(verified: VerifiedEnvelope, facts: BatchFacts) -> FlowThrottled | None:
    """Why a broadcast, and nothing else, has to wait."""
    envelope = verified.envelope
    return facts.broadcast_excess(envelope.sender) if envelope.target == BROADCAST_TARGET else None


def _judged(item: Item) -> Judged | None:
    """What is to be stored of an item; one that echoes what leaves no id behind shares its fate."""
    verdict = (item.echo_of or item).verdict
    if verdict is None or (item.echo_of and verdict.status in FINAL):
        return None
    return Judged(item.session, item.agent, item.envelope, item.verified, verdict)


def _decided(items: Iterable[Item], stored: Stored) -> Iterator[tuple[Envelope, Verdict]]:
    """What this batch stored with a verdict of its own; not what was told again."""
    for item in items:
        if item.envelope is None or item.verdict is None or item.echo_of:
            continue
        if (item.agent, item.envelope.message_id) in stored.entries:
            yield item.envelope, item.verdict


def _outcome(item: Item) -> tuple[str, str]:
    """Verdict and code as they are counted."""
    if item.fenced:
        return "fenced", "session.fenced"
    return (item.verdict.status, item.verdict.code) if item.verdict else ("repeat", "")


def _log_outcomes(items: Iterable[Item], stored: Stored) -> None:
    """One line for the batch: which frame of which session became which entry."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    became = []
    for item in items:
        message_id = item.envelope.message_id if item.envelope else ""
        entry = stored.entries.get((item.agent, message_id))
        became.append([item.session, message_id, *_outcome(item), entry])
    logger.debug("judged %d envelopes", len(became), extra={"envelopes": became})


def _unusable(problem: ATPError) -> Verdict:
    severity = judgement.VIOLATIONS.get(problem.code, "")
    return Verdict("invalid", problem.code, problem.detail, violation=severity)
