"""An export of the trail alone, checked by a program that shares no code with the hub."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from examples.verifier.trail import Verifier
from messaging.mail.notices import place_notices
from registry.agents.actions import (
    change_agent,
    resume_agent,
    revoke_agent,
    suspend_agent,
)
from registry.attestations.actions import revoke_attestation
from registry.policies.actions import save_policy, turn_off
from registry.scores.actions import save_profile
from registry.scores.tasks import recompute_scores
from tests.cast import OFFICER, Player, answer, ask, attest, broadcast, make_agent, write
from tests.conftest import LiveHub
from tests.entry_schemas import size_of_log
from tests.messaging.conftest import LogIn, until
from tests.sources import ROOT
from tests.trail.readers import reader

EXPORT = "/api/v1/provenance/export"


@contextmanager
def rules(*rules_: dict[str, Any]) -> Iterator[None]:
    """Have a policy with these rules in force."""
    document = {"name": "For the verifier", "mode": "enforce", "rules": list(rules_)}
    policy = save_policy(document, actor=OFFICER, reason="made for a test")
    try:
        yield
    finally:
        turn_off(policy, actor=OFFICER, reason="end of test")


def rule(name: str, action: str, *conditions: tuple[str, str, Any], **more: Any) -> dict[str, Any]:
    made = [{"field": f, "operator": o, "value": v} for f, o, v in conditions]
    return {"name": name, "action": action, "severity": "low", "conditions": made, **more}


def export(hub: LiveHub, folder: Path) -> Path:
    with reader(hub.url) as client:
        found = client.get(EXPORT, params={"format": "ndjson", "order": "oldest"})
    assert found.status_code == 200, found.text
    path = folder / "trail.ndjson"
    path.write_bytes(found.content)
    return path


def an_hour_of_traffic(log_in: LogIn, alice: Player, bob: Player) -> None:
    """Have every step of a judgement decide once, and change the registry in between."""
    low = make_agent("unverified", organisation=alice.organisation)
    strict = make_agent(minimum_score=99, tags=["strict"])
    stranger = make_agent(None)
    wires = {p.id: log_in(p) for p in (alice, bob, low, stranger)}

    def send(sender: Player, letter: Any, status: str) -> None:
        receipt = wires[sender.id].submit(letter)
        assert receipt["status"] == status, receipt

    request = ask(alice, bob, sensitivity="confidential")
    send(alice, request, "accepted")
    send(bob, answer(bob, request, cause=request.digest), "accepted")
    send(bob, answer(bob, request), "denied")
    send(bob, write(bob, low, cause=request.digest), "accepted")
    send(bob, write(bob, low, cause="x" * 43), "denied")
    send(alice, broadcast(alice), "accepted")
    send(low, broadcast(low, requires_trust="certified"), "accepted")
    send(low, write(low, bob, sensitivity="restricted"), "denied")
    send(alice, write(alice, strict), "denied")
    send(alice, write(alice, alice), "denied")
    send(alice, write(alice, "nobody-there"), "denied")
    send(alice, ask(alice, bob, required_capabilities=["finance.read"]), "accepted")
    send(alice, ask(alice, bob, required_capabilities=["finance.fly"]), "denied")
    send(stranger, write(stranger, bob), "denied")
    mark = ("sender.id", "equals", alice.id)
    large = ("payload:/data/amount", "greater_than", 10)
    with rules(
        rule("no large amounts", "deny", mark, large),
        rule("slowly", "throttle", mark, throttle={"limit": 5, "per_seconds": 3_600}),
        rule("not to low scores", "deny", mark, ("recipient.score", "less_than", 20)),
        rule("watch tags", "log", mark, ("recipient.tags", "not_in", ["strict"])),
    ):
        send(alice, write(alice, bob, data={"amount": 11}), "denied")
        send(alice, write(alice, bob, data={"amount": 9}), "accepted")
        send(alice, write(alice, bob, data="none"), "denied")  # it can't be told
        send(alice, broadcast(alice, data={"amount": 1}), "accepted")
        save_profile({"high_ceiling_days": 3}, actor=OFFICER, reason="a test")
        send(alice, write(alice, bob, data={"amount": 2}), "accepted")
    change_agent(bob.id, {"minimum_level": "certified"}, actor=OFFICER, reason="t", tags=["x"])
    send(low, write(low, bob), "denied")
    better = attest(low.id, "verified", days=3)
    send(low, told := write(low, alice, sensitivity="internal", notify=True), "accepted")
    revoke_attestation(better.jti, actor=OFFICER, reason="a test")
    send(low, write(low, alice), "accepted")
    recompute_scores([low.id, bob.id], "violation.recorded")
    send(low, write(low, alice), "accepted")
    arrived = wires[alice.id].mail()
    while arrived["ATP"]["messageId"] != told.message_id:
        arrived = wires[alice.id].mail()
    wires[alice.id].ack(arrived["seq"], refused="handler.failed")
    until(lambda: place_notices() > 0, "the notice")
    suspend_agent(bob.id, actor=OFFICER, reason="a test")
    resume_agent(bob.id, actor=OFFICER, reason="a test")
    revoke_agent(low.id, actor=OFFICER, reason="a test")


def test_it_agrees_with_every_entry(
    hub: LiveHub, log_in: LogIn, alice: Player, bob: Player, tmp_path: Path
) -> None:
    before = size_of_log()
    an_hour_of_traffic(log_in, alice, bob)
    path = export(hub, tmp_path)
    done = subprocess.run(  # our own program
        [sys.executable, "-m", "examples.verifier", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    found = problems_in(done.stdout, since=before)
    assert found == [], done.stdout[-3_000:] + done.stderr[-3_000:]
    assert all(what in done.stdout for what in ("leaves", "signatures", "scores", "verdicts"))


@pytest.mark.parametrize("change", ["score", "verdict", "jws", "leaf", "gap", "inputs", "reason"])
def test_it_finds_what_was_changed(
    hub: LiveHub, log_in: LogIn, alice: Player, bob: Player, tmp_path: Path, change: str
) -> None:
    alices = log_in(alice)
    for _ in range(2):
        alices.submit(letter := write(alice, bob))
    lines = export(hub, tmp_path).read_bytes().split(b"\n")
    entries = [json.loads(line) for line in lines if line]
    place = next(n for n, e in enumerate(entries) if e.get("messageId") == letter.message_id)
    if change == "gap":
        del entries[place - 1]
    else:
        entries[place] = changed(entries[place], change)
    verifier = Verifier()
    found = [problem for entry in entries for problem in verifier.read(entry)]
    index = entries[place]["index"] if change != "gap" else place
    found = problems_in("\n".join(found), since=place - 2)
    assert found
    assert found[0].startswith(f"entry {index} ")


def problems_in(printed: str, *, since: int) -> list[str]:
    """Return the problems of entries from this index on: tests make up some of those before."""
    lines = [line for line in printed.splitlines() if line.startswith("entry ")]
    return [line for line in lines if int(line.split()[1]) >= since]


def changed(entry: dict[str, Any], what: str) -> dict[str, Any]:
    """Return an entry that a hub could have written that lies about one thing."""
    made = copy.deepcopy(entry)
    if what == "score":
        made["score"] -= 1
    elif what == "verdict":
        made["verdict"] = "denied"
    elif what == "reason":
        made["reason"] = "as asked"
    elif what == "jws":
        head, claims, signature = made["body"]["shared"]["jws"].split(".")
        made["body"]["shared"]["jws"] = f"{head}.{claims}.{signature[:-4]}AAAA"
    elif what == "inputs":
        made["body"]["sender"]["inputs"]["but"] = {"good_envelopes": 5_000}
    else:
        made["leafHash"] = "A" * 43
    return made
