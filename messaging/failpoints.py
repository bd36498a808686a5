"""Places where a test can make a process die or fail; off unless armed.

`ATP_FAILPOINTS="after_commit,before_insert:3"` ends the process with `os._exit(9)` at the named
place (at the third passing, here), and says so. Tests in the same process arm a callable instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_EXIT_STATUS = 9


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
            name, _, passing = part.strip().partition(":")
            if not name or (passing and not (passing.isdecimal() and int(passing))):
                message = f"ATP_FAILPOINTS: {part!r} is not a place or place:passing, from 1 up"
                raise ValueError(message)
            self.arm(name, _exit_at(name, int(passing or "1")))


def _exit_at(name: str, passing: int) -> Callable[[object], None]:
    left = passing

    def action(_subject: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.write(2, f"failpoint {name}: this process ends here\n".encode())
            os._exit(_EXIT_STATUS)

    return action


_of_process = Failpoints()
hit, arm, disarm = _of_process.hit, _of_process.arm, _of_process.disarm
arm_from_environment = _of_process.arm_from_environment

arm_from_environment(os.environ.get("ATP_FAILPOINTS", ""))
