"""Errors that a program causes by a wrong call are Python's own kinds too, and say where."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from atp import ATPClient, ATPError, IAgentIdentity, PrivateKey, WebSocketTransport
from atp.errors import MalformedError, MalformedTooDeep, MalformedTooLarge
from tests.sdk.worlds import MemoryWorld

NumpyBool = type("bool_", (), {"__module__": "numpy"})  # numpy is not installed here


def client(key: Any = None, level: Any = "verified", **options: Any) -> ATPClient:
    return ATPClient(IAgentIdentity("alice"), level, key or PrivateKey.generate(), **options)


def network() -> WebSocketTransport:
    return WebSocketTransport("wss://hub.example/ws/agents/", hub_id="hub-1")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: client(level="trusted"),
        lambda: client(key="a string", transport=network()),
        lambda: ATPClient(IAgentIdentity("alice"), None, transport=network()),
        lambda: ATPClient(IAgentIdentity("Not An Id"), None),
        lambda: client().on_message("order", print),
        lambda: PrivateKey.generate("RS1"),
        lambda: PrivateKey.from_pem("no key"),
        lambda: WebSocketTransport("https://hub.example/", hub_id="hub-1"),
    ],
)
def test_it_raises_a_value_error(wrong: Callable[[], Any]) -> None:
    with pytest.raises(ValueError) as caught:
        wrong()
    assert isinstance(caught.value, ATPError)


@pytest.mark.parametrize(
    "arguments",
    [
        ("bob", {}, {"timeout": "soon"}),
        ("bob", {}, {"requires_trsut": "verified"}),
        ("bob", {"at": object()}),
        (5, {}),
    ],
)
async def test_it_raises_a_type_error_of_a_send(arguments: Any) -> None:
    alice = await MemoryWorld().online("alice")
    with pytest.raises(TypeError) as caught:
        await alice.send_request(*arguments)
    assert isinstance(caught.value, ATPError)
    assert isinstance(caught.value, ValueError)
    await alice.disconnect()


def test_it_raises_a_type_error_for_a_handler_that_is_a_generator() -> None:
    """Calling it would run nothing."""

    async def handle(envelope: Any) -> Any:
        yield envelope

    def handle_plainly(envelope: Any) -> Any:
        yield envelope

    for handler in (handle, handle_plainly):
        with pytest.raises(TypeError, match="must not be a generator"):
            client().on_message("notification", handler)


def test_it_raises_a_type_error_for_a_handler_that_cannot_be_called() -> None:
    with pytest.raises(TypeError):
        client().on_message("request", "handler")  # type: ignore[arg-type]


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("data", "pointer", "told"),
    [
        ({"rows": [{}, {"flag": NumpyBool()}]}, "/payload/data/rows/1/flag", "numpy.bool_"),
        ({"when": {1, 2}}, "/payload/data/when", "set"),
        ([1, [2, b"x"]], "/payload/data/1/1", "bytes"),
        ({"a/b": {"c~d": 2**53}}, "/payload/data/a~1b/c~0d", "beyond 2^53-1"),
        ({"rate": math.nan}, "/payload/data/rate", "nan is not a JSON number"),
        ([0.5, -math.inf], "/payload/data/1", "-inf is not a JSON number"),
        ({"n": 1.5, "big": 2.0**60}, "/payload/data/big", "beyond 2^53-1"),
        ({"text": "\ud800"}, "/payload/data/text", "surrogate"),
        ({"map": {5: "five"}}, "/payload/data/map", "5 is of the type int, not a string"),
        (NumpyBool(), "/payload/data", "numpy.bool_"),
    ],
)
async def test_it_names_place_and_type_of_what_is_no_json(
    data: Any, pointer: str, told: str
) -> None:
    alice = await MemoryWorld().online("alice")
    with pytest.raises(MalformedError) as caught:
        await alice.send_notification("bob", data)
    assert caught.value.pointer == pointer
    assert f"at {pointer}" in str(caught.value)
    assert told in str(caught.value)
    await alice.disconnect()


async def test_it_bounds_the_pointer() -> None:
    alice = await MemoryWorld().online("alice")
    with pytest.raises(MalformedError) as caught:
        await alice.send_notification("bob", {"n" * 100_000: {"\n": b""}})
    assert len(str(caught.value)) < 400
    await alice.disconnect()


async def test_it_tells_the_limits_of_depth_and_size() -> None:
    world = MemoryWorld()
    alice, bob = await world.online("alice"), await world.online("bob")
    bob.on_message("request", lambda envelope, respond: respond(envelope.data))
    assert (await alice.send_request("bob", nested(29))).data == nested(29)
    with pytest.raises(MalformedTooDeep, match=r"at most 32 deep.*`data` at most 29 deep") as deep:
        await alice.send_request("bob", {"a": nested(29)})
    assert deep.value.pointer == "/payload/data/a" + "/0" * 28
    turning: list[Any] = []
    turning.append(turning)
    with pytest.raises(MalformedTooDeep, match="at most 29 deep"):
        await alice.send_request("bob", turning)
    with pytest.raises(MalformedTooLarge, match=r"at most 524288 \(512 KiB\)"):
        await alice.send_request("bob", "x" * 524_288)
    await world.close()
