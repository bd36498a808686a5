"""What a test needs and this machine may lack: a skip with a reason here, a failure in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """End this test: nothing is skipped in silence where `CI` is set."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need_program(name: str) -> str:
    """The path of a program."""
    return shutil.which(name) or missing(f"there is no program {name} on this machine")
