"""Enrol many agents at once for a load, as an officer does in the admin.

    python -m benchmarks.provision 40 identities/

It works on the database of the environment (`ATP_DATA_DIR`, `ATP_DATABASE_URL`), by the actions of
the admin. For each agent it writes the two files that `atp enroll` writes. Thousands of agents
would take minutes. So after the first `ENROLLED`, agents are copied rows of an enrolled one, with
their own keys and signed attestations, but without entries in the trail.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import django

LEVEL = "certified"
VALID_DAYS = 30
ENROLLED = 40  # agents that the actions enrol
CHUNK = 500  # copied agents in a transaction
LOCAL = "local"  # the issuer of a new hub


def provision(
    count: int,
    folder: Path,
    *,
    organisation: str,
    level: str = LEVEL,
    issuer: str = LOCAL,
    enrolled: int = ENROLLED,
) -> list[Path]:
    """Add `count` agents that `issuer` attests; return their identity files.

    The actions enrol the first `enrolled` of them; the others are copies. The issuer is made if it
    does not exist.
    """
    from benchmarks.crowd import copy_agents
    from registry.models import Organisation

    group, _ = Organisation.objects.get_or_create(name=organisation)
    folder.mkdir(parents=True, exist_ok=True)
    voucher = _issuer(issuer)
    agents = [_new_id() for _ in range(min(count, enrolled))]
    paths = [_enrol(agent, group, folder, level, voucher) for agent in agents]
    for start in range(enrolled, count, CHUNK):
        copies = [_new_id() for _ in range(start, min(start + CHUNK, count))]
        for agent, key in copy_agents(agents[0], copies):
            paths.append(_write(agent, key, folder))
    return paths


def _new_id() -> str:
    return f"load-{uuid.uuid4().hex[:12]}"


def _issuer(slug: str) -> Any:
    from registry.issuers.actions import Limits, create_issuer
    from registry.models import Issuer
    from registry.officers.actor import Actor

    if (row := Issuer.objects.filter(slug=slug).first()) is not None:
        return row
    limits = Limits(highest_level=LEVEL, capability_patterns=("load",))
    return create_issuer(slug, limits, name=f"Issuer {slug}", actor=Actor.hub())


def _enrol(agent_id: str, organisation: Any, folder: Path, level: str, issuer: Any) -> Path:
    from atp.trust import tokens
    from atp.trust.keys import PrivateKey
    from atp.wire.canonical import sha256_b64url
    from registry.agents.actions.enrolment import enrol_key, issue_enrolment_token
    from registry.agents.actions.keys import approve_key
    from registry.agents.actions.life import register_agent
    from registry.attestations.actions import issue_attestation
    from registry.hub.actions import hub_id
    from registry.officers.actor import Actor

    actor, key, now = Actor.hub(), PrivateKey.generate(), time.time()
    register_agent(agent_id, organisation=organisation, owner_name="Load generator", actor=actor)
    token = issue_enrolment_token(agent_id, actor=actor).text
    claims = {
        "iss": agent_id,
        "aud": hub_id(),
        "tth": sha256_b64url(token.encode()),
        "jkt": key.kid,
        "exp": int(now) + 60,
    }
    proof = tokens.issue(tokens.TokenKind.ENROL, claims, key, now=int(now))
    enrol_key(token=token, proof=proof, jwk=key.public.jwk, now=now)
    approve_key(key.kid, actor=actor)
    issue_attestation(
        agent_id,
        issuer,
        level=level,
        capabilities=["load"],
        days=VALID_DAYS,
        actor=actor,
    )
    return _write(agent_id, key, folder)


def _write(agent_id: str, key: object, folder: Path) -> Path:
    from django.conf import settings

    from atp.trust.keys import PrivateKey
    from registry.hub.actions import hub_id, session_key

    assert isinstance(key, PrivateKey)
    pem = folder / f"{agent_id}.pem"
    pem.touch(mode=0o600)
    pem.write_bytes(key.to_pem())
    identity = {
        "agent": agent_id,
        "hub": hub_id(),
        "hub_key": session_key().public.jwk,
        "http_url": settings.ATP_PUBLIC_URL,
        "ws_url": settings.ATP_PUBLIC_URL.replace("http", "ws", 1) + "/ws/agents/",
        "kid": key.kid,
        "key": pem.name,
    }
    path = folder / f"{agent_id}.json"
    path.write_text(json.dumps(identity), encoding="utf-8")
    return path


def main() -> None:
    """Enrol the agents that the command line asks for."""
    parser = argparse.ArgumentParser(description="Enrol agents for a load.")
    parser.add_argument("count", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--issuer", default=LOCAL, help="who vouches for them; made if need be")
    parser.add_argument("--enrolled", type=int, default=ENROLLED, help="by the actions themselves")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "atp_site.settings")
    django.setup()
    made = provision(
        options.count,
        options.folder,
        organisation="Load",
        issuer=options.issuer,
        enrolled=options.enrolled,
    )
    print(*made, sep="\n")


if __name__ == "__main__":
    main()
