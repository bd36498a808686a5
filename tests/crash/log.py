"""What an agent writes down: a line for each thing that crossed its socket or reached its handler.

One file an agent, appended to by one process after the other; a line is out of the process before
the SDK hears of what it tells, so a `kill -9` loses nothing that the hub could have seen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import orjson

_REPEATED = {"message", "digest", "peer", "type", "stream", "status", "code"}  # kept once each
_BEGINNING = b'"kind":"began"'  # of the first line of each process

DONE, WRONG = "done", "wrong"  # outcomes; any other is the code of an error


class Kind(StrEnum):
    """What a line tells; the comment says which members of `Event` it has."""

    BEGAN = "began"  # a process took this agent up
    OPENED = "opened"  # a connection was welcomed: session
    CLOSED = "closed"  # it ended: code
    SENT = "sent"  # an envelope went out, the first time or again: message, digest, peer, type, ...
    RECEIPT = "receipt"  # message, status, code, entry
    DELIVERY = "delivery"  # stream, seq, message, digest, peer, type, expires
    GONE = "gone"  # stream, seq to last, code; `withheld` is told so as well
    ACK = "ack"  # stream, seq
    HANDLED = "handled"  # message, peer: it reached a handler
    OUTCOME = "outcome"  # what became of something sent, for its caller: type, status
    AWAY = "away"  # it disconnected by itself
    SETTLED = "settled"  # in the quiet: connected, and every word of it has its receipt
    ENDED = "ended"  # the hub ended it for good: code


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `run` is the process (its id); times are seconds since 1970."""

    kind: Kind
    at: float = 0.0
    run: int = 0
    message: str = ""
    digest: str = ""
    peer: str = ""  # the other agent, or "*"
    type: str = ""
    stream: str = ""
    seq: int = 0
    last: int = 0
    status: str = ""
    code: str = ""
    entry: int | None = None
    expires: float = 0.0


@dataclass(frozen=True, slots=True)
class AgentLog:
    """All that one agent wrote down, in its order."""

    agent: str
    events: tuple[Event, ...]

    def of(self, *kinds: Kind) -> Iterator[Event]:
        return (event for event in self.events if event.kind in kinds)


class LogWriter:
    """Appends one agent's events, each in a single write."""

    def __init__(self, path: Path, run: int) -> None:
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._file.write(b"\n")  # ends a line that a kill cut off
        self._run = run

    def write(self, *events: Event) -> None:
        """Write them down; `at` and `run` are added here."""
        now = round(time.time(), 3)
        lines = [_line(event, now, self._run) for event in events]
        if lines:
            self._file.write(b"".join(lines))

    def close(self) -> None:
        self._file.close()


def read_log(path: Path) -> AgentLog:
    """The log of the agent that the file is named after; a line cut off by a kill is passed over.

    Raises `ValueError` for any other line that can't be read.
    """
    lines = path.read_bytes().split(b"\n")
    return AgentLog(path.stem, tuple(parse_lines(lines)))


def parse_lines(lines: list[bytes]) -> Iterator[Event]:
    """The events of these lines; raises `ValueError` for what is none."""
    written = [line for line in lines if line]
    for line, following in zip(written, [*written[1:], _BEGINNING], strict=True):
        try:
            members = orjson.loads(line)
        except orjson.JSONDecodeError:
            if _BEGINNING not in following:  # else a process died over it
                raise
            continue
        for name in _REPEATED & members.keys():
            members[name] = sys.intern(members[name])
        yield Event(Kind(members.pop("kind")), **members)


def _line(event: Event, now: float, run: int) -> bytes:
    told = {name: value for name, value in asdict(event).items() if value not in ("", 0, None)}
    return orjson.dumps({**told, "at": now, "run": run}) + b"\n"
