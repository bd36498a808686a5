"""Envelopes whose batch failed, and whether others passed since.

What is remembered here outlives a `busy`: an envelope that is sent again is tried in a smaller
batch than the one that failed. So the envelope at fault is found even where each failure takes as
long as senders wait.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MOST_SUSPECTS = 4_096  # the oldest is forgotten first

Key = tuple[str, bytes]  # the sender, and the digest of the text


@dataclass(slots=True)
class Suspicion:
    """`company` is the size of the last batch that failed with it; `since` its first failure."""

    company: int
    since: float


class Suspects:
    """The envelopes that failed on one node and have not passed since, by `time.monotonic`."""

    def __init__(self) -> None:
        self._found: dict[Key, Suspicion] = {}
        self._passed_at = 0.0

    def note_failure(self, envelopes: Iterable[tuple[str, str]]) -> None:
        """Note that a batch of these (sender, text) failed."""
        keys, now = [_key(*one) for one in envelopes], time.monotonic()
        for key in keys:
            known = self._found.setdefault(key, Suspicion(len(keys), now))
            known.company = len(keys)
        while len(self._found) > MOST_SUSPECTS:
            del self._found[next(iter(self._found))]

    def note_pass(self, envelopes: Iterable[tuple[str, str]]) -> None:
        """Note that a batch was judged: none of these is at fault, and the hub works."""
        self._passed_at = time.monotonic()
        if self._found:
            for one in envelopes:
                self._found.pop(_key(*one), None)

    def others_passed(self, sender: str, text: str) -> bool:
        """Whether another batch was judged since this envelope failed first."""
        known = self._found.get(_key(sender, text))
        return known is not None and self._passed_at > known.since

    def company(self, sender: str, text: str) -> int:
        """How many were in the last batch that failed with this envelope; 0 for no suspect."""
        known = self._found.get(_key(sender, text)) if self._found else None
        return 0 if known is None else known.company

    def runs(self, envelopes: Sequence[tuple[str, str]]) -> list[tuple[int, int, int]]:
        """Split a batch, in its order, into `(start, end, company)` to be tried one by one.

        Suspects are tried in runs of half the size in which they failed.
        """
        runs: list[tuple[int, int, int]] = []
        for index, one in enumerate(envelopes):
            company = self.company(*one)
            start, _, before = runs[-1] if runs else (0, 0, -1)
            if company == before and (not company or index - start < company // 2):
                runs[-1] = (start, index + 1, company)
            else:
                runs.append((index, index + 1, company))
        return runs


def _key(sender: str, text: str) -> Key:
    return sender, hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
