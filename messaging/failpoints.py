"""Places where a test can make a process die or fail; off unless armed.

`ATP_FAILPOINTS="after_commit,before_insert:3"` ends the process with `os._exit(9)` at the named
place (at the third passing, here), and says so. `stop@before_commit` stops it there (SIGSTOP), as
a machine does that freezes. Tests in the same process arm a callable instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

_EXIT_STATUS = 9
_STOP = "stop@"


class Failpoints:
    """The failpoints of this process that are armed, each with what happens there."""

    def __init__(self) -> None:
        self._armed: dict[str, Callable[[object], None]] = {}

    def hit(self, name: str, subject: object = None) -> None:
        """Pass the failpoint `name`; do nothing unless it is armed."""
        if self._armed and (action := self._armed.get(name)):
            action(subject)

    def arm(self, name: str, action: Callable[[object], None]) -> None:
        """Call `action` with the failpoint's subject at each passing."""
        self._armed[name] = action

    def disarm(self, name: str) -> None:
        """Let `name` be passed again without effect; do nothing if it is not armed."""
        self._armed.pop(name, None)

    def arm_from_environment(self, text: str) -> None:
        """Arm every failpoint that `ATP_FAILPOINTS` names. Raises `ValueError` on nonsense."""
        for part in filter(None, text.split(",")):
            place, _, passing = part.strip().partition(":")
            name = place.removeprefix(_STOP)
            if not name or (passing and not (passing.isdecimal() and int(passing))):
                message = f"ATP_FAILPOINTS: {part!r} is not a place or place:passing, from 1 up"
                raise ValueError(message)
            do = _exit if name == place else _stop
            self.arm(name, _do_at(int(passing or "1"), do, name))


def _do_at(passing: int, do: Callable[[str], None], name: str) -> Callable[[object], None]:
    left = passing

    def action(_subject: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            do(name)

    return action


def _exit(name: str) -> None:
    os.write(2, f"failpoint {name}: this process ends here\n".encode())
    os._exit(_EXIT_STATUS)


def _stop(name: str) -> None:
    os.write(2, f"failpoint {name}: this process stops here\n".encode())
    os.kill(os.getpid(), signal.SIGSTOP)


_of_process = Failpoints()
hit, arm, disarm = _of_process.hit, _of_process.arm, _of_process.disarm
arm_from_environment = _of_process.arm_from_environment

arm_from_environment(os.environ.get("ATP_FAILPOINTS", ""))
