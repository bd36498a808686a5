"""Check the logs of the agents and the rows of the database against the hub's promises.

The module does no I/O: it takes logs and ledger and returns violations
(docs/reliability.md#the-crash-harness). Rules are independent of each other, so one fault shows
under each promise that it breaks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from atp.wire.words import STREAMS
from messaging.mail.done_places import DonePlaces
from tests.crash.handling import read_handlers, unhandled
from tests.crash.ledger import Ledger, Range, StoredBox, StoredDelivery, StoredEnvelope
from tests.crash.log import WRONG, AgentLog, Event, Kind

TOLD_TO_WAIT = {"busy", "throttled"}  # the SDK sends it again later, after other envelopes
JUDGED = {"accepted", "denied"}  # verdicts that leave a row and an entry
ENVELOPE_KINDS = {"envelope.accepted": "accepted", "envelope.denied": "denied"}

Key = tuple[str, str]  # sender and message id
StreamPosition = tuple[str, str, int]  # recipient, stream and seq


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise, and the message that broke it."""

    rule: str
    agent: str
    message: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.agent} {self.message}: {self.detail}"


@dataclass(slots=True)
class Seen:
    """The events of the logs, indexed for the rules."""

    sent: dict[Key, Event] = field(default_factory=dict)  # in the order of the first sending
    receipts: dict[Key, list[Event]] = field(default_factory=lambda: defaultdict(list))
    delivered: dict[StreamPosition, list[Event]] = field(default_factory=lambda: defaultdict(list))
    gone: dict[StreamPosition, Event] = field(default_factory=dict)  # what was told first
    # The places that an agent said are done, with the times, by agent and stream.
    done: dict[tuple[str, str], list[tuple[int, int, float]]] = field(
        default_factory=lambda: defaultdict(list)
    )


def check(logs: Sequence[AgentLog], ledger: Ledger) -> list[Violation]:
    """Return all violations; an empty list if the hub kept its promises.

    All agents must have settled before the ledger was read.
    """
    seen = _read(logs)
    stored = {(e.sender, e.message): e for e in ledger.envelopes}
    return [
        *_unsettled(logs),
        *_lost(seen, stored),
        *_undelivered(seen, ledger),
        *_invented(seen),
        *_gone_without_reason(seen, ledger),
        *_handlers(logs, seen, ledger),
        *_wrongly_answered(logs),
        *_gaps(logs, seen, ledger),
        *_out_of_order(seen, ledger.deliveries),
        *_told_otherwise(seen, stored),
        *_trail(seen, stored, ledger),
        *_acknowledgements(logs, ledger),
    ]


def _read(logs: Sequence[AgentLog]) -> Seen:
    seen = Seen()
    for log in logs:
        for event in log.events:
            key = (log.agent, event.message)
            match event.kind:
                case Kind.SENT:
                    seen.sent.setdefault(key, event)
                case Kind.RECEIPT:
                    seen.receipts[key].append(event)
                case Kind.DELIVERY:
                    seen.delivered[log.agent, event.stream, event.seq].append(event)
                case Kind.GONE:
                    for seq in range(event.seq, event.last + 1):
                        seen.gone.setdefault((log.agent, event.stream, seq), event)
                case Kind.ACK:
                    seen.done[log.agent, event.stream].append((event.seq, event.last, event.at))
    return seen


def _unsettled(logs: Iterable[AgentLog]) -> Iterator[Violation]:
    """After the last fault, each agent connects, gets all receipts and can send to all others."""
    for log in logs:
        last = [event.kind for event in log.of(Kind.BEGAN, Kind.SETTLED)][-1:]
        if last != [Kind.SETTLED]:
            yield Violation("settles", log.agent, "", "its last words had no receipt in time")


def _lost(seen: Seen, stored: Mapping[Key, StoredEnvelope]) -> Iterator[Violation]:
    """Each envelope with an `accepted` receipt is stored as it was sent."""
    for (agent, message), receipts in seen.receipts.items():
        if not any(receipt.status == "accepted" for receipt in receipts):
            continue
        envelope, sent = stored.get((agent, message)), seen.sent.get((agent, message))
        if envelope is None:
            yield Violation("lost", agent, message, "accepted, and the hub knows nothing of it")
        elif sent is not None and envelope.digest != sent.digest:
            yield Violation("lost", agent, message, "accepted, and stored with another content")


def _undelivered(seen: Seen, ledger: Ledger) -> Iterator[Violation]:
    """Each accepted envelope has its deliveries, and each delivery reached its recipient."""
    deliveries = Counter((d.sender, d.message) for d in ledger.deliveries)
    for envelope in ledger.envelopes:
        wanted = envelope.recipients if envelope.status == "accepted" else 0
        found = deliveries[envelope.sender, envelope.message]
        if found != wanted or envelope.waiting:
            detail = f"{wanted} recipients, {found} deliveries"
            yield Violation("delivered", envelope.sender, envelope.message, detail)
    for delivery in ledger.deliveries:
        position = (delivery.recipient, delivery.stream, delivery.seq)
        brought = seen.delivered.get(position, [])
        if any(event.message != delivery.message for event in brought):
            yield _of_delivery("delivered", delivery, "another message was delivered instead")
        elif not brought and position not in seen.gone:
            yield _of_delivery("delivered", delivery, "it never came")


def _invented(seen: Seen) -> Iterator[Violation]:
    """Each delivery was sent by its sender with this content, and has one sequence number only."""
    placed: dict[tuple[str, str, str], int] = {}
    for (recipient, stream, seq), events in seen.delivered.items():
        for event in events:
            sent = seen.sent.get((event.peer, event.message))
            if sent is None:
                detail = f"{event.peer} never sent it, and it came as {stream} {seq}"
                yield Violation("sent", recipient, event.message, detail)
            elif sent.digest != event.digest:
                yield Violation("sent", recipient, event.message, "it came with another content")
            elif sent.peer not in ("*", recipient):
                yield Violation("sent", recipient, event.message, f"it was for {sent.peer}")
            if placed.setdefault((recipient, event.peer, event.message), seq) != seq:
                yield Violation("sent", recipient, event.message, "it has two sequence numbers")


def _gone_without_reason(seen: Seen, ledger: Ledger) -> Iterator[Violation]:
    """Each delivery that is said to be gone had expired, was done, or is a dead letter."""
    for delivery in ledger.deliveries:
        told = seen.gone.get((delivery.recipient, delivery.stream, delivery.seq))
        sent = seen.sent.get((delivery.sender, delivery.message))
        if told is None or sent is None:
            continue
        match told.code:
            case "clock.expired":
                is_true = told.at >= sent.expires
            case "delivery.done":
                places = seen.done[delivery.recipient, delivery.stream]
                is_true = any(first <= delivery.seq <= last for first, last, _ in places)
            case code:
                is_true = delivery.state == "refused" and delivery.code == code
        if not is_true:
            yield _of_delivery("delivered", delivery, f"told as gone ({told.code}) before its time")


def _handlers(logs: Sequence[AgentLog], seen: Seen, ledger: Ledger) -> Iterator[Violation]:
    """What was delivered is handled, by one handler at a time, and what failed is counted right."""
    found = read_handlers(logs)
    for fault in (*found.faults, *unhandled(found, ledger.deliveries, seen.sent, seen.done)):
        yield Violation(fault.rule, fault.agent, fault.message, fault.detail)


def _wrongly_answered(logs: Iterable[AgentLog]) -> Iterator[Violation]:
    for log in logs:
        for event in log.of(Kind.OUTCOME):
            if event.status == WRONG:
                yield Violation("answered", log.agent, "", "with the answer to something else")


def _gaps(logs: Iterable[AgentLog], seen: Seen, ledger: Ledger) -> Iterator[Violation]:
    """Sequence numbers have no gap: in the rows, on each connection, and over all connections."""
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for delivery in ledger.deliveries:
        rows[delivery.recipient, delivery.stream].append(delivery.seq)
    for box in ledger.boxes:
        if sorted(rows[box.agent, box.stream]) != list(range(1, box.last + 1)):
            yield Violation("gapless", box.agent, "", f"the rows of {box.stream}")
        for seq in range(1, box.last + 1):
            position = (box.agent, box.stream, seq)
            if position not in seen.delivered and position not in seen.gone:
                yield Violation("gapless", box.agent, "", f"{box.stream} {seq} was never told")
    for log in logs:
        yield from _gaps_of_connections(log)


def _gaps_of_connections(log: AgentLog) -> Iterator[Violation]:
    """A connection begins right after the last acknowledged number or earlier, and skips none."""
    acknowledged: dict[str, DonePlaces] = {stream: DonePlaces() for stream in STREAMS}
    expected: dict[str, int | None] = dict.fromkeys(STREAMS)
    for event in log.of(Kind.OPENED, Kind.DELIVERY, Kind.GONE, Kind.ACK):
        if event.kind is Kind.OPENED:
            expected = dict.fromkeys(STREAMS)
        elif event.kind is Kind.ACK:
            acknowledged[event.stream].add(event.seq, event.last)
        else:
            wanted, last = expected[event.stream], event.last or event.seq
            beyond = acknowledged[event.stream].mark + 1 if wanted is None else wanted
            if event.seq > beyond:
                detail = f"{event.stream} {event.seq} came where {beyond} was due"
                yield Violation("gapless", log.agent, event.message, detail)
            expected[event.stream] = max(last + 1, wanted or 0)


def _out_of_order(seen: Seen, deliveries: Iterable[StoredDelivery]) -> Iterator[Violation]:
    """Each stream keeps the order of the accepted envelopes of one sender.

    Broadcasts are delivered after their acceptance, so their order is checked separately.
    """
    order = {key: number for number, key in enumerate(seen.sent)}
    streams: dict[tuple[str, str, str, bool], list[StoredDelivery]] = defaultdict(list)
    for delivery in deliveries:
        key = (delivery.sender, delivery.message)
        statuses = {receipt.status for receipt in seen.receipts.get(key, ())}
        if key in order and "accepted" in statuses and not statuses & TOLD_TO_WAIT:
            broadcast = seen.sent[key].peer == "*"
            of_sender = (delivery.sender, delivery.recipient, delivery.stream, broadcast)
            streams[of_sender].append(delivery)
    for ordered in streams.values():
        ordered.sort(key=lambda delivery: delivery.seq)
        for earlier, later in pairwise(ordered):
            if order[earlier.sender, earlier.message] > order[later.sender, later.message]:
                detail = f"it was sent before {earlier.message}, which came first"
                yield _of_delivery("order", later, detail)


def _told_otherwise(seen: Seen, stored: Mapping[Key, StoredEnvelope]) -> Iterator[Violation]:
    """Each final receipt agrees with the stored verdict."""
    for (agent, message), receipts in seen.receipts.items():
        if not message:
            continue
        envelope = stored.get((agent, message))
        status = envelope.status if envelope is not None else "nothing"
        for receipt in receipts:
            final = receipt.status not in TOLD_TO_WAIT
            fits = receipt.status == status or (
                receipt.status not in JUDGED and status not in JUDGED
            )
            if final and not fits:
                detail = f"told {receipt.status} ({receipt.code}), stored as {status}"
                yield Violation("receipts", agent, message, detail)


def _trail(seen: Seen, stored: Mapping[Key, StoredEnvelope], ledger: Ledger) -> Iterator[Violation]:
    """No index is missing, each leaf has its hash, and each verdict has exactly one entry."""
    for index, entry in enumerate(ledger.entries):
        if entry.index != index:
            yield Violation("trail", "", "", f"entry {entry.index} where {index} was due")
            break
        if not entry.sound:
            yield Violation("trail", "", "", f"the leaf of entry {index} has another hash")
    verdicts = Counter(
        ((e.sender, e.message), ENVELOPE_KINDS[e.kind])
        for e in ledger.entries
        if e.kind in ENVELOPE_KINDS
    )
    wanted = Counter((key, e.status) for key, e in stored.items() if e.status in JUDGED)
    for (sender, message), status in (verdicts - wanted) + (wanted - verdicts):
        detail = f"{verdicts[(sender, message), status]} entries say {status}"
        yield Violation("trail", sender, message, detail)
    yield from _entries_of_receipts(seen, ledger)


def _entries_of_receipts(seen: Seen, ledger: Ledger) -> Iterator[Violation]:
    """The entry that a receipt names has the same verdict."""
    entries = {
        entry.index: (entry.sender, entry.message, entry.verdict) for entry in ledger.entries
    }
    for (agent, message), receipts in seen.receipts.items():
        for receipt in receipts:
            told = (agent, message, receipt.status)
            if receipt.entry is not None and entries.get(receipt.entry) != told:
                detail = f"its receipt names entry {receipt.entry}, which says otherwise"
                yield Violation("trail", agent, message, detail)


def _acknowledgements(logs: Iterable[AgentLog], ledger: Ledger) -> Iterator[Violation]:
    """Only recipients acknowledge; the trail has each acknowledged number once."""
    said: dict[tuple[str, str], DonePlaces] = defaultdict(DonePlaces)
    for log in logs:
        for event in log.of(Kind.ACK):
            said[log.agent, event.stream].add(event.seq, event.last)
    entered: dict[tuple[str, str], list[Range]] = defaultdict(list)
    for entry in ledger.entries:
        if entry.acknowledged:
            entered[entry.recipient, entry.acknowledged] += entry.ranges
    for box in ledger.boxes:
        stream_key = (box.agent, box.stream)
        if unsaid := _unsaid(box, said[stream_key]):
            detail = f"{box.stream} {unsaid} is acknowledged, but not by the agent"
            yield Violation("acknowledged", box.agent, "", detail)
        if not _enters(entered[stream_key], box):
            yield Violation("acknowledged", box.agent, "", f"the entries of {box.stream}")


def _unsaid(box: StoredBox, said: DonePlaces) -> list[Range]:
    """Return what is acknowledged in a mailbox and was not by its agent."""
    ranges = [(1, box.acknowledged), *box.ahead]
    return [gap for first, last in ranges for gap in said.gaps(first - 1, last)]


def _enters(ranges: Sequence[Range], box: StoredBox) -> bool:
    """Return whether entries about these ranges name what is acknowledged, each number once."""
    stored = DonePlaces()
    repeated = [places for places in ranges if stored.add(*places) != [places]]
    return not repeated and (stored.mark, tuple(stored.ahead)) == (box.acknowledged, box.ahead)


def _of_delivery(rule: str, delivery: StoredDelivery, detail: str) -> Violation:
    name = f"{delivery.stream} {delivery.seq} of {delivery.recipient}"
    return Violation(rule, delivery.sender, delivery.message, f"{name}: {detail}")
