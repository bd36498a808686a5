"""What the machine's kernel says about its own clock: whether it is synchronised, and how well.

An entry's time is worth what the hub's clock is worth. The kernel knows it from the program that
sets the clock (NTP or PTP), on Linux by adjtimex(2).
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass

_STA_UNSYNC = 0x0040  # adjtimex(2), status bits
_STA_NANO = 0x2000  # `offset` is in nanoseconds, else in microseconds
_STA_PPSSIGNAL = 0x0100


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", ctypes.c_long * 2),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_byte * 128),  # more than any version has
    )


@dataclass(frozen=True, slots=True)
class ClockState:
    """The state of the clock. Errors and offset are in microseconds; `None` if nobody knows."""

    source: str  # "ntp", "pps", "none" (nobody sets the clock) or "unknown"
    offset: int | None = None
    largest_error: int | None = None


def read_clock() -> ClockState:
    """Return what the kernel says; the source is `unknown` where it can't be asked."""
    if not sys.platform.startswith("linux"):
        return ClockState("unknown")
    state = _Timex()  # `modes` is 0: it reads and changes nothing
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
            return ClockState("unknown")
    except (OSError, AttributeError):
        return ClockState("unknown")
    if state.status & _STA_UNSYNC:
        return ClockState("none")
    source = "pps" if state.status & _STA_PPSSIGNAL else "ntp"
    offset = state.offset // 1000 if state.status & _STA_NANO else state.offset
    return ClockState(source, offset, state.maxerror)
