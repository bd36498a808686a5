"""A wait for a program's line has a limit and names the line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lines import Lines


@contextmanager
def program(code: str) -> Iterator[Lines]:
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield Lines(process.stdout)
        process.kill()


def test_it_gives_line_after_line() -> None:
    with program("print('one'); print('two'); print('three')") as lines:
        assert lines.next("the first") == "one"
        assert lines.until("wo") == "two"
        assert lines.rest() == ["three"]


def test_it_says_what_it_waited_for() -> None:
    with program("import time; print('one', flush=True); time.sleep(60)") as lines:
        lines.next("the first")
        with pytest.raises(AssertionError, match=r"waited 0.2 s for the second; heard \['one'\]"):
            lines.next("the second", seconds=0.2)


def test_it_says_that_the_output_ended() -> None:
    with program("print('one')") as lines:
        lines.next("the first")
        for _ in range(2):
            with pytest.raises(AssertionError, match="ended before the second"):
                lines.next("the second")
