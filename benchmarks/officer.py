"""An officer about to revoke: `python -m benchmarks.officer issuer SLUG` (or `agent ID`).

Says `ready` when it could, revokes when it is told to by a line, and says when that was committed,
by the clock that all processes of a machine share (`time.monotonic`).
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
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    from django.db import connection, transaction

    kind, name = sys.argv[1:]
    revoke = _revocation(kind, name)
    connection.ensure_connection()
    print("ready", flush=True)
    logging.disable()  # a broker that is down on purpose is no news
    sys.stdin.readline()
    try:
        with transaction.atomic():
            transaction.on_commit(lambda: print(time.monotonic(), flush=True))  # before all others
            revoke()
    except Exception as problem:  # of what follows a commit; the hub is measured, not the officer
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
