"""The chapters of the story. Each one checks that its events happened."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from examples.story.cast import Outcome, Player
from examples.story.telling import ROLES, Telling, numbers_in_words
from examples.story.timeline import HEAD, timeline
from examples.story.voice import StoryError

__all__ = ["CHAPTERS"]

AT_ONCE: Final = 12
THINKING_SECONDS: Final = 0.2  # that the processor takes for each request
REPLAYS: Final = 3
LETTERS: Final = ("Monday's figures", "Tuesday's figures", "Wednesday's figures")


async def _enrolment(telling: Telling) -> None:
    voice, officer = telling.voice, telling.officer
    voice.say(
        "The officer registers each agent in the admin and hands a one-time token to its owner."
        " The owner runs `atp enroll`, which makes the key on the agent's own machine, and reads"
        " the fingerprint to the officer, who compares and approves."
    )
    for name in dict.fromkeys(role.organisation for role in ROLES):
        officer.add_organisation(_organisation(name, telling))
    tokens = {name: _register(telling, player) for name, player in telling.cast.items()}
    fingerprints = dict(
        zip(
            tokens,
            await asyncio.gather(*(telling.cast[name].enrol(tokens[name]) for name in tokens)),
            strict=True,
        )
    )
    for name, fingerprint in fingerprints.items():
        player = telling.cast[name]
        officer.approve(player.agent, read_out=fingerprint)
        for kind in ("agent.created", "agent.invited", "agent.enrolled", "key.approved"):
            telling.decide(kind, player.agent)
        voice.fact(player.agent, f"{fingerprint[:24]}... is the same on both ends: approved")
    telling.show("enrolment with proof of possession", told=f"{len(tokens)} agents")


async def _attestation(telling: Telling) -> None:
    voice = telling.voice
    voice.say(
        "An issuer attests each agent and its key: a level and capabilities."
        " Then the agents connect. Each one is its own process."
    )
    scores: dict[str, int] = {}
    for player in telling.cast.values():
        role = player.role
        telling.officer.attest(player.agent, role.level, role.capabilities)
        telling.decide("attestation.issued", player.agent)
    welcomes = await asyncio.gather(*(player.start() for player in telling.cast.values()))
    for player, welcome in zip(telling.cast.values(), welcomes, strict=True):
        level, score = welcome.value.get("level"), welcome.value.get("score")
        scores[player.role.name] = score or 0
        voice.check(
            level == player.role.level,
            player.agent,
            f"{player.role.character}: {level}, score {score}",
        )
    if not scores["analyst"] > scores["health"] > scores["newcomer"]:
        raise StoryError(f"the scores are not in the order of the levels: {scores}")
    telling.show("attestation, level and score", told=f"{len(scores)} agents")


async def _request(telling: Telling) -> None:
    voice, health = telling.voice, telling.agent("health")
    question = {"task": "admissions by ward"}
    voice.say("The analyst asks for confidential figures. It accepts only a verified recipient.")
    asked = await telling.cast["analyst"].ask(
        "request",
        to=health,
        data=question,
        sensitivity="confidential",
        requires_trust="verified",
        required_capabilities=["health.statistics"],
    )
    answer = asked.value.get("data")
    voice.check(
        answer == {**question, "done_by": health},
        health,
        f"is asked {_json(question)}, answers {_json(answer)}",
    )
    voice.fact("the hub", f"vouches for the answer with its sender's score, {asked.value['score']}")
    telling.show("a request and its answer", asked)


async def _at_once(telling: Telling) -> None:
    voice, health = telling.voice, telling.cast["health"]
    voice.say(f"{AT_ONCE} requests at the same time. Each takes {THINKING_SECONDS} s of work.")
    asked = await telling.cast["analyst"].ask(
        "requests", to=health.agent, count=AT_ONCE, takes=THINKING_SECONDS
    )
    busiest = (await health.ask("tell")).value["busiest"]
    voice.check(
        asked.value.get("cases") == list(range(AT_ONCE)),
        "each has its own answer",
        f"after {asked.value.get('seconds', 0):.2f} s"
        f" instead of {AT_ONCE * THINKING_SECONDS:.1f} s one after the other",
    )
    voice.check(busiest > 1, "side by side", f"up to {busiest} of them were worked on at a time")
    telling.show("concurrent requests", asked)


async def _mail(telling: Telling) -> None:
    voice, cast = telling.voice, telling.cast
    voice.say(
        "A notification goes to one agent and needs no answer. A broadcast goes to the house."
    )
    told = await cast["analyst"].ask("notify", to=telling.agent("mallory"), data="invoice 17")
    heard = (await cast["mallory"].ask("listen", count=1)).value["heard"]
    voice.check(
        _said(heard) == ["invoice 17"], telling.agent("mallory"), f"was told: {_quoted(heard)}"
    )
    called = await cast["analyst"].ask("broadcast", data="maintenance at noon")
    for name in ("health", "newcomer"):
        heard = (await cast[name].ask("listen", count=1)).value["heard"]
        voice.check(
            _said(heard) == ["maintenance at noon"], telling.agent(name), f"heard: {_quoted(heard)}"
        )
    voice.check(
        called.receipt["recipients"] == 2,
        telling.agent("mallory"),
        "is of another organisation and did not hear it",
    )
    telling.show("a notification", told)
    telling.show("a broadcast", called)


async def _denials(telling: Telling) -> None:
    voice, newcomer = telling.voice, telling.cast["newcomer"]
    health, analyst = telling.agent("health"), telling.agent("analyst")
    voice.say("The newcomer tries what the analyst was allowed to do. The hub says why it may not.")
    by_trust = await newcomer.ask("request", to=health, data={"task": "admissions by ward"})
    voice.check(by_trust.error == "trust.level", "by trust", _refusal(by_trust), refused=True)
    by_policy = await newcomer.ask("notify", to=analyst, data="a", sensitivity="internal")
    voice.check(by_policy.error == "policy.denied", "by policy", _refusal(by_policy), refused=True)
    public = await newcomer.ask("request", to=analyst, data={"task": "say hello"})
    voice.check(
        not public.error,
        "public data",
        f"it may ask the analyst, who answers {_json(public.value.get('data'))}",
    )
    telling.show("a denial by trust", by_trust)
    telling.show("a denial by policy", by_policy)
    telling.record.note(public.receipts)


async def _forgeries(telling: Telling) -> None:
    voice, mallory = telling.voice, telling.cast["mallory"]
    health, analyst = telling.agent("health"), telling.agent("analyst")
    voice.say(f"{mallory.agent} is connected and verified. Now it cheats.")
    score_before = (await mallory.ask("tell")).value["score"]
    attempts = (
        ("another key", "signature.invalid", {"how": "key", "to": health}),
        ("another's name", "identity.mismatch", {"how": "name", "to": health, "name": analyst}),
        ("changed content", "signature.digest", {"how": "content", "to": health}),
    )
    for label, code, arguments in attempts:
        receipt = (await mallory.ask("forge", **arguments)).receipt
        voice.check(
            (receipt["status"], receipt["code"]) == ("invalid", code),
            label,
            f"{receipt['code']}: {receipt['detail']}",
            refused=True,
        )
    honest = await mallory.ask("notify", to=analyst, data="sorry about that")
    score = honest.receipt["score"]
    voice.check(
        score is not None and score < score_before,
        "what it costs",
        f"the score of {mallory.agent} falls from {score_before} to {score}",
    )
    beyond = await mallory.ask("notify", to=analyst, data="b", sensitivity="confidential")
    voice.check(
        beyond.error.startswith("policy."),
        "and what that means",
        f"confidential data is out of its reach now: {_refusal(beyond)}",
        refused=True,
    )
    telling.record.note([*honest.receipts, *beyond.receipts])
    telling.show("a forged signature", told="counted, and entered as a sum each minute")


async def _replays(telling: Telling) -> None:
    voice, mallory, health = telling.voice, telling.cast["mallory"], telling.cast["health"]
    voice.say("It sends one honest message, and then tries to use it again.")
    heard_before = len((await health.ask("tell")).value["heard"])
    sent = await mallory.ask("notify", to=health.agent, data="pay 1")
    message_id, entry = sent.receipt["messageId"], sent.receipt["entry"]
    again = (await mallory.ask("replay", message_id=message_id, times=REPLAYS)).value["answers"]
    voice.check(
        [answer["entry"] for answer in again] == [entry] * REPLAYS,
        "byte for byte",
        f"sent {REPLAYS} times more: each time the receipt of the first one, entry {entry}",
    )
    reused = (await mallory.ask("reuse", message_id=message_id)).value["answers"][0]
    voice.check(
        reused["code"] == "replay.conflict",
        "its messageId again",
        f"{reused['code']}: {reused['detail']}",
        refused=True,
    )
    stolen = await mallory.ask("replay_stolen", sender=telling.agent("analyst"))
    voice.check(
        stolen.receipt["code"] == "identity.mismatch",
        "the analyst's own words",
        f"as they were delivered to it: {stolen.receipt['code']}: {stolen.receipt['detail']}",
        refused=True,
    )
    last = await mallory.ask("notify", to=health.agent, data="the end")
    heard = (await health.ask("listen", count=heard_before + 2)).value["heard"]
    voice.check(
        _said(heard[heard_before:]) == ["pay 1", "the end"],
        health.agent,
        "handled that message once",
    )
    telling.show("a replay", sent)
    telling.record.note(last.receipts)


async def _away(telling: Telling) -> None:
    voice, analyst, newcomer = telling.voice, telling.cast["analyst"], telling.cast["newcomer"]
    voice.say("The newcomer's process ends. The hub still accepts mail for it, and keeps it.")
    await newcomer.stop()
    sent = [await analyst.ask("notify", to=newcomer.agent, data=letter) for letter in LETTERS]
    kept = numbers_in_words([letter.receipt["entry"] for letter in sent])
    voice.check(
        all(letter.receipt["status"] == "accepted" for letter in sent),
        "the hub",
        f"keeps {len(sent)} messages: entries {kept}",
    )
    welcome = await newcomer.start()
    heard = (await newcomer.ask("listen", count=len(LETTERS))).value["heard"]
    voice.check(
        _said(heard) == list(LETTERS),
        newcomer.agent,
        f"comes back, is told that {welcome.value.get('pending')} wait, and gets them in order",
    )
    telling.show("mail for an agent that is away", *sent)


async def _revocation(telling: Telling) -> None:
    voice, mallory = telling.voice, telling.cast["mallory"]
    voice.say(f"The officer revokes {mallory.agent}, whose socket is open.")
    ending = asyncio.create_task(mallory.ask("wait_for_the_end"))
    pressed = time.time()
    await asyncio.to_thread(
        telling.officer.revoke, mallory.agent, reason="Forged signatures and replayed messages."
    )
    telling.decide("agent.revoked", mallory.agent)
    ended = (await ending).value
    voice.check(
        ended["ended"] == "session.revoked",
        "revoked",
        f"the socket closed {ended['at'] - pressed:.2f} s after the officer had pressed the button:"
        f" {ended['ended']}",
        refused=True,
    )
    await mallory.stop()
    back = await mallory.start()
    voice.check(back.error == "identity.revoked", "back again", _refusal(back), refused=True)
    telling.show("a revocation that cuts a live socket", told=f"{ended['at'] - pressed:.2f} s")


async def _trail(telling: Telling) -> None:
    voice, record = telling.voice, telling.record
    voice.say(
        "All of this is in the trail, which no one can change. This is what an auditor reads"
        f" from GET /api/v1/provenance/, oldest first. All names end in -{telling.stage.suffix}."
    )
    agents = [player.agent for player in telling.cast.values()]
    questions = record.questions(agents, first=telling.first_entry)
    entries = telling.officer.read_trail(questions)
    voice.table(HEAD, timeline(entries, suffix=f"-{telling.stage.suffix}"))
    record.check(entries)
    revoked_at = max(e["index"] for e in entries if e["kind"] == "agent.revoked")
    mallory = telling.agent("mallory")
    late = [
        entry["index"]
        for entry in entries
        if entry["index"] > revoked_at
        and (entry["kind"], entry["sender"]) == ("envelope.accepted", mallory)
    ]
    voice.check(
        not late,
        "compared with it",
        f"each of {len(record.receipts)} receipts names its own entry; nothing of {mallory} was"
        " accepted after it was revoked",
    )
    telling.show("the trail of it all", told=f"{len(entries)} entries")


CHAPTERS: Final[Sequence[tuple[str, Callable[[Telling], Awaitable[None]]]]] = (
    ("Four agents enrol", _enrolment),
    ("An issuer vouches for them", _attestation),
    ("A request, and its answer", _request),
    (f"{AT_ONCE} requests at once", _at_once),
    ("A notification, and a broadcast", _mail),
    ("Denied by trust, denied by policy", _denials),
    ("Forged signatures", _forgeries),
    ("Replays", _replays),
    ("An agent that is away", _away),
    ("A revocation cuts a live socket", _revocation),
    ("The trail of it all", _trail),
)


def _register(telling: Telling, player: Player) -> str:
    role = player.role
    telling.officer.register(
        player.agent,
        organisation=_organisation(role.organisation, telling),
        owner=role.owner,
        description=f"In the story: {role.character}.",
        declared_capabilities="\n".join(role.capabilities),
        minimum_level=role.minimum_level,
    )
    return telling.officer.issue_token(player.agent)


def _organisation(name: str, telling: Telling) -> str:
    return f"{name} {telling.stage.suffix}"


def _refusal(outcome: Outcome) -> str:
    return f"{outcome.error}: {outcome.value.get('detail', '')}"


def _said(heard: Sequence[Mapping[str, Any]]) -> list[Any]:
    return [message["data"] for message in heard]


def _quoted(heard: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(f'"{said}"' for said in _said(heard))


def _json(data: Any) -> str:
    return json.dumps(data)
