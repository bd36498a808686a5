"""docs/protocol.md has the formats as they are: tokens, frames, members, kinds of entries."""

from __future__ import annotations

import re

from django.conf import settings

from atp.log import leaves
from atp.trust import envelope, tokens
from atp.types import DataSensitivity, TrustLevel
from atp.wire import canonical, frames
from registry.trail.kinds import Kind
from tests.docs.tables import code, page, rows

PAGE = "docs/protocol.md"
TOKENS = {
    code(row["typ"]): row
    for row in rows(PAGE, columns=("typ", "signed by", "claims", "longest life"))
}
FRAMES = [code(row["type"]) for row in rows(PAGE, columns=("type", "direction", "members"))]


def test_it_lists_every_kind_of_token() -> None:
    assert list(TOKENS) == [kind.typ for kind in tokens.TokenKind]


def test_it_gives_each_token_its_claims_signer_and_life() -> None:
    for kind in tokens.TokenKind:
        row = TOKENS[kind.typ]
        required, _, optional = row["claims"].partition("[")
        life = "-" if kind.max_life_seconds is None else f"{kind.max_life_seconds} s"
        assert _codes(required) == set(kind.required), kind
        assert _codes(optional) == set(kind.optional), kind
        assert (row["signed by"], row["longest life"]) == (kind.purpose, life), kind


def test_it_lists_the_claims_of_a_message() -> None:
    claims = {code(row["claim"]) for row in rows(PAGE, columns=("claim", "value"))}
    assert claims == set(tokens.TokenKind.MESSAGE.required) | set(tokens.TokenKind.MESSAGE.optional)


def test_it_lists_the_members_of_an_envelope() -> None:
    table = rows(PAGE, columns=("member of `ATP`", "", "what"))
    required = {code(row["member of `ATP`"]) for row in table if row[""] == "required"}
    others = {code(row["member of `ATP`"]) for row in table if row[""] != "required"}
    assert (required, others) == (set(envelope._REQUIRED), set(envelope._OPTIONAL))


def test_it_lists_the_frames_that_agents_read() -> None:
    handshake = {"challenge", "welcome"}  # told as steps, under "Connecting"
    assert set(FRAMES) - {"(envelope)", "ack"} == set(frames.HUB_FRAMES) - handshake


def test_it_lists_every_kind_of_entry() -> None:
    assert [kind for row in rows(PAGE, columns=("kinds",)) for kind in _listed(row["kinds"])] == [
        str(kind) for kind in _by_subject()
    ]


def test_it_names_every_member_of_a_header() -> None:
    (header,) = re.findall(r"^\*\*Header\.\*\* .*$", page(PAGE), re.MULTILINE)
    assert set(leaves.HEADER.values()) <= _codes(header)


def test_it_orders_levels_and_sensitivities() -> None:
    text = page(PAGE)
    for words in (TrustLevel, DataSensitivity):
        assert " < ".join(f"`{word}`" for word in words) in text


def test_it_tells_the_limits_in_force() -> None:
    text = page(PAGE)
    assert (canonical.ENVELOPE_MAX_BYTES, settings.ATP_MAX_ENVELOPE_BYTES) == (2**19, 2**19)
    assert "at most 512 KiB" in text
    assert (settings.ATP_MAX_FRAME_BYTES, settings.ATP_MAX_FRAMES) == (2**20, 256)
    assert "has at most 1 MiB" in text
    assert frames.MESSAGE_MAX_BYTES == 2**21
    assert f"nesting deeper than {canonical.ENVELOPE_MAX_DEPTH}" in text
    assert f"not authenticated after {settings.ATP_HANDSHAKE_SECONDS} s" in text
    assert f"at most {settings.ATP_DELIVERY_WINDOW} deliveries of a stream without an ack" in text


def _codes(text: str) -> set[str]:
    return set(_listed(text))


def _listed(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def _by_subject() -> list[Kind]:
    subjects = list(dict.fromkeys(kind.partition(".")[0] for kind in Kind))
    return sorted(Kind, key=lambda kind: subjects.index(kind.partition(".")[0]))
