"""Options of a message: read strictly, because a misspelt demand would be no demand."""

from __future__ import annotations

from typing import Any

import pytest

from atp.agent.options import parse_options
from atp.errors import MalformedDocument
from atp.types import DataSensitivity, IPolicyContext, TrustLevel


def test_it_reads_all_of_them() -> None:
    options = parse_options(
        {
            "timeout": 5000,
            "lifetime": 60,
            "requires_trust": "verified",
            "required_capabilities": ["reading.fast"],
            "sensitivity": "confidential",
            "allowed_tools": ["search"],
            "spawn_permission": False,
            "max_lifespan_seconds": 10,
            "notify": True,
            "on_behalf_of": "jane",
            "trace": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "provenance": [
                {"type": "t", "id": "i", "action": "a", "timestamp": "2026-01-01T00:00:00Z"}
            ],
        }
    )
    assert options.timeout_seconds == 5
    assert (options.request_lifetime(), options.message_lifetime()) == (60, 60)
    assert options.requires_trust is TrustLevel.VERIFIED
    assert options.provenance[0].action == "a"
    assert (options.on_behalf_of, options.trace) == ("jane", "4bf92f3577b34da6a3ce929d0e0e4736")
    context = options.policy_context(IPolicyContext(data_sensitivity=DataSensitivity.PUBLIC))
    assert context == IPolicyContext(["search"], DataSensitivity.CONFIDENTIAL, False, 10)


def test_it_has_defaults() -> None:
    options = parse_options(None)
    assert options == parse_options({"timeout": None})
    assert options.timeout_seconds == 30
    assert (options.request_lifetime(), options.message_lifetime()) == (31, 86_400)
    default = IPolicyContext(["a"])
    assert options.policy_context(default) is default


@pytest.mark.parametrize(
    "options",
    [
        {"requires_trsut": "verified"},
        {"requires_trust": "very"},
        {"on_behalf_of": ""},
        {"on_behalf_of": "j" * 129},
        {"on_behalf_of": "Jane Doe"},
        {"trace": "0" * 32},
        {"trace": "4bf92f3577b34da6"},
        {"trace": 4},
        {"timeout": 0},
        {"timeout": True},
        {"timeout": "5000"},
        {"timeout": float("nan")},
        {"timeout": 86_400_001},
        {"lifetime": 1.5},
        {"lifetime": 86_401},
        {"sensitivity": "secret"},
        {"required_capabilities": "reading"},
        {"required_capabilities": [1]},
        {"allowed_tools": 7},
        {"notify": 1},
        {"spawn_permission": "yes"},
        {"max_lifespan_seconds": 0},
        {"provenance": [{"type": "t"}]},
        {1: 2},
    ],
)
def test_rejects_what_it_does_not_understand(options: dict[Any, Any]) -> None:
    with pytest.raises(MalformedDocument):
        parse_options(options)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("sensitivity", "secret", "none of public, internal, confidential, restricted"),
        ("requires_trust", "trusted", "none of sandboxed, unverified, verified, certified"),
        ("allowed_tools", 7, "not iterable"),
        ("notify", 1, "true or false"),
    ],
)
def test_rejects_a_wrong_value_by_the_name_of_its_option(name: str, value: Any, said: str) -> None:
    with pytest.raises(MalformedDocument, match=f"the option {name} has a wrong value: .*{said}"):
        parse_options({name: value})
