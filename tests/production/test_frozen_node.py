"""A node that is frozen for half a minute, under the settings that the hub has outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.production.fleet import Fleet
from tests.production.frozen import freeze_and_wake

FROZEN_SECONDS = 30.0  # three leases


@pytest.mark.slow
async def test_it_fences_a_node_that_was_frozen_for_half_a_minute(
    fleet: Fleet, agents: list[Path]
) -> None:
    await freeze_and_wake(fleet, agents, seconds=FROZEN_SECONDS)
