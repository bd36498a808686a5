"""The identity file that `atp enroll` writes: the agent, its hub, and the path of its key."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from atp.errors import ATPError, KeyMissing, KeyUnknown, MalformedDocument
from atp.trust.keys import PrivateKey, PublicKey
from atp.types import check_agent_id
from atp.wire.canonical import parse
from atp.wire.text_files import as_utf8

__all__ = ["IdentityFile", "read_identity_file"]

logger = logging.getLogger(__name__)

OTHERS_MAY_READ: Final = 0o077  # permission bits of group and others
_TEXTS: Final = ("agent", "hub", "http_url", "ws_url", "kid", "key")


@dataclass(frozen=True, slots=True)
class IdentityFile:
    """The content of an identity file. `hub_key` is `None` if the hub gave no key."""

    agent: str
    hub_id: str
    hub_key: PublicKey | None
    http_url: str
    ws_url: str
    key: PrivateKey


def read_identity_file(path: str | Path) -> IdentityFile:
    """Read an identity file and the key beside it.

    Raises `MalformedDocument` if the file can't be read, `KeyMissing` if the key can't be read, and
    `KeyUnknown` if the key is not the enrolled one.
    """
    path = Path(path)
    members = _members(path)
    key = _key(path.parent / members["key"], members)
    hub_key = members.get("hub_key")
    return IdentityFile(
        agent=check_agent_id(members["agent"]),
        hub_id=members["hub"],
        hub_key=None if hub_key is None else PublicKey.from_jwk(hub_key),
        http_url=members["http_url"],
        ws_url=members["ws_url"],
        key=key,
    )


def _members(path: Path) -> dict[str, Any]:
    try:
        members = parse(as_utf8(path.read_bytes(), what=str(path)))
    except OSError as exc:
        raise MalformedDocument(
            f"no identity file {path} ({exc.strerror}); `atp enroll` writes one"
        ) from exc
    except ATPError as exc:
        raise MalformedDocument(f"{path} is not an identity file: {exc}") from exc
    if not isinstance(members, dict):
        raise MalformedDocument(f"{path} is not an identity file: the JSON is not an object")
    for name in _TEXTS:
        if not isinstance(members.get(name), str):
            raise MalformedDocument(f"{path} is not an identity file: {name} must be a string")
    return members


def _key(path: Path, members: dict[str, Any]) -> PrivateKey:
    try:
        if path.stat().st_mode & OTHERS_MAY_READ:
            logger.warning("%s can be read by other users; run chmod 600 on it", path)
        pem = as_utf8(path.read_bytes(), what=str(path))
    except OSError as exc:
        raise KeyMissing(f"no private key at {path} ({exc.strerror})") from exc
    key = PrivateKey.from_pem(pem, alg=members.get("alg"))
    if key.kid != members["kid"]:
        raise KeyUnknown(f"the key in {path} is not the one that was enrolled")
    return key
