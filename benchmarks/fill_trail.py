"""Fill a hub's trail with entries: `python -m benchmarks.fill_trail 10000000`.

Only for benchmarks: it appends to the trail, from which nothing can be deleted, so it refuses a
database that has messages of agents, unless `--beside-messages` is given. Of a thousand entries,
so many are of each kind (`MIX`), as in an hour of a hub with many agents; all that is rare is
spread evenly, but `agent.created` and `key.approved` are at the begin.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import django

if TYPE_CHECKING:
    from registry.trail.actions import EntryDraft

CHUNK = 8_192  # entries in a transaction
AGENTS = 1_000
OFFICERS = 20
REGISTERED_FIRST = 20_000  # entries at the begin that are about agents and keys
SAID_SECONDS = 5.0  # between two lines about the progress

# Kind -> how many of a thousand entries.
MIX = {
    "envelope.accepted": 450,
    "delivery.acknowledged": 420,
    "session.opened": 40,
    "session.closed": 40,
    "envelope.denied": 25,
    "score.changed": 10,
    "envelope.expired": 6,
    "refusals.counted": 4,
    "trail.queried": 3,
    "attestation.renewed": 1,
    "policy.changed": 1,
}
RULES = ("allow what is attested", "no restricted data after hours", "deny unknown organisations")
SENSITIVITIES = ("public", "internal", "confidential", "restricted")


def drafts(log_size: int) -> Iterator[EntryDraft]:
    """Yield entries without end, the same ones for a log of the same size."""
    chosen = random.Random(log_size)  # noqa: S311  # no secret
    kinds = list(MIX)
    for number in range(REGISTERED_FIRST - log_size):
        yield _plain(chosen, "agent.created" if number % 2 else "key.approved")
    while True:
        for kind in chosen.choices(kinds, weights=list(MIX.values()), k=CHUNK):
            yield _MAKERS.get(kind, _plain)(chosen, kind)


def fill(count: int, *, say: Callable[[str], Any] = print) -> None:
    """Append `count` entries; then update the database's statistics."""
    from django.db import transaction

    from registry.trail.actions import MOST_ENTRIES, append
    from registry.trail.models import Entry

    made, done, said = drafts(Entry.objects.count()), 0, time.monotonic()
    while done < count:
        with transaction.atomic():
            for _ in range(0, min(CHUNK, count - done), MOST_ENTRIES):
                part = list(islice(made, min(MOST_ENTRIES, count - done)))
                append(part)
                done += len(part)
        if time.monotonic() - said > SAID_SECONDS:
            say(f"{done:,} of {count:,}")
            said = time.monotonic()
    _update_statistics()


def has_messages() -> bool:
    """Return whether agents have sent messages over this hub."""
    from messaging.models import Envelope

    return Envelope.objects.exists()


def _update_statistics() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("VACUUM (ANALYZE) registry_entry, registry_entrybody")
        else:
            cursor.execute("ANALYZE")


def _plain(chosen: random.Random, kind: str) -> EntryDraft:
    agent = _agent(chosen)
    actor = f"officer:{chosen.randrange(OFFICERS):012x}"
    return _draft(kind, actor=actor, subject=agent, shared={"reason": "as agreed", "before": agent})


def _judged(chosen: random.Random, kind: str) -> EntryDraft:
    sender, recipient, number = _agent(chosen), _agent(chosen), _number(chosen)
    denied = kind == "envelope.denied"
    why = {"code": "policy.denied", "detail": RULES[1]} if denied else {}
    return _draft(
        kind,
        actor=f"agent:{sender}",
        subject=number,
        sender=sender,
        recipient=recipient,
        message_id=number,
        request_id=_number(chosen) if chosen.random() < 0.5 else "",
        sensitivity=chosen.choices(SENSITIVITIES, weights=(600, 300, 99, 1))[0],
        verdict=kind.partition(".")[2],
        policy="Baseline",
        rule=chosen.choice(RULES[1:]) if denied else RULES[0],
        issuer="Local authority",
        score=chosen.randrange(40, 100),
        shared={
            **why,
            "digest": number * 2,
            "kid": "k" * 43,
            "type": "request",
            "level": "certified",
            "decision": {"consulted": {"sender.score": 81, "message.size": 812}, "set": "s" * 43},
            "scoreInputs": {
                "signatures": [100, 100],
                "violations": [],
                "days": 12,
                "pad": "p" * 300,
            },
        },
    )


def _delivered(chosen: random.Random, kind: str) -> EntryDraft:
    agent = _agent(chosen)
    body = {"stream": "mail", "from": 1, "to": chosen.randrange(1, 1_000)}
    return _draft(kind, actor=f"agent:{agent}", subject=agent, recipient=agent, shared=body)


def _of_session(chosen: random.Random, kind: str) -> EntryDraft:
    agent = _agent(chosen)
    return _draft(kind, actor=f"agent:{agent}", subject=agent, shared={"session": _number(chosen)})


def _draft(kind: str, **members: Any) -> EntryDraft:
    from registry.trail.actions import EntryDraft
    from registry.trail.kinds import Kind

    return EntryDraft(Kind(kind), **members)


def _agent(chosen: random.Random) -> str:
    """Return an agent; half of all entries are about a tenth of the agents."""
    most = AGENTS // 10 if chosen.random() < 0.5 else AGENTS
    return f"filled-{chosen.randrange(most)}"


def _number(chosen: random.Random) -> str:
    return str(uuid.UUID(int=chosen.getrandbits(128), version=4))


_MAKERS: dict[str, Callable[[random.Random, str], EntryDraft]] = {
    "envelope.accepted": _judged,
    "envelope.denied": _judged,
    "envelope.expired": _judged,
    "delivery.acknowledged": _delivered,
    "session.opened": _of_session,
    "session.closed": _of_session,
}


def main() -> None:
    """Fill the trail of the environment's database."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", type=int, help="how many entries are appended")
    parser.add_argument("--beside-messages", action="store_true", help="even if there are messages")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    if has_messages() and not options.beside_messages:
        sys.exit("This hub has messages of agents; --beside-messages fills its trail all the same.")
    started = time.perf_counter()
    fill(options.entries)
    print(f"appended {options.entries:,} entries in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
