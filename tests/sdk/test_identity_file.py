"""The file that enrolment leaves behind, and what may be wrong with it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from atp import ATPClient, PrivateKey
from atp.agent.identity_file import read_identity_file
from atp.errors import KeyMissing, KeyUnknown, MalformedDocument, MalformedKey
from tests.sdk.worlds import SocketWorld


def write(folder: Path, private: PrivateKey, hub: PrivateKey, changes: Any = None) -> Path:
    (folder / "key.pem").write_bytes(private.to_pem())
    (folder / "key.pem").chmod(0o600)
    members = {
        "agent": "alice",
        "hub": "hub-1",
        "hub_key": hub.public.jwk,
        "http_url": "http://127.0.0.1:8000",
        "ws_url": "ws://127.0.0.1:8000/ws/agents/",
        "kid": private.kid,
        "key": "key.pem",
        **(changes or {}),
    }
    path = folder / "identity.json"
    path.write_text(json.dumps({name: value for name, value in members.items() if value}))
    return path


async def test_it_makes_a_client_that_connects(socket_world: SocketWorld, tmp_path: Path) -> None:
    hub = socket_world.hub
    key = hub.enrol("alice", level="certified")
    path = write(tmp_path, key, hub.key, {"hub": hub.id, "ws_url": hub.url})
    async with ATPClient.from_identity_file(path) as alice:
        await alice.broadcast("hello")
        assert alice.get_trust_status()["level"] == "certified"
    (envelope,) = hub.accepted.values()
    assert envelope.sender == "alice"
    assert envelope.claimed_level == "certified"  # what the hub welcomed it as


def test_it_reads_what_enrolment_wrote(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, hub_key = PrivateKey.generate(), PrivateKey.generate()
    file = read_identity_file(write(tmp_path, key, hub_key))
    assert (file.agent, file.hub_id, file.key.kid) == ("alice", "hub-1", key.kid)
    assert file.hub_key == hub_key.public
    assert not caplog.records
    assert read_identity_file(write(tmp_path, key, hub_key, {"hub_key": None})).hub_key is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_it_reads_files_as_windows_writes_them(tmp_path: Path, encoding: str) -> None:
    """PowerShell writes UTF-16 with a mark, editors put a mark before UTF-8."""
    path = write(tmp_path, PrivateKey.generate(), PrivateKey.generate())
    mark = "" if encoding != "utf-16-le" else "\ufeff"
    for file in (path, path.parent / "key.pem"):
        file.write_bytes((mark + file.read_text(encoding="utf-8")).encode(encoding))
    assert read_identity_file(path).agent


@pytest.mark.parametrize("data", [b"\xff\xfe\x00", b"\x80\x81"])
def test_rejects_a_file_that_is_no_text(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "identity.json"
    path.write_bytes(data)
    with pytest.raises(MalformedDocument, match="UTF-8") as refused:
        read_identity_file(path)
    assert str(path) in str(refused.value)


def test_it_warns_of_a_key_that_others_can_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, PrivateKey.generate(), PrivateKey.generate())
    (tmp_path / "key.pem").chmod(0o644)
    with caplog.at_level(logging.WARNING, logger="atp"):
        read_identity_file(path)
    assert "chmod 600" in caplog.text


@pytest.mark.parametrize("missing", ["agent", "hub", "ws_url", "kid", "key"])
def test_rejects_files_that_lack_something(tmp_path: Path, missing: str) -> None:
    path = write(tmp_path, PrivateKey.generate(), PrivateKey.generate(), {missing: None})
    with pytest.raises(MalformedDocument) as caught:
        read_identity_file(path)
    assert missing in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"agent": "a", "agent": "b"}'])
def test_rejects_what_is_no_identity_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "identity.json"
    path.write_text(text)
    with pytest.raises(MalformedDocument):
        read_identity_file(path)


def test_rejects_a_missing_file_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(MalformedDocument) as caught:
        ATPClient.from_identity_file(tmp_path / "nowhere.json")
    assert "atp enroll" in str(caught.value)


def test_rejects_another_key_than_the_enrolled_one(tmp_path: Path) -> None:
    path = write(tmp_path, PrivateKey.generate(), PrivateKey.generate())
    (tmp_path / "key.pem").write_bytes(PrivateKey.generate().to_pem())
    with pytest.raises(KeyUnknown):
        read_identity_file(path)
    (tmp_path / "key.pem").write_text("nonsense")
    with pytest.raises(MalformedKey):
        read_identity_file(path)
    (tmp_path / "key.pem").unlink()
    with pytest.raises(KeyMissing):
        read_identity_file(path)
