"""Store what agents acknowledge: what they have taken, what is done, what failed or is refused."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from django.db import connection, transaction

from atp.wire.ranges import Range, join_ranges
from messaging import failpoints
from messaging.layer.routes import Route, load_routes, load_send_only
from messaging.mail.attempts import MOST_FAILURES, Place, lock_waiting
from messaging.mail.done_places import MOST_UNDONE, DonePlaces
from messaging.mail.mailboxes import MailboxesLocked, locked_mailboxes, waiting_for_rows
from messaging.mail.withhold import entries_of_ended, mark_refused
from messaging.models import Delivery, Mailbox
from registry.trail.actions import EntryDraft, append
from registry.trail.kinds import Kind

ENTRIES_A_TIME = 256  # at most, while the log lock is held (docs/design/provenance.md#entry)
CODE_MAX_CHARS = 40  # of the column
SUBJECT_MAX_CHARS = 120  # of the ranges that the header of an entry names; the body has all

_COLUMNS = (
    "agent_id", "stream", "last_seq", "acked_seq", "done_ahead", "taken_seq", "taken_by",
    "agent__organisation__uid",
)  # fmt: skip
_ADVANCE = """
UPDATE messaging_mailbox SET acked_seq = ack.column3, taken_seq = ack.column4,
    taken_by = ack.column5{more}
FROM (VALUES {rows}) AS ack WHERE agent_id = ack.column1 AND stream = ack.column2
"""
_MORE = ", done_ahead = ack.column6, done_ahead_count = ack.column7"

StreamKey = tuple[str, str]  # agent and stream


class AcksPutOff(Exception):
    """Some acks could not be taken now: `put_off`; `taken` are those that were."""

    def __init__(self, taken: list[MailboxAck], put_off: list[MailboxAck]) -> None:
        super().__init__(f"{len(put_off)} acks wait for mailboxes that others hold")
        self.taken = taken
        self.put_off = put_off


@dataclass(frozen=True, slots=True)
class MailboxAck:
    """What a session acknowledges in one stream (docs/protocol.md#acks).

    With `done` as `None`, everything up to `seq` is taken and done, and `refused` is a code if
    the recipient refuses the delivery `seq` itself, else "". Otherwise everything up to `seq` is
    taken, the ranges `done` and the places in `refusals` (place, code) are done, and `retries`
    (place, failures) tells how many handlers of a place have failed. A `copy` is of a session that
    only sends: it tells what is done, and nothing else of it counts.
    """

    agent: str
    session: str
    stream: str
    seq: int
    refused: str = ""
    done: tuple[Range, ...] | None = None
    retries: tuple[tuple[int, int], ...] = ()
    refusals: tuple[tuple[int, str], ...] = ()
    copy: bool = False

    @property
    def refused_places(self) -> tuple[tuple[int, str], ...]:
        """The places that are refused, with their codes."""
        return ((self.seq, self.refused), *self.refusals) if self.refused else self.refusals

    @property
    def weight(self) -> int:
        """How many entries it makes and deliveries it changes, at most."""
        if not (self.refused or self.refusals or self.retries):
            return 1
        return 1 + bool(self.refused) + len(self.refusals) + len(self.retries)


@dataclass(slots=True)
class _Stream:
    """A locked mailbox, and what the acks of one call change in it."""

    last: int
    done: DonePlaces
    taken: int
    taken_by: str
    was_ahead: bool
    organisation: str
    changed: bool = False
    new: list[Range] = field(default_factory=list)

    def take(self, ack: MailboxAck, taker: str) -> None:
        """Take an ack, as far as its places have a delivery."""
        seq = min(ack.seq, self.last)
        for first, last in ((1, seq),) if ack.done is None else ack.done:
            if not ack.copy or self._is_near(first):
                self.new += self.done.add(first, min(last, self.last))
        if ack.copy:
            self.changed |= bool(self.new)
            return
        for place, _ in ack.refusals:
            self.new += self.done.add(place, min(place, self.last))
        taken = max(seq, self.taken) if self.taken_by == taker else seq
        self.changed |= bool(self.new) or (taken, taker) != (self.taken, self.taken_by)
        self.taken, self.taken_by = taken, taker

    def _is_near(self, first: int) -> bool:
        """Whether so few places before `first` are not done that it may be done ahead of them.

        A session that takes mail is sent no more. Sessions that only send pass over the answers to
        others, which nobody may ever acknowledge.
        """
        return first - 1 - self.done.mark - self.done.ahead_count <= MOST_UNDONE

    @property
    def row(self) -> tuple[int, int, str]:
        """The counters to store."""
        return self.done.mark, self.taken, self.taken_by

    @property
    def new_places(self) -> DonePlaces:
        """The places that were not done before this call."""
        return DonePlaces(0, join_ranges(self.new))


def acknowledge(acks: Iterable[MailboxAck]) -> list[MailboxAck]:
    """Store a batch of acknowledgements; return those that were taken.

    Leave out an ack whose session is not the agent's current one. Ignore what an ack says about
    places beyond the last sequence number of its stream, so that no unsent delivery is
    acknowledged. What is done stays so: a refusal of it that comes later changes nothing. Raises
    `AcksPutOff`, after the others are taken, if other transactions hold mailboxes.
    """
    told = sorted(acks, key=lambda ack: (ack.agent, ack.stream, ack.seq))
    failpoints.hit("before_ack", told)
    locked = locked_mailboxes.among({ack.agent for ack in told})
    taken: list[MailboxAck] = []
    for portion in _portions(told):
        locked |= _take_free(portion, locked, taken)
    if locked:
        put_off = [ack for ack in told if ack.agent in locked]
        raise AcksPutOff([ack for ack in taken if ack.agent not in locked], put_off)
    return taken


def _portions(acks: Iterable[MailboxAck]) -> Iterator[list[MailboxAck]]:
    """Group acks so that a transaction has few entries; cut an ack that is too heavy alone."""
    portion: list[MailboxAck] = []
    left = ENTRIES_A_TIME
    for ack in acks:
        weight = ack.weight
        for piece in (ack,) if weight <= ENTRIES_A_TIME else _pieces(ack):
            weight = weight if piece is ack else piece.weight
            if weight > left:
                yield portion
                portion, left = [], ENTRIES_A_TIME
            portion.append(piece)
            left -= weight
    if portion:
        yield portion


def _pieces(ack: MailboxAck) -> Iterator[MailboxAck]:
    """Cut an ack into some that fit; what is refused comes before what is done."""
    most = ENTRIES_A_TIME - 1
    for start in range(0, len(ack.retries), most):
        retries = ack.retries[start : start + most]
        yield replace(ack, done=(), refusals=(), retries=retries)
    for start in range(0, len(ack.refusals), most):
        refusals = ack.refusals[start : start + most]
        yield replace(ack, done=(), refusals=refusals, retries=())
    yield replace(ack, refusals=(), retries=())


def _take_free(
    acks: Sequence[MailboxAck], locked: Collection[str], taken: list[MailboxAck]
) -> set[str]:
    """Take the acks of agents that are not `locked`; return those that turn out to be."""
    free = [ack for ack in acks if ack.agent not in locked]
    try:
        taken += _take(free)
    except MailboxesLocked:
        found = locked_mailboxes.look({ack.agent for ack in free})
        taken += _take([ack for ack in free if ack.agent not in found])
        return found
    return set()


def _take(acks: Sequence[MailboxAck]) -> list[MailboxAck]:
    """Take the acks of current sessions in one transaction, with their entries; return them."""
    if not acks:
        return []
    with transaction.atomic():
        streams = _lock({(ack.agent, ack.stream) for ack in acks})
        # Read under the locks: a session that was replaced before can't overwrite its successor.
        takers = _takers(acks, load_routes({ack.agent for ack in acks}))
        current = [ack for ack in acks if ack.session in takers]
        for ack in current:
            if (stream := streams.get((ack.agent, ack.stream))) is not None:
                stream.take(ack, takers[ack.session])
        _advance(streams)
        refused = _change_deliveries(current, streams)
        entries = [_entry(key, stream) for key, stream in streams.items() if stream.new]
        if entries:
            append([*entries, *_refusals(refused)])
        failpoints.hit("inside_ack", streams)
    return current


def _takers(acks: Collection[MailboxAck], routes: Mapping[str, Route]) -> dict[str, str]:
    """Return the taker of each session whose acks count, on a live node.

    That is the current one of its agent, or for copies one that only sends.
    """
    named = ((ack, routes.get(ack.agent)) for ack in acks)
    takers = {a.session: r.taker for a, r in named if r and r.live and r.session == a.session}
    if copied := {ack.agent for ack in acks if ack.copy}:
        sending = (route for some in load_send_only(copied).values() for route in some)
        takers |= {route.session: route.taker for route in sending}
    return takers


def _lock(wanted: Collection[StreamKey]) -> dict[StreamKey, _Stream]:
    """Lock the mailboxes of these agents and streams in sorted order; return those wanted."""
    boxes = Mailbox.objects.select_for_update(of=("self",)).filter(
        agent_id__in={agent for agent, _ in wanted}, stream__in={stream for _, stream in wanted}
    )
    with waiting_for_rows():
        rows = list(boxes.order_by("agent_id", "stream").values_list(*_COLUMNS))
    return {
        (agent, stream): _Stream(
            last, DonePlaces(acked, ahead or ()), taken, taken_by, bool(ahead), organisation
        )
        for agent, stream, last, acked, ahead, taken, taken_by, organisation in rows
        if (agent, stream) in wanted
    }


def _advance(streams: Mapping[StreamKey, _Stream]) -> None:
    """Write the counters that changed, in one statement; ranges only where there are any."""
    changed = {key: stream for key, stream in streams.items() if stream.changed}
    if not changed:
        return
    ahead = any(stream.was_ahead or stream.done.ahead for stream in changed.values())
    values = [
        (*key, *stream.row, *(_ahead(stream) if ahead else ())) for key, stream in changed.items()
    ]
    row = f"({', '.join(['%s'] * len(values[0]))})"
    sql = _ADVANCE.format(more=_MORE if ahead else "", rows=", ".join([row] * len(values)))
    with connection.cursor() as cursor:
        cursor.execute(sql, [value for row in values for value in row])


def _ahead(stream: _Stream) -> tuple[object, int]:
    done = stream.done
    return connection.ops.adapt_json_value(done.ahead, None), done.ahead_count


def _change_deliveries(
    acks: Sequence[MailboxAck], streams: Mapping[StreamKey, _Stream]
) -> list[Delivery]:
    """Note failures and refusals in deliveries that wait; return those that are refused now."""
    refused = _newly_refused(acks, streams)
    failures = _failures(acks, streams, refused)
    if not (named := refused.keys() | failures.keys()):
        return []
    rows = lock_waiting(named)
    _raise_failures(rows, failures)
    codes = {row.pk: refused.get((row.recipient_id, row.stream, row.seq), "") for row in rows}
    dead = [row for row in rows if codes[row.pk]]
    mark_refused(dead, codes)
    return dead


def _raise_failures(rows: Sequence[Delivery], failures: Mapping[Place, int]) -> None:
    risen = []
    for row in rows:
        told = failures.get((row.recipient_id, row.stream, row.seq), 0)
        if told > row.failures:
            row.failures = told
            risen.append(row)
    if risen:
        Delivery.objects.bulk_update(risen, ["failures"])


def _newly_refused(
    acks: Sequence[MailboxAck], streams: Mapping[StreamKey, _Stream]
) -> dict[Place, str]:
    """Return the codes of the places that are refused and were not done before this call."""
    codes: dict[Place, str] = {}
    for ack in acks:
        if not (told := ack.refused_places) or (ack.agent, ack.stream) not in streams:
            continue
        new = streams[ack.agent, ack.stream].new_places
        for place, code in told:
            if place in new:
                codes[ack.agent, ack.stream, place] = code[:CODE_MAX_CHARS]
    return codes


def _failures(
    acks: Sequence[MailboxAck], streams: Mapping[StreamKey, _Stream], refused: Collection[Place]
) -> dict[Place, int]:
    """Return how many handlers of a place have failed; leave out what is done otherwise."""
    failures: dict[Place, int] = {}
    for ack in acks:
        if not ack.retries or (stream := streams.get((ack.agent, ack.stream))) is None:
            continue
        for seq, count in ack.retries:
            place = (ack.agent, ack.stream, seq)
            if place in refused or (seq <= stream.last and seq not in stream.done):
                failures[place] = max(failures.get(place, 0), min(count, MOST_FAILURES))
    return failures


def _refusals(rows: Sequence[Delivery]) -> list[EntryDraft]:
    return [
        replace(entry, actor=f"agent:{entry.recipient}")
        for entry in entries_of_ended(Kind.DELIVERY_REFUSED, rows)
    ]


def _entry(stream_key: StreamKey, stream: _Stream) -> EntryDraft:
    agent, name = stream_key
    ranges = join_ranges(stream.new)
    return EntryDraft(
        kind=Kind.DELIVERY_ACKNOWLEDGED,
        actor=f"agent:{agent}",
        subject=f"{name} {_in_words(ranges)}",
        recipient=agent,
        recipient_organisation=stream.organisation,
        organisations=(stream.organisation,),
        shared={"stream": name, "ranges": ranges},
    )


def _in_words(ranges: Iterable[Range]) -> str:
    """Return ranges for the header of an entry, as `7` or `1-3 7-9`; cut where they are many."""
    text = " ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    if len(text) <= SUBJECT_MAX_CHARS:
        return text
    return f"{text[:SUBJECT_MAX_CHARS].rpartition(' ')[0]} ..."
