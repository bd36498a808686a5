"""`serve` handles the signals that end a process only where nobody else does."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from atp import InMemoryTransport
from atp.agent.signals import ending_signals
from tests.sdk.waiting import until
from tests.sdk.worlds import MemoryWorld

ENDING = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ours() -> list[bool]:
    """Whether the SDK handles SIGTERM and SIGINT now."""
    return [type(signal.getsignal(number)).__name__ == "_Ending" for number in ENDING]


def by_asyncio_run(inside: Callable[[], None]) -> None:
    async def main() -> None:
        with ending_signals(lambda number: None):
            inside()

    asyncio.run(main())


def test_it_handles_them_below_asyncio_run_and_restores_them() -> None:
    seen: list[list[bool]] = []
    by_asyncio_run(lambda: seen.append(ours()))
    assert seen == [[True, True]]
    assert ours() == [False, False]


def test_it_leaves_the_handler_of_another_framework() -> None:
    """As that of uvicorn; the other signal is nobody's."""
    calls: list[int] = []
    theirs: Any = lambda number, frame: calls.append(number)  # noqa: E731
    signal.signal(signal.SIGTERM, theirs)
    seen: list[list[bool]] = []
    by_asyncio_run(lambda: seen.append(ours()))
    assert seen == [[False, True]]
    assert signal.getsignal(signal.SIGTERM) is theirs


def test_it_leaves_the_handler_of_a_loop() -> None:
    async def main() -> None:
        called = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, called.set)
        with ending_signals(lambda number: None):
            assert ours()[0] is False
            signal.raise_signal(signal.SIGTERM)
            await until(called.is_set)

    asyncio.run(main())


def test_it_handles_nothing_outside_of_the_main_thread() -> None:
    seen: list[list[bool]] = []
    thread = threading.Thread(target=by_asyncio_run, args=[lambda: seen.append(ours())])
    thread.start()
    thread.join(20)
    assert seen == [[False, False]]


def test_one_signal_ends_all_clients_of_a_process() -> None:
    async def main() -> list[str]:
        world = MemoryWorld()
        clients = [await world.online(name) for name in ("alice", "bob")]
        serving = [asyncio.create_task(client.serve()) for client in clients]
        await until(lambda: all(ours()))
        await asyncio.sleep(0.05)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.gather(*serving)
        assert not any(client.get_trust_status()["connected"] for client in clients)
        assert ours() == [False, False]
        await world.close()
        return [client.identity.id for client in clients]

    assert asyncio.run(main()) == ["alice", "bob"]
    assert InMemoryTransport.get_instance().get_connected_agents() == []
