"""Agents whose SDK says of each message that it is done when it is taken, as it once did.

    python -m tests.crash.agent_mutant var/crash/agents-0.json

The checker must find that messages are lost where such a process is killed.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from atp.agent.inbox import Inbox
from atp.agent.mail import Mail
from atp.wire.words import MAIL
from tests.crash.agents import run


def acknowledge_when_taken() -> None:
    """Replace the SDK's function that notes a taken message."""
    attach = vars(Inbox)["_attach"]

    def and_done(self: Inbox, mail: Mail) -> bool:
        is_new = bool(attach(self, mail))
        self._acks[MAIL].finish(mail.place, mail.place)
        return is_new

    Inbox._attach = and_done  # type: ignore[method-assign]  # replaced on purpose


if __name__ == "__main__":
    acknowledge_when_taken()
    asyncio.run(run(Path(sys.argv[1])))
