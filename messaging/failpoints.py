"""Failpoints: named lines of the code where a test can end a process; off unless armed.

`ATP_FAILPOINTS="after_commit,before_insert:3"` ends the process with `os._exit(9)` at the first hit
of `after_commit` or the third hit of `before_insert`, and prints its name. `stop@before_commit`
stops the process there (SIGSTOP), as a machine does that freezes. A test in the same process arms a
callable instead.
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
        """Run the action of the failpoint `name` with `subject`; do nothing if it is not armed."""
        if self._armed and (action := self._armed.get(name)):
            action(subject)

    def arm(self, name: str, action: Callable[[object], None]) -> None:
        """Call `action` with the subject at each hit of the failpoint `name`."""
        self._armed[name] = action

    def disarm(self, name: str) -> None:
        """Remove the action of the failpoint `name`, if it has one."""
        self._armed.pop(name, None)

    def arm_from_environment(self, text: str) -> None:
        """Arm every failpoint that `text` names, in the form of `ATP_FAILPOINTS`.

        Raises `ValueError` if a part is not a name or `name:count`, with a count of 1 or more.
        """
        for part in filter(None, text.split(",")):
            named, _, count = part.strip().partition(":")
            name = named.removeprefix(_STOP)
            if not name or (count and not (count.isdecimal() and int(count))):
                message = (
                    f"ATP_FAILPOINTS: {part!r} is neither a failpoint's name nor name:count. "
                    "Use a count of 1 or more."
                )
                raise ValueError(message)
            do = _exit if name == named else _stop
            self.arm(name, _do_at(int(count or "1"), do, name))


def _do_at(count: int, do: Callable[[str], None], name: str) -> Callable[[object], None]:
    left = count

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
