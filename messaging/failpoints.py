"""Places where a test can make a process die or fail; off unless armed.

`ATP_FAILPOINTS="after_commit,before_insert:3"` ends the process with `os._exit(9)` at the named
place (at the third passing, here), and says so. Tests in the same process arm a callable instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_EXIT_STATUS = 9

_armed: dict[str, Callable[[object], None]] = {}


def hit(name: str, subject: object = None) -> None:
    """Pass the place `name`; does nothing unless it is armed."""
    if _armed and (action := _armed.get(name)):
        action(subject)


def arm(name: str, action: Callable[[object], None]) -> None:
    """Call `action` with the place's subject at each passing."""
    _armed[name] = action


def disarm(name: str) -> None:
    _armed.pop(name, None)


def arm_from_environment(text: str) -> None:
    """Arm every place that `ATP_FAILPOINTS` names; raises `ValueError` on nonsense."""
    for part in filter(None, text.split(",")):
        name, _, passing = part.strip().partition(":")
        if not name or (passing and not (passing.isdecimal() and int(passing))):
            raise ValueError(f"ATP_FAILPOINTS: {part!r} is not a place or place:passing, from 1 up")
        arm(name, _exit_at(name, int(passing or "1")))


def _exit_at(name: str, passing: int) -> Callable[[object], None]:
    left = passing

    def action(_subject: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.write(2, f"failpoint {name}: this process ends here\n".encode())
            os._exit(_EXIT_STATUS)

    return action


arm_from_environment(os.environ.get("ATP_FAILPOINTS", ""))
