"""A usual entry is small: beyond about 2,000 bytes a row PostgreSQL stores a body elsewhere."""

from __future__ import annotations

from atp.log import leaves
from registry.trail.models import Entry
from tests.cast import Player, write
from tests.messaging.conftest import LogIn

MOST_LEAF_BYTES = 740  # 600 is wanted (docs/design/provenance.md#size)
MOST_BODY_BYTES = 1_900


def test_a_usual_accepted_entry_is_small(log_in: LogIn, alice: Player, bob: Player) -> None:
    log_in(bob)
    receipt = log_in(alice).submit(write(alice, bob))
    assert receipt["status"] == "accepted"
    entry = Entry.objects.select_related("body").get(message_id=receipt["messageId"])
    stored = [bytes(entry.body.digests), *map(entry.body.content, leaves.SECTIONS)]
    assert len(bytes(entry.leaf)) <= MOST_LEAF_BYTES
    assert sum(map(len, stored)) <= MOST_BODY_BYTES
