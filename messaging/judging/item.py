"""The stages of one frame of a batch, as types; a step takes a stage and gives the next one.

`Parsed` -> `Signed` -> `Verified` -> `Decided` is the way of an envelope that is judged. The other
stages are ends of the way: `Unreadable`, `Fenced`, `Refused`, `Repeat` and `Echo`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from atp.errors import ATPError
from atp.judging.judgement import Verdict, violation_of
from atp.judging.recording import DecisionRecord
from atp.trust.envelope import Envelope, VerifiedEnvelope
from messaging.models import Envelope as EnvelopeRow

FINAL = {"accepted", "denied"}  # verdicts that leave a row and an entry


class SentFrame(NamedTuple):
    """The text that an agent sent in a session; a batch has its frames in order."""

    session: str
    agent: str
    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A frame that is no envelope."""

    frame: SentFrame
    verdict: Verdict

    @property
    def message_id(self) -> None:
        """`None`: a frame that is no envelope has no readable id."""
        return None


@dataclass(frozen=True, slots=True)
class Fenced:
    """A frame of a session that is not its agent's current one; it is not judged."""

    frame: SentFrame
    message_id: str | None


@dataclass(frozen=True, slots=True)
class _Readable:
    """The base of the stages of a frame that is an envelope."""

    frame: SentFrame
    envelope: Envelope

    @property
    def message_id(self) -> str:
        return self.envelope.message_id

    @property
    def key(self) -> tuple[str, str]:
        """The identity of the envelope: its agent and its messageId."""
        return self.frame.agent, self.envelope.message_id


@dataclass(frozen=True, slots=True)
class Parsed(_Readable):
    """An envelope; its signature is not verified."""


@dataclass(frozen=True, slots=True)
class Repeat(_Readable):
    """An envelope that was stored before."""

    row: EnvelopeRow


@dataclass(frozen=True, slots=True)
class Echo(_Readable):
    """A copy of the envelope of an earlier frame; `first` is the index of that frame."""

    first: int


@dataclass(frozen=True, slots=True)
class Refused(_Readable):
    """An envelope that is refused before it is judged, and its copies; it leaves no row."""

    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Signed(_Readable):
    """An envelope whose signature names the key `kid`."""

    kid: str


@dataclass(frozen=True, slots=True)
class Verified(_Readable):
    """An envelope that its agent has signed."""

    verified: VerifiedEnvelope


@dataclass(frozen=True, slots=True)
class Decided(_Readable):
    """A verified envelope with its verdict."""

    verified: VerifiedEnvelope
    verdict: Verdict
    counted: bool = False  # the denial is only counted, because the sender has too many
    record: DecisionRecord | None = None  # if the envelope was judged

    @property
    def final(self) -> bool:
        """Whether it leaves a row and an entry."""
        return self.verdict.status in FINAL and not self.counted


Stage: TypeAlias = (
    Unreadable | Fenced | Parsed | Repeat | Echo | Refused | Signed | Verified | Decided
)
Judged: TypeAlias = Unreadable | Refused | Decided


def unusable(problem: ATPError) -> Verdict:
    """The verdict on a frame that can't be judged because of `problem`."""
    severity = violation_of(problem)
    violated = problem.code if severity else ""
    return Verdict("invalid", problem.code, problem.detail, violation=severity, violated=violated)


def judged(stages: Sequence[Stage]) -> Iterator[Judged]:
    """Yield the stages to store or count, in the order of the frames.

    The echo of an envelope with a row is a repeat and is left out. The echo of an envelope without
    a row gets the same verdict and is counted by itself.
    """
    for stage in stages:
        if isinstance(stage, Unreadable | Refused | Decided):
            yield stage
        elif isinstance(stage, Echo):
            first = stages[stage.first]
            if isinstance(first, Refused) or (isinstance(first, Decided) and not first.final):
                yield Refused(stage.frame, stage.envelope, first.verdict)
