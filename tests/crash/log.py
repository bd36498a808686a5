"""The log of an agent: a line for each frame on its socket and each message at its handler.

Each agent has one file, to which its processes append one after the other. A line is written
before the SDK gets or sends the frame. So SIGKILL loses no line about a frame that the hub could
have seen.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import orjson

# Their texts repeat, so each is stored once in memory.
_REPEATED = {"message", "digest", "peer", "type", "stream", "status", "code"}
_BEGINNING = b'"kind":"began"'  # of the first line of each process

DONE, WRONG = "done", "wrong"  # outcomes; others are error codes
# Ends of handlers, besides DONE; UNWANTED is also the code of the refusal.
FAILED, AGAIN, CUT, UNWANTED = "failed", "again", "cut", "app.unwanted"


class Kind(StrEnum):
    """The kind of a line; the comment names the members of `Event` that it has."""

    BEGAN = "began"  # a process started this agent
    OPENED = "opened"  # the hub welcomed a connection: session
    CLOSED = "closed"  # it ended: code
    SENT = "sent"  # an envelope went out, the first time or again: message, digest, peer, type, ...
    RECEIPT = "receipt"  # message, status, code, entry
    DELIVERY = "delivery"  # stream, seq, message, digest, peer, type, expires
    GONE = "gone"  # stream, seq to last, code; also for `withheld`
    ACK = "ack"  # stream, seq to last: these are done
    BEGUN = "begun"  # the agent tells the hub that a handler begins: stream, seq
    FAILURES = "failures"  # that as many handlers failed: stream, seq, last (the number)
    TRIED = "tried"  # a handler began: message, peer, type, seq (the number of the attempt)
    HANDLED = "handled"  # a handler ended: message, peer, type, status
    OUTCOME = "outcome"  # the result of a call of the SDK: type, status
    AWAY = "away"  # the agent disconnected
    LEAVING = "leaving"  # the process was asked to end (SIGTERM)
    SETTLED = "settled"  # in the quiet phase: connected, all envelopes have receipts
    ENDED = "ended"  # the hub ended the session for good: code


@dataclass(frozen=True, slots=True)
class Event:
    """One line. `run` is the id of the process; times are seconds since 1970."""

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
    """The events of one agent, in order."""

    agent: str
    events: tuple[Event, ...]

    def of(self, *kinds: Kind) -> Iterator[Event]:
        return (event for event in self.events if event.kind in kinds)


class LogWriter:
    """A writer that appends the events of one agent, each in a single write."""

    def __init__(self, path: Path, run: int) -> None:
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._file.write(b"\n")  # ends a line that a kill has cut off
        self._run = run

    def write(self, *events: Event) -> None:
        """Append events, with `at` and `run` added."""
        now = round(time.time(), 3)
        lines = [_line(event, now, self._run) for event in events]
        if lines:
            self._file.write(b"".join(lines))

    def close(self) -> None:
        self._file.close()


@dataclass(slots=True)
class Occurrences:
    """A counter of a word in the growing logs of a folder, each read once."""

    folder: Path
    word: bytes
    _found: int = 0
    _read: dict[Path, int] = field(default_factory=dict)

    def count(self) -> int:
        """Return how often the word occurs in whole lines so far."""
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text.rfind(b"\n") + 1
            self._read[path] = self._read.get(path, 0) + whole
            self._found += text.count(self.word, 0, whole)
        return self._found


def read_log(path: Path) -> AgentLog:
    """Read the log of the agent that the file is named after; skip lines cut off by a kill.

    Raises `ValueError` for any other line that can't be read.
    """
    lines = path.read_bytes().split(b"\n")
    return AgentLog(path.stem, tuple(parse_lines(lines)))


def parse_lines(lines: list[bytes]) -> Iterator[Event]:
    """Yield the events of these lines. Raises `ValueError` for a line that is no event."""
    written = [line for line in lines if line]
    for line, following in zip(written, [*written[1:], _BEGINNING], strict=True):
        try:
            members = orjson.loads(line)
        except orjson.JSONDecodeError:
            if _BEGINNING not in following:  # otherwise a process died while it wrote the line
                raise
            continue
        for name in _REPEATED & members.keys():
            members[name] = sys.intern(members[name])
        yield Event(Kind(members.pop("kind")), **members)


def _line(event: Event, now: float, run: int) -> bytes:
    told = {name: value for name, value in asdict(event).items() if value not in ("", 0, None)}
    return orjson.dumps({**told, "at": now, "run": run}) + b"\n"
