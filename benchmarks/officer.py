"""An officer that revokes on request: `python -m benchmarks.officer issuer SLUG` (or `agent ID`).

It prints `ready`, waits for a line, revokes, and prints the time of the commit by `time.monotonic`,
which all processes of a machine share.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from functools import partial

import django

REASON = "benchmark of revocation"


def main() -> None:
    """Wait for a line on standard input, then revoke."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    from django.db import connection, transaction

    kind, name = sys.argv[1:]
    revoke = _revocation(kind, name)
    connection.ensure_connection()
    print("ready", flush=True)
    logging.disable()  # the broker can be down on purpose
    sys.stdin.readline()
    try:
        with transaction.atomic():
            # Registered before the actions register theirs, so it runs first.
            transaction.on_commit(lambda: print(time.monotonic(), flush=True))
            revoke()
    except Exception as problem:  # after the commit; only the hub is measured
        print(f"the officer was told: {type(problem).__name__}: {problem}", file=sys.stderr)


def _revocation(kind: str, name: str) -> Callable[[], object]:
    from registry.agents.actions.life import revoke_agent
    from registry.issuers.actions import revoke_issuer
    from registry.models import Issuer
    from registry.officers.actor import Actor

    if kind == "agent":
        return partial(revoke_agent, name, actor=Actor.hub(), reason=REASON)
    issuer = Issuer.objects.get(slug=name)
    return partial(revoke_issuer, issuer.pk, actor=Actor.hub(), reason=REASON)


if __name__ == "__main__":
    main()
