"""New keys for a hub of its own: agents go on, what was sealed opens, nothing happens unasked."""

from __future__ import annotations

import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from atp import ATPClient
from atp.agent.handshake import Handshake
from atp.errors import ATPError, SessionAuthentication
from atp.trust import tokens
from atp.trust.keys import PrivateKey
from atp.wire.frames import Welcome
from tests.processes import HubProcess, hub_environment, manage, start_hub
from tests.sources import ROOT

NOW = 1_800_000_000
NEW_KEY = secrets.token_urlsafe(32)


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    started = start_hub(tmp_path_factory.mktemp("rotation") / "data")
    yield started
    started.kill()


def rotate(hub: HubProcess, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["rotate_hub_key", "session", "--reason", "yearly", *options]
    return manage(command, hub.data_dir)


def rows(hub: HubProcess, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(hub.data_dir / "hub.sqlite3")) as database:
        return database.execute(query).fetchall()


def listed(hub: HubProcess) -> list[dict[str, str]]:
    keys: list[dict[str, str]] = httpx.get(f"{hub.url}/api/v1/hub").json()["jwks"]["keys"]
    return keys


def identity(hub: HubProcess, folder: Path) -> Path:
    """An agent that learnt the hub's key as it is now."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.provision", "1", str(folder)],
        cwd=ROOT,
        env=hub_environment(hub.data_dir, hub.port, {}),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return Path(done.stdout.split()[0])


async def session_of(identity: Path) -> str:
    async with ATPClient.from_identity_file(identity) as agent:
        return str(agent.get_trust_status()["session"])


async def test_it_rotates_under_agents_that_know_only_the_first_key(
    hub: HubProcess, tmp_path: Path
) -> None:
    agent = identity(hub, tmp_path / "agents")
    before = listed(hub)
    entries = "SELECT actor FROM registry_entry WHERE kind = 'hub.key_rotated'"
    recorded = rows(hub, entries)
    done = rotate(hub, "--yes")
    assert done.returncode == 0, done.stderr
    assert await session_of(agent)
    after = listed(hub)
    assert len(after) == len(before) + 1
    assert after[-len(before) :] == before, "former keys stay listed, after the current one"
    assert after[0] not in before
    retired = "SELECT count(*) FROM registry_hubkey WHERE retired_at IS NOT NULL"
    assert rows(hub, f"{retired} AND length(private_sealed) > 0") == [(0,)]
    assert rows(hub, f"{retired} AND succession <> ''") == [(1,)]
    assert rows(hub, entries) == [*recorded, ("operator",)]


async def test_rejects_the_new_key_where_the_old_one_was_compromised(
    hub: HubProcess, tmp_path: Path
) -> None:
    agent = identity(hub, tmp_path / "agents")
    assert rotate(hub, "--yes", "--compromised").returncode == 0
    with pytest.raises(SessionAuthentication, match="enrol again"):
        await session_of(agent)
    assert await session_of(identity(hub, tmp_path / "enrolled-again"))


def test_rejects_to_rotate_unasked(hub: HubProcess) -> None:
    before = listed(hub)
    done = rotate(hub)
    assert done.returncode == 1
    assert "--yes" in done.stderr
    assert manage(["rotate_hub_key", "session", "--yes"], hub.data_dir).returncode != 0
    assert listed(hub) == before, "no rotation without a reason either"


def handshake(known: PrivateKey) -> Handshake:
    return Handshake(
        agent="alice",
        key=PrivateKey.generate(),
        hub_id="hub-1",
        hub_key=known.public,
        url="wss://hub.example/ws/agents/",
        nonce="n" * 22,
    )


def welcome(signer: PrivateKey, *succession: str) -> Welcome:
    claims = {"iss": "hub-1", "aud": "alice", "nonce": "n" * 22, "session": "s"}
    proof = tokens.issue(tokens.TokenKind.WELCOME, claims, signer, now=NOW)
    return Welcome("s", "alice", "verified", 80, 256, 0, proof, succession)


def names(old: PrivateKey, new: PrivateKey, *, hub: str = "hub-1") -> str:
    claims = {"iss": hub, "jwk": new.public.jwk}
    return tokens.issue(tokens.TokenKind.SUCCESSION, claims, old, now=NOW)


def check(handshake: Handshake, welcome: Welcome) -> None:
    assert handshake._hub_key is not None
    handshake._check_proof(welcome, handshake._hub_key, now=NOW)


def test_it_follows_the_keys_from_the_one_that_it_knows() -> None:
    first, second, third = (PrivateKey.generate() for _ in range(3))
    chain = (names(first, second), names(second, third))
    for known in (first, second, third):
        check(handshake(known), welcome(third, *chain))


def test_rejects_keys_that_the_known_one_does_not_lead_to() -> None:
    known, other, forged = (PrivateKey.generate() for _ in range(3))
    attempts = [
        (),
        (names(other, forged),),
        (names(forged, forged),),
        (names(known, other), names(other, known)),
        (names(known, forged, hub="hub-2"),),
        ("not a token",),
    ]
    for succession in attempts:
        with pytest.raises(ATPError):
            check(handshake(known), welcome(forged, *succession))


def pseudonym(hub: HubProcess, env: dict[str, str]) -> str:
    code = "from registry.officers.actor import pseudonym; print(pseudonym(1))"
    return manage(["shell", "-v", "0", "-c", code], hub.data_dir, env).stdout


def test_it_reseals_what_the_hub_holds_all_or_nothing(tmp_path: Path) -> None:
    hub = start_hub(tmp_path / "data")
    assert hub.stop() == 0
    old = (hub.data_dir / "key-encryption-key").read_text().strip()
    both = {"ATP_KEY_ENCRYPTION_KEY": NEW_KEY, "ATP_KEY_ENCRYPTION_KEY_OLD": old}
    person = pseudonym(hub, {})
    assert person.startswith("officer:")

    sealed = (
        "SELECT private_sealed FROM registry_hubkey"
        " UNION ALL SELECT pseudonyms_sealed FROM registry_hub"
        " UNION ALL SELECT blinding_sealed FROM registry_hub"
    )
    before = rows(hub, sealed)
    with closing(sqlite3.connect(hub.data_dir / "hub.sqlite3")) as database, database:
        whole = database.execute("SELECT private_sealed FROM registry_issuerkey").fetchall()
        damage = b"\x01" + bytes(60)
        database.execute("UPDATE registry_issuerkey SET private_sealed = ?", [damage])
    damaged = manage(["reseal_keys", "--yes"], hub.data_dir, both)
    assert damaged.returncode == 1
    assert "Nothing was changed" in damaged.stderr
    assert rows(hub, sealed) == before
    with closing(sqlite3.connect(hub.data_dir / "hub.sqlite3")) as database, database:
        database.execute("UPDATE registry_issuerkey SET private_sealed = ?", whole[0])

    done = manage(["reseal_keys", "--yes"], hub.data_dir, both)
    assert "4 of 4 keys were sealed with" in done.stdout, done.stderr
    assert not set(rows(hub, sealed)) & set(before)
    again = manage(["reseal_keys", "--yes"], hub.data_dir, {"ATP_KEY_ENCRYPTION_KEY": NEW_KEY})
    assert "Nothing to do: all 4 keys" in again.stdout, again.stderr
    assert pseudonym(hub, {"ATP_KEY_ENCRYPTION_KEY": NEW_KEY}) == person
    refused = manage(["hub"], hub.data_dir, {})
    assert "The keys of this hub can't be used" in refused.stderr
    entries = "SELECT count(*) FROM registry_entry WHERE kind = 'hub.keys_resealed'"
    assert rows(hub, entries) == [(1,)]
