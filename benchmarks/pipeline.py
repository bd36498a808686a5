"""Judge and store batches without sockets: `python -m benchmarks.pipeline` on a migrated hub.

It needs Django on the hub's database, so it runs in its own process. It prints one JSON object.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from pathlib import Path

import django

from benchmarks.load import Identity, load_identities

BATCHES = 20
BATCH = 256
LIFETIME_SECONDS = 3600


def main() -> None:
    """Judge batches for a while and print the figures."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    from messaging.judging import pipeline

    identities = load_identities(Path(sys.argv[1]))
    sessions = _open_sessions([i.agent for i in identities])
    batches = [_batch(identities, sessions) for _ in range(BATCHES + 1)]
    pipeline.check(batches.pop())  # fills caches and prepares statements
    print("begin", flush=True)
    started, spent = time.perf_counter(), time.process_time()
    for batch in batches:
        pipeline.check(batch)
    elapsed, spent = time.perf_counter() - started, time.process_time() - spent
    print("end", flush=True)
    json.dump({"envelopes": BATCHES * BATCH, "seconds": elapsed, "cpu": spent}, sys.stdout)


def _open_sessions(agents: list[str]) -> dict[str, str]:
    """Open sessions on a node made for this run, so that no envelope is fenced."""
    from django.utils import timezone

    from messaging.models import Presence, Session
    from messaging.sessions import leases

    node = uuid.uuid4()
    leases.take(node, "bench", "bench.node")
    sessions = {agent: str(uuid.uuid4()) for agent in agents}
    now = timezone.now()
    Session.objects.bulk_create(
        Session(id=s, agent_id=a, node_id=node, kid="", opened_at=now) for a, s in sessions.items()
    )
    Presence.objects.bulk_create(
        [Presence(agent_id=a, session_id=s, node_id=node) for a, s in sessions.items()],
        update_conflicts=True,
        unique_fields=["agent"],
        update_fields=["session_id", "node"],
    )
    return sessions


def _batch(identities: list[Identity], sessions: dict[str, str]) -> dict[str, object]:
    half = len(identities) // 2
    frames = []
    for n in range(BATCH):
        sender, receiver = identities[n % half], identities[half + n % half]
        _, letter = sender.sign(receiver.agent, filler="x" * 100, lifetime_seconds=LIFETIME_SECONDS)
        frames.append([sessions[sender.agent], sender.agent, letter.decode()])
    return {
        "batch": str(uuid.uuid4()),
        "channel": "bench.node",
        "frames": frames,
        "announce": False,
    }


if __name__ == "__main__":
    main()
