"""Skip a test whose needs this machine does not meet; in CI, fail."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip this test with a reason; fail if the variable `CI` is set."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def need_program(name: str) -> str:
    """Return the path of a program. If it is missing, skip the test; in CI, fail."""
    return shutil.which(name) or missing(f"there is no program {name} on this machine")
