"""Fixtures: a hub with an auditor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.trail.readers import reader


@pytest.fixture(scope="module")
def auditor(hub: Any) -> Iterator[httpx.Client]:
    with reader(hub.http_url) as client:
        yield client
