"""Whether a client takes its agent's mail, and how it logs in because of that.

One process takes an agent's mail. A client claims the mail with its first handler. Without a
handler, it leaves another process of the agent alone and gets a session that only sends beside it
(docs/protocol.md#connecting).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from atp.errors import ATPError, SessionSendOnly, SessionSuperseded
from atp.transports.base import Login
from atp.wire.frames import Welcome
from atp.wire.words import SEND_ONLY

__all__ = ["MailClaim", "explained"]


class MailClaim:
    """The claim of one client to its agent's mail; one that is `send_only` never makes it.

    `session` is the client's latest session, or "".
    """

    def __init__(self, *, send_only: bool = False) -> None:
        self._send_only = send_only
        self.made = False
        self.session = ""

    def check(self) -> None:
        """Raise `SessionSendOnly` if the client was made to send only."""
        if self._send_only:
            raise SessionSendOnly(
                "this client was made with send_only=True, so it takes no mail and has no handlers;"
                " leave that out in the one process that takes the agent's mail"
            )

    def login(self, base: Login) -> Login:
        """Return the login of the next connection."""
        return replace(base, takeover=self.made, resumes=self.session, send_only=self._send_only)

    def is_unmet(self, welcome: Welcome) -> bool:
        """Return whether the client claims mail in a session that takes none."""
        return self.made and welcome.send_only

    def yields(self, problem: ATPError, features: Collection[str]) -> bool:
        """Return whether a client that was superseded goes on beside the newer one.

        An older hub has no sessions that only send: there two clients would end each other forever.
        """
        return isinstance(problem, SessionSuperseded) and not self.made and SEND_ONLY in features


def explained(problem: ATPError, agent: str) -> ATPError:
    """Return the error that ends a client; if another process took over, with what to do."""
    if not isinstance(problem, SessionSuperseded):
        return problem
    return SessionSuperseded(
        f"another process logged in as {agent} and takes its mail now; several processes of one"
        " agent are not supported, except that one takes mail and the others only send: register"
        " handlers in one process, and make the clients of the others with send_only=True"
    )
