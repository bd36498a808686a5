"""The command `atp enroll`: it registers an agent's key at a hub with a one-time token.

The private key is made on this machine and never leaves it. The token comes from standard input or
a file, because every user of the machine can read the command line. A second run with the same key
and token gets the same answer, so a lost answer does no harm.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from atp.cli.key_files import read_key, undone_on, write_key, write_private
from atp.errors import (
    ATPError,
    ClockError,
    FlowThrottled,
    IdentityEnrolment,
    IdentityError,
    IdentityMismatch,
    KeyProblem,
    MalformedDocument,
    SessionTransport,
    SignatureError,
    excerpt,
    from_code,
)
from atp.transports.addresses import is_loopback, proxy_for, split_address
from atp.trust import tokens
from atp.trust.fingerprint import fingerprint
from atp.trust.keys import ALGORITHMS, PrivateKey, PublicKey
from atp.types import check_agent_id
from atp.version import USER_AGENT
from atp.wire.canonical import parse, sha256_b64url
from atp.wire.text_files import as_utf8

__all__ = ["add_to", "run"]

PROOF_SECONDS = 120
HTTP_SECONDS = 30
TOKEN_MAX_CHARS = 128
ANSWER_MAX_BYTES = 65_536

# With these errors the hub has not stored the key. After any other failure it may have stored it,
# so the key file is kept.
_NOT_TAKEN = (ClockError, FlowThrottled, IdentityError, KeyProblem, SignatureError)

_EXAMPLE = """\
example:
  atp enroll --hub https://hub.example.com --agent financial-analyzer-001 --token-file token.txt

The token comes from --token-file, from standard input, or the command asks for it. It is never an
argument, because other users can read those.
"""


@dataclass(frozen=True, slots=True)
class _Hub:
    url: str
    hub_id: str


def add_to(commands: Any) -> None:
    """Add the command `enroll` to the parser."""
    parser = commands.add_parser(
        "enroll",
        aliases=["enrol"],
        allow_abbrev=False,  # so that "--token SECRET" is not read as "--token-file SECRET"
        help="enrol an agent at a hub",
        description="Enrol an agent at a hub: make its key, prove that the agent has it, and write"
        " the identity file.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--hub", required=True, metavar="URL", help="the hub's address")
    parser.add_argument("--agent", required=True, metavar="ID", help="the agent's id at the hub")
    parser.add_argument(
        "--hub-id", metavar="ID", help="the hub's id from the officer; refuse any other hub"
    )
    parser.add_argument(
        "--token-file", type=Path, metavar="FILE", help="the file with the one-time token"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="identity file; default: AGENT/identity.json"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="key file, made if missing; default: key.pem beside the identity file",
    )
    parser.add_argument(
        "--alg",
        choices=sorted(ALGORITHMS),
        help="the key's algorithm, for a new key or an existing RSA key; default: EdDSA",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Enrol the agent and write the files; raises an `ATPError` that says what to do."""
    agent = check_agent_id(options.agent)
    base = _check_url(options.hub)
    out = options.out or Path(agent) / "identity.json"
    key_path = options.key or out.parent / "key.pem"
    with _http_client(base) as client:
        hub = _find_hub(client, base, expected=options.hub_id)
        token = _read_token(options.token_file)
        with undone_on(*_NOT_TAKEN, path=key_path):
            key = _ensure_key(key_path, options.alg)
            answer = _enrol(client, hub, agent, token, key)
    write_private(out, _identity(answer, hub, key, key_path, out))
    print(f"{agent} is enrolled at {hub.hub_id}; its key waits for an officer's approval.")
    print(f"fingerprint  {fingerprint(key.kid)}")
    print(f"identity     {out}")
    print("Read the fingerprint to the officer, who compares it before approving.")


def _check_url(text: str) -> str:
    """Return the base URL; raises `MalformedDocument` unless it is https or on the loopback."""
    try:
        if "://" not in text:
            host = split_address(f"//{text}").hostname or ""
            text = f"{'http' if is_loopback(host) else 'https'}://{text}"
        parts = split_address(text)
    except SessionTransport as exc:
        raise MalformedDocument(exc.detail) from exc
    if parts.scheme not in {"http", "https"} or parts.username:
        raise MalformedDocument(
            f"{excerpt(text)} is not the address of a hub, such as https://hub.example"
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise MalformedDocument("a token is sent by https only, except to this machine")
    return f"{parts.scheme}://{parts.netloc}"


@contextmanager
def _http_client(base: str) -> Iterator[httpx.Client]:
    """Yield a client that uses only the proxy of `proxy_for`; errors name the proxy."""
    proxy = proxy_for(base)
    with httpx.Client(
        timeout=HTTP_SECONDS,
        headers={"User-Agent": USER_AGENT},
        follow_redirects=False,
        trust_env=False,
        verify=httpx.create_ssl_context(),  # which heeds SSL_CERT_FILE, as trust_env would
        proxy=proxy.url if proxy else None,
    ) as client:
        try:
            yield client
        except httpx.HTTPError as exc:
            way = f" through {proxy}" if proxy else ""
            raise SessionTransport(f"{exc.request.url} can't be reached{way}: {exc}") from exc


def _find_hub(client: httpx.Client, base: str, *, expected: str | None) -> _Hub:
    members = _call(client, "GET", f"{base}/api/v1/hub")
    hub_id = members.get("hub")
    if not isinstance(hub_id, str) or not hub_id:
        raise MalformedDocument(f"the server at {base} is not a hub")
    if expected is not None and hub_id != expected:
        raise IdentityMismatch(
            f"the hub at {base} is {excerpt(hub_id)}, not {excerpt(expected)}; check the address"
        )
    return _Hub(base, hub_id)


def _read_token(path: Path | None) -> str:
    if path is not None:
        text = as_utf8(path.read_bytes(), what=f"the token file {path}").decode("utf-8")
    elif sys.stdin.isatty():
        try:
            text = getpass.getpass("one-time token: ")
        except EOFError:  # Ctrl-D
            text = ""
    else:
        text = sys.stdin.readline(TOKEN_MAX_CHARS * 2)
    text = text.strip()
    if not text or len(text) > TOKEN_MAX_CHARS or not text.isascii():
        raise IdentityEnrolment("no one-time token was given; ask an officer for one")
    return text


def _ensure_key(path: Path, alg: str | None) -> PrivateKey:
    if path.exists():
        return read_key(path, alg=alg)
    key = PrivateKey.generate(alg or "EdDSA")
    write_key(path, key)
    return key


def _enrol(
    client: httpx.Client, hub: _Hub, agent: str, token: str, key: PrivateKey
) -> dict[str, Any]:
    now = int(time.time())
    claims = {
        "iss": agent,
        "aud": hub.hub_id,
        "tth": sha256_b64url(token.encode("ascii")),
        "jkt": key.kid,
        "exp": now + PROOF_SECONDS,
    }
    proof = tokens.issue(tokens.TokenKind.ENROL, claims, key, now=now)
    body = {"token": token, "jwk": key.public.jwk, "proof": proof}
    answer = _call(client, "POST", f"{hub.url}/api/v1/enrol", body=body)
    if answer.get("agent") != agent or answer.get("kid") != key.kid:
        raise MalformedDocument("the hub enrolled another agent or key; tell its officers")
    return answer


def _call(
    client: httpx.Client, method: str, url: str, *, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    answer = client.request(method, url, json=body)
    try:
        members = parse(answer.content, max_bytes=ANSWER_MAX_BYTES)
    except ATPError as exc:
        raise MalformedDocument(f"{url} answered {answer.status_code} without JSON") from exc
    if not isinstance(members, dict):
        raise MalformedDocument(f"{url} answered with JSON that is not an object")
    if not answer.is_success:
        code, detail = members.get("code"), members.get("detail")
        raise from_code(
            code if isinstance(code, str) else f"http.{answer.status_code}",
            detail if isinstance(detail, str) else f"{url} answered {answer.status_code}",
        )
    return members


def _identity(
    answer: Mapping[str, Any], hub: _Hub, key: PrivateKey, key_path: Path, out: Path
) -> bytes:
    """Return the content of the identity file, which `atp.agent.identity_file` reads."""
    websocket = answer.get("websocket")
    if not isinstance(websocket, str) or urlsplit(websocket).scheme not in {"ws", "wss"}:
        raise MalformedDocument("the hub gave no WebSocket address for agents")
    members = {
        "agent": answer["agent"],
        "hub": hub.hub_id,
        "hub_key": PublicKey.from_jwk(answer.get("hubKey") or {}).jwk,
        "http_url": hub.url,
        "ws_url": websocket,
        "kid": key.kid,
        "alg": key.alg,
        "key": os.path.relpath(key_path, out.parent),
    }
    return (json.dumps(members, indent=2) + "\n").encode("utf-8")
