"""One batch of envelopes, from raw frames to receipts.

See docs/design/architecture.md#the-way-of-one-envelope.

(1) parse; (2) drop what a superseded session sent; (3) tell repeats their state; (4) verify
signatures; (5) load facts; (6) judge; (7) store, trail last; (8) publish after the commit.
What changed in the registry meanwhile sends it back to (4), with nothing written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.conf import settings

from atp.errors import ATPError, ClockExpired, FlowBusy, FlowThrottled
from atp.judging import judgement
from atp.judging.judgement import Verdict
from atp.judging.message import MessageFacts
from atp.trust.envelope import Envelope, VerifiedEnvelope, parse_envelope, signature_header
from atp.trust.provenance import entry_kids
from atp.types import BROADCAST_TARGET
from messaging import failpoints
from messaging.judging import outcome, rule_notices
from messaging.judging.accept import AlreadyJudged, Stored, store
from messaging.judging.conflicts import conflict, load_first_contents
from messaging.judging.facts import BatchFacts
from messaging.judging.item import (
    FINAL,
    Decided,
    Echo,
    Fenced,
    Parsed,
    Refused,
    Repeat,
    SentFrame,
    Signed,
    Stage,
    Unreadable,
    Verified,
    judged,
    unusable,
)
from messaging.judging.loading import load_facts
from messaging.judging.registry_view import RegistryView, ask_epoch, current_view
from messaging.layer import events
from messaging.layer.routes import (
    Route,
    ask_routes,
    load_send_only,
    routes_of,
)
from messaging.mail.mailboxes import MailboxesLocked, locked_mailboxes
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
LOCKED = Verdict("busy", FlowBusy.code, "the inbox of its recipient can't be written now")
MOST_JUDGEMENTS = 5  # of one batch, while officers keep changing the registry under it


def check(batch: Mapping[str, Any]) -> None:
    """Judge and store a batch `{"batch", "channel", "frames": [[session, agent, text], ...]}`.

    Errors of the database are not caught; in that case nothing is stored.
    """
    parsed = [_parse(SentFrame(*frame)) for frame in batch["frames"]]  # (1)
    telemetry.lap("parse")
    targets = {p.envelope.target for p in parsed if isinstance(p, Parsed)}
    with one_trip():
        asked_routes = ask_routes({p.frame.agent for p in parsed} | targets)
        known, epoch = _ask_known(parsed), ask_epoch()
    routes = routes_of(asked_routes)
    processes = _load_processes(parsed, routes)
    ours = _fence(parsed, processes)  # (2)
    telemetry.lap("fence")
    stages = _find_repeats(ours, known)  # (3)
    telemetry.lap("repeats")
    try:
        stages, stored = _judge_and_store(batch["batch"], stages, routes, processes, epoch)
    except AlreadyJudged:  # this very batch came before: its receipts are told again
        stored = Stored(unstored=Batch.objects.get(id=batch["batch"]).unstored)
        stages = _find_repeats(ours, _ask_known(ours))
    failpoints.hit("after_commit", stages)
    copies = _copies(stored, routes)
    news = outcome.news(batch["batch"], batch["channel"], stages, stored, routes, copies)
    telemetry.lap("receipts")
    news[batch["channel"]].tally = telemetry.tally(map(_outcome, stages))
    _log_outcomes(stages, stored)
    events.publish(news)  # (8)
    if stored.broadcasts:
        events.dispatch_fan_out()
    rule_notices.tell(_decided(stages, stored), stored.accepted_at)


def _parse(frame: SentFrame) -> Parsed | Unreadable:
    failpoints.hit("before_parse", frame.text)
    try:
        envelope = parse_envelope(frame.text, max_bytes=settings.ATP_MAX_ENVELOPE_BYTES)
    except ATPError as problem:
        return Unreadable(frame, unusable(problem))
    return Parsed(frame, envelope)


def _copies(stored: Stored, routes: Mapping[str, Route]) -> dict[str, list[Route]]:
    """Return the live sessions that only send of agents that others of their processes have asked.

    Nothing is read where all answers are for the sessions that take their agents' mail.
    """
    others = {
        one.decided.envelope.target
        for one in stored.deliveries
        if one.asked_by and not _takes_mail(one.asked_by, routes.get(one.decided.envelope.target))
    }
    return load_send_only(others) if others else {}


def _takes_mail(process: str, route: Route | None) -> bool:
    return route is not None and route.live and route.taker == process


def _load_processes(
    stages: Iterable[Parsed | Unreadable], routes: Mapping[str, Route]
) -> dict[tuple[str, str], str]:
    """Return the taker of each session that may send, by agent and session.

    That is the session that takes its agent's mail, or one that only sends.
    """
    processes = {(agent, r.session): r.taker for agent, r in routes.items() if r.live}
    senders = {(one.frame.agent, one.frame.session) for one in stages}
    if others := {agent for agent, _ in senders - processes.keys()}:
        for agent, some in load_send_only(others).items():
            processes |= {(agent, route.session): route.taker for route in some}
    return processes


def _fence(
    stages: Iterable[Parsed | Unreadable], processes: Collection[tuple[str, str]]
) -> list[Parsed | Unreadable | Fenced]:
    """Fence the frames of superseded sessions, and of sessions on nodes without a lease.

    This is not checked again before the commit. A frame of a session that ends meanwhile is still
    its agent's, and if the agent sends it again, it is a repeat by (agent, messageId).
    """
    return [
        one
        if (one.frame.agent, one.frame.session) in processes
        else Fenced(one.frame, one.message_id)
        for one in stages
    ]


def _ask_known(stages: Iterable[Stage]) -> Asked:
    return _KNOWN.ask({one.message_id for one in stages if isinstance(one, Parsed)})


def _find_repeats(stages: Sequence[Stage], asked: Asked) -> list[Stage]:
    """Find repeats, before signatures are verified; (agent, messageId) is the key."""
    known = {key for (key,) in asked.rows()}
    found = EnvelopeRow.objects.filter(pk__in=known).defer("content") if known else ()
    rows = {(row.sender_id, row.message_id): row for row in found}
    contents = load_first_contents(stages, rows) if rows else {}
    firsts: dict[tuple[str, str], tuple[int, Parsed]] = {}
    next_stages: list[Stage] = []
    for index, one in enumerate(stages):
        if isinstance(one, Parsed):
            first = firsts.setdefault(one.key, (index, one))
            earlier = contents.get(one.key) if one.key in rows else first[1].envelope
            next_stages.append(_repeat(one, rows.get(one.key), *first, earlier))
        else:
            next_stages.append(one)
    return next_stages


def _repeat(
    one: Parsed, row: EnvelopeRow | None, index: int, first: Parsed, earlier: Envelope | None
) -> Stage:
    """`one` as a repeat of `row`, an echo of `first`, a conflict with one of them, or itself."""
    if row is None and first is one:
        return one
    if one.envelope.digest != (first.envelope.digest if row is None else row.digest):
        return conflict(one, earlier)
    if row is None:
        return Echo(one.frame, one.envelope, index)
    return Repeat(one.frame, one.envelope, row)


def _judge_and_store(
    batch_id: str,
    stages: Sequence[Stage],
    routes: dict[str, Route],
    processes: Mapping[tuple[str, str], str],
    epoch: Asked | None,
) -> tuple[list[Stage], Stored]:
    """Steps (4) to (7), begun again while the registry changes; first at the epoch asked for.

    Raises `AlreadyJudged`, and `EpochMoved` when the registry does not come to rest.
    """
    targets = _targets(stages)
    locked = locked_mailboxes.among(targets)
    for _ in range(MOST_JUDGEMENTS):
        now = round(time.time(), 3)
        view, epoch = current_view(now, epoch), None
        verified = _verify(stages, view, now)
        telemetry.lap("verify")
        facts = load_facts(  # (5)
            [one.verified for one in verified if isinstance(one, Verified)], view, routes, now
        )
        facts.processes = processes
        telemetry.lap("facts")
        decided = _judge(_put_off(verified, locked), facts)
        telemetry.lap("judge")
        to_store = list(judged(decided))
        if not to_store:  # nothing but repeats
            return decided, Stored()
        try:
            return decided, store(batch_id, to_store, facts)
        except EpochMoved:
            logger.info("the registry changed while batch %s was judged; judging again", batch_id)
        except MailboxesLocked:
            locked = locked_mailboxes.look(targets)
            logger.warning(
                "%d mailboxes are locked by others; who writes to them waits", len(locked)
            )
        finally:
            telemetry.lap("store")
    raise EpochMoved("the registry kept changing while a batch was judged")


def _targets(stages: Iterable[Stage]) -> set[str]:
    return {one.envelope.target for one in stages if isinstance(one, Parsed)}


def _put_off(stages: Iterable[Stage], locked: Collection[str]) -> list[Stage]:
    """Refuse for now what goes to locked mailboxes; the others of the batch do not wait for it."""
    return [
        Refused(one.frame, one.envelope, LOCKED)
        if isinstance(one, Verified) and one.envelope.target in locked
        else one
        for one in stages
    ]


def _verify(stages: Iterable[Stage], view: RegistryView, now: float) -> list[Stage]:
    """Verify the signatures of parsed envelopes (4); return other stages unchanged."""
    signed = [_sign(one) if isinstance(one, Parsed) else one for one in stages]
    open_ones = [one for one in signed if isinstance(one, Signed)]
    kids = {kid for one in open_ones for kid in (one.kid, *entry_kids(one.envelope.provenance))}
    view.load({one.frame.agent for one in open_ones}, kids)
    return [_verify_one(one, view, now) if isinstance(one, Signed) else one for one in signed]


def _sign(one: Parsed) -> Signed | Refused:
    """Read the id of the signature's key."""
    try:
        return Signed(one.frame, one.envelope, signature_header(one.envelope).kid)
    except ATPError as problem:
        return Refused(one.frame, one.envelope, unusable(problem))


def _verify_one(one: Signed, view: RegistryView, now: float) -> Verified | Refused:
    try:
        verified = judgement.verify(
            one.envelope,
            view.key(one.kid),
            session_agent=one.frame.agent,
            hub_id=view.hub_id,
            now=now,
            find_key=view.key,
        )
    except ClockExpired as problem:
        verdict = Verdict("expired", problem.code, problem.detail)
        return Refused(one.frame, one.envelope, verdict)
    except ATPError as problem:
        return Refused(one.frame, one.envelope, unusable(problem))
    return Verified(one.frame, one.envelope, verified)


def _judge(stages: Iterable[Stage], facts: BatchFacts) -> list[Stage]:
    """Judge verified envelopes (6) in order: a verdict counts for the envelopes behind it."""
    return [_judge_one(one, facts) if isinstance(one, Verified) else one for one in stages]


def _judge_one(one: Verified, facts: BatchFacts) -> Decided:
    if (excess := _excess(one.verified, facts)) is not None:
        verdict = Verdict("throttled", excess.code, excess.detail, retry_after=excess.retry_after)
        return Decided(one.frame, one.envelope, one.verified, verdict)
    failpoints.hit("judge", one.verified)
    message, given = MessageFacts.of(one.verified), facts.of(one.verified)
    verdict = judgement.judge_message(message, given)
    # Now, because the facts of the batch go on with the next envelope.
    record = facts.recorder.record(message, given, verdict) if verdict.status in FINAL else None
    facts.note_judged(one.frame.agent, verdict)
    if verdict.accepted:
        facts.note_accepted(one.verified, verdict)
    elif judged_for := verdict.judged_for:
        facts.broadcasts.note_refused(one.frame.agent, judged_for)
    counted = verdict.status == "denied" and not facts.denials.enter(one.frame.agent, verdict.code)
    return Decided(one.frame, one.envelope, one.verified, verdict, counted, record)


def _excess(verified: VerifiedEnvelope, facts: BatchFacts) -> FlowThrottled | None:
    """Return why a broadcast has to wait; `None` for every other envelope."""
    envelope = verified.envelope
    return facts.broadcasts.excess(envelope.sender) if envelope.target == BROADCAST_TARGET else None


def _decided(stages: Iterable[Stage], stored: Stored) -> Iterator[tuple[Envelope, Verdict]]:
    """Yield the envelopes that this batch stored; no repeats and no copies."""
    for one in stages:
        if isinstance(one, Decided) and one.key in stored.entries:
            yield one.envelope, one.verdict


def _outcome(stage: Stage) -> tuple[str, str]:
    """Return verdict and code for the metrics."""
    if isinstance(stage, Fenced):
        return "fenced", "session.fenced"
    if isinstance(stage, Unreadable | Refused | Decided):
        return stage.verdict.status, stage.verdict.code
    return "repeat", ""


def _log_outcomes(stages: Iterable[Stage], stored: Stored) -> None:
    """One line for the batch: which frame of which session became which entry."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    became = []
    for one in stages:
        message_id = one.message_id or ""
        entry = stored.entries.get((one.frame.agent, message_id))
        became.append([one.frame.session, message_id, *_outcome(one), entry])
    logger.debug("judged %d envelopes", len(became), extra={"envelopes": became})
