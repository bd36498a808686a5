"""Every entry that a test of the registry appends fits the closed schema of its kind.

Not those of traffic: here tests append some of their own that say little. The entries of real
traffic are looked at in `tests/messaging/conftest.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.entry_schemas import problems_of, size_of_log

OF_TRAFFIC = {"envelope", "delivery", "session"}


@pytest.fixture(autouse=True)
def entries_fit_their_schemas(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look at what was appended during the test, by whichever thread."""
    if "database" not in request.fixturenames:
        yield
        return
    request.getfixturevalue("database")
    before = size_of_log()
    yield
    assert problems_of(before, size_of_log(), besides=OF_TRAFFIC) == []
