"""Failpoints: where a test may end a process, told by the environment; off when it says nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from messaging import failpoints
from tests.sources import ROOT

HIT_SIX_TIMES = """
from messaging import failpoints
for count in range(1, 7):
    failpoints.hit("here")
    print(count, flush=True)
"""


def hit_six_times(armed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HIT_SIX_TIMES],
        cwd=ROOT,
        env={**os.environ, "ATP_FAILPOINTS": armed},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("armed", "survived"), [("here", 0), ("here:1", 0), ("there,here:4", 3), (" here:6 ", 5)]
)
def test_it_ends_the_process_at_the_hit_that_was_named(armed: str, survived: int) -> None:
    done = hit_six_times(armed)
    assert done.returncode == 9
    assert done.stdout.split() == [str(n + 1) for n in range(survived)]
    assert done.stderr == "failpoint here: this process ends here\n"


@pytest.mark.parametrize("armed", ["", "there", "here:7"])
def test_other_failpoints_and_counts_have_no_effect(armed: str) -> None:
    done = hit_six_times(armed)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "6")


@pytest.mark.parametrize(
    "armed", ["here:0", "here:-1", "here:x", ":2", "here:1:2", "here,:", "stop@"]
)
def test_rejects_what_is_no_name_or_count(armed: str) -> None:
    with pytest.raises(ValueError, match="ATP_FAILPOINTS"):
        failpoints.arm_from_environment(armed)
    failpoints.disarm("here")


def test_it_stops_the_process_and_lets_it_go_on_when_woken() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HIT_SIX_TIMES],
        cwd=ROOT,
        env={**os.environ, "ATP_FAILPOINTS": "stop@here:3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        told, complaints = process.communicate(timeout=60)
    finally:
        process.kill()
    assert told.split()[-1] == "6"
    assert complaints == "failpoint here: this process stops here\n"
