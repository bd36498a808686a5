"""Opening and closing sessions, in batches: each of them appends to the trail."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from atp.errors import ATPError, SessionSuperseded
from atp.judging.scoring import score
from atp.trust import tokens
from atp.trust.keys import PrivateKey
from atp.wire.words import ANSWERS
from messaging.judging.registry_view import RegistryView, current_view
from messaging.mail.absences import (
    BegunPlace,
    Departure,
    Missing,
    end_missing,
    lock_missing,
    note_departures,
)
from messaging.mail.attempts import count_failures
from messaging.models import Mailbox, Presence, SendOnlySession, Session
from messaging.sessions.entries import closed_entry, opened_entry, superseded_entry
from messaging.sessions.limits import LoginLimits, lock_logins
from messaging.sessions.proofs import LoginRequest, ProvenLogin, RefusedLogin, count_refused, prove
from messaging.sessions.send_only import end_send_only
from registry.agents.querysets import organisations_of
from registry.hub.actions import session_proof
from registry.trail.actions import MOST_ENTRIES, EntryDraft, EpochMoved, append

logger = logging.getLogger(__name__)

WELCOME_SECONDS = 60  # life of the hub's proof over the agent's nonce
MOST_TRIES = 5  # at a batch of logins, while officers keep changing the registry


@dataclass(frozen=True, slots=True)
class Opened:
    """An authenticated session with the values of its welcome frame.

    `acked` is the `seq` after which each stream goes on. `answers_seq` is the last one of the
    stream `answers`; a session that only sends hears all that is for it after that. `resumes` is
    the agent's earlier session that the login named, or "". `begun` are the streams and places
    whose handlers ran when the socket of that one broke.
    """

    session: str
    agent: str
    level: str
    score: int
    pending: int
    proof: str
    succession: tuple[str, ...] = ()
    acked: dict[str, int] = field(default_factory=dict)
    answers_seq: int = 0
    send_only: bool = False
    resumes: str = ""
    beside: str = ""  # the address of the agent's other session, where this one only sends
    superseded: tuple[str, str] | None = None  # the earlier session, and the channel of its node
    taker: str = ""  # the first of the sessions that its process has resumed in turn
    begun: tuple[BegunPlace, ...] = ()


@dataclass(frozen=True, slots=True)
class _Held:
    """The session that takes an agent's mail now, on whose node, and whether that node is alive.

    `address` is that of its socket.
    """

    session: str
    channel: str
    takeovers: int
    address: str
    taker: str
    live: bool = True


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A login that gets a session, and the session that takes the agent's mail until then."""

    proven: ProvenLogin
    opened: Opened
    previous: _Held | None


@dataclass(slots=True)
class _Current:
    """What the agents of some logins have now: presences, absences, and the sessions they name.

    `resumed` has the taker of each session that a login names, by agent and session.
    """

    held: dict[str, _Held]
    missing: dict[str, Missing]
    resumed: dict[tuple[str, str], str]

    def process_of(self, one: ProvenLogin) -> str:
        """Return the taker of the session that the login names; "" if the agent had no such one."""
        return self.resumed.get((one.agent, one.login.resumes), "")

    def take_up(self, one: ProvenLogin, session: str) -> tuple[str, tuple[BegunPlace, ...]]:
        """Return the taker of the new session, and what handlers it goes on with.

        Its taker is that of the agent's current session if the login is of the same process: what
        that one took stays taken. A process that comes back after a broken connection may not have
        heard of its last login, so it may name any of its sessions. In all other cases, the taker
        is the new session itself.
        """
        process, previous = self.process_of(one), self.held.get(one.agent)
        if process and previous is not None and previous.taker == process:
            return process, ()
        missing = self.missing.get(one.agent) if previous is None else None
        if process and missing is not None and _is_back(missing, process):
            return process, missing.begun
        return session, ()


def open_sessions(logins: Sequence[LoginRequest], node_id: uuid.UUID) -> list[Opened | ATPError]:
    """Authenticate each login and open its session; the answers are in the order of the logins.

    An answer is the session, or the error that refuses the login. Raises `EpochMoved` if the
    registry changed during each of `MOST_TRIES` tries.
    """
    for _ in range(MOST_TRIES):
        try:
            return _open_sessions(logins, node_id)
        except EpochMoved:
            logger.info("the registry changed while sessions were opened; looking again")
    raise EpochMoved("the registry kept changing while sessions were opened")


def _open_sessions(logins: Sequence[LoginRequest], node_id: uuid.UUID) -> list[Opened | ATPError]:
    now = round(time.time(), 3)
    view = current_view(now)
    verdicts = prove(logins, view, now)
    proven = [v for v in verdicts if isinstance(v, ProvenLogin)]
    opened = iter(_open(proven, view, node_id, now))
    answers = [v if isinstance(v, RefusedLogin) else next(opened) for v in verdicts]
    if refused := [answer for answer in answers if isinstance(answer, RefusedLogin)]:
        count_refused(refused, now)
    return [answer.problem if isinstance(answer, RefusedLogin) else answer for answer in answers]


def _open(
    proven: Sequence[ProvenLogin], view: RegistryView, node_id: uuid.UUID, now: float
) -> list[Opened | RefusedLogin]:
    """Open a session for each of `proven`, but not for an agent that logs in too often."""
    if not proven:
        return []
    welcomes = _welcomes(proven, view, now)
    agents = {one.agent for one in proven}
    with transaction.atomic():
        lock_logins(agents)
        limits = LoginLimits.load(agents, now)
        current = _Current(_lock_presences(agents), lock_missing(agents), _resumed(proven))
        judged = [
            _admit(one, welcome, current, limits)
            for one, welcome in zip(proven, welcomes, strict=True)
        ]
        if admitted := [one for one in judged if isinstance(one, _Admitted)]:
            _write_sessions(admitted, current.held, node_id, datetime.fromtimestamp(now, UTC))
            _end_absences(admitted, current.missing)
            drafts = [draft for one in admitted for draft in _entries(one, view)]
            append(drafts, expected_epoch=view.epoch)
    return [one.opened if isinstance(one, _Admitted) else one for one in judged]


def _admit(
    one: ProvenLogin, welcome: Opened, current: _Current, limits: LoginLimits
) -> _Admitted | RefusedLogin:
    """Decide what session the login gets; note in `current` that it takes the agent's mail."""
    previous = current.held.get(one.agent)
    send_only = one.login.send_only or _is_beside(one.login, previous)
    if (excess := limits.excess(one.agent, send_only=send_only)) is not None:
        return RefusedLogin(excess, one.agent)
    limits.enter(one.agent, send_only=send_only)
    if send_only:
        process = current.process_of(one) or welcome.session
        return _Admitted(one, _as_send_only(welcome, previous, process), previous)
    address = one.login.remote_address
    taker, begun = current.take_up(one, welcome.session)
    welcome = replace(welcome, taker=taker, begun=begun)
    current.held[one.agent] = _Held(welcome.session, "", _takeovers(previous), address, taker)
    if previous is not None:
        welcome = replace(welcome, superseded=(previous.session, previous.channel))
    return _Admitted(one, welcome, previous)


def _is_beside(login: LoginRequest, previous: _Held | None) -> bool:
    """Return whether the login leaves the agent's live session as it is.

    A process that comes back before the hub has noticed the end of its own session replaces that.
    """
    if previous is None or not previous.live:
        return False
    return not login.takeover and login.resumes != previous.session


def _as_send_only(welcome: Opened, previous: _Held | None, process: str) -> Opened:
    """Return the welcome of a session that hears the answers to what its process sends.

    A new process begins behind what was answered before.
    """
    is_back = process != welcome.session
    begin = welcome.acked.get(ANSWERS, 0) if is_back else welcome.answers_seq
    address = previous.address if previous is not None and previous.live else ""
    return replace(
        welcome, send_only=True, pending=0, acked={ANSWERS: begin}, beside=address, taker=process
    )


def _write_sessions(
    admitted: Sequence[_Admitted], held: Mapping[str, _Held], node_id: uuid.UUID, at: datetime
) -> None:
    Session.objects.bulk_create([_session_row(one, node_id, at) for one in admitted])
    SendOnlySession.objects.bulk_create(
        SendOnlySession(
            id=one.opened.session,
            agent_id=one.opened.agent,
            taker=one.opened.taker,
            node_id=node_id,
        )
        for one in admitted
        if one.opened.send_only
    )
    closed = [one.opened.superseded[0] for one in admitted if one.opened.superseded]
    Session.objects.filter(id__in=closed, closed_at=None).update(
        closed_at=at, close_code=SessionSuperseded.code
    )
    changed = {one.opened.agent for one in admitted if not one.opened.send_only}
    _make_current({agent: held[agent] for agent in changed}, node_id)


def _entries(one: _Admitted, view: RegistryView) -> Iterator[EntryDraft]:
    """Yield the entries of a login: what it replaces, and what it opens."""
    opened, old = one.opened, one.previous
    facts = view.agent(opened.agent)
    organisation = facts.organisation_uid if facts else ""
    if old is not None and not opened.send_only:
        yield superseded_entry(
            opened.agent, old.session, organisation, by=opened.session, live=old.live
        )
    yield opened_entry(
        opened.agent,
        opened.session,
        organisation,
        kid=one.proven.kid,
        address=one.proven.login.remote_address,
        send_only=opened.send_only,
    )


def _welcomes(proven: Sequence[ProvenLogin], view: RegistryView, now: float) -> list[Opened]:
    agents = {p.agent for p in proven}
    inputs = view.score_inputs(agents, now)
    totals = {agent: score(i, now, view.profile).total for agent, i in inputs.items()}
    boxes = _mailboxes(agents)
    signer, succession = session_proof()
    opened = []
    for one in proven:
        session = str(uuid.uuid4())
        opened.append(
            Opened(
                session=session,
                agent=one.agent,
                level=inputs[one.agent].level or "",
                score=totals[one.agent],
                pending=sum(map(_undone, boxes[one.agent].values())),
                proof=_proof(one, session, signer, view.hub_id, int(now)),
                succession=succession,
                acked={stream: box.acked_seq for stream, box in boxes[one.agent].items()},
                answers_seq=box.last_seq if (box := boxes[one.agent].get(ANSWERS)) else 0,
                resumes=one.login.resumes,
            )
        )
    return opened


def _proof(one: ProvenLogin, session: str, signer: PrivateKey, hub: str, now: int) -> str:
    claims = {
        "iss": hub,
        "aud": one.agent,
        "nonce": one.client_nonce,
        "session": session,
        "exp": now + WELCOME_SECONDS,
    }
    return tokens.issue(tokens.TokenKind.WELCOME, claims, signer, now=now)


def _lock_presences(agents: Collection[str]) -> dict[str, _Held]:
    rows = Presence.objects.select_for_update(of=("self",)).filter(agent_id__in=agents)
    live = rows.annotate(live=Q(node__lease_until__gt=Now())).select_related("node")
    present = list(live.order_by("agent_id"))
    sessions = Session.objects.filter(id__in=[p.session_id for p in present])
    addresses = dict(sessions.values_list("id", "remote_address"))
    return {
        p.agent_id: _Held(
            str(p.session_id),
            p.node.channel,
            p.takeovers,
            address=addresses.get(p.session_id, ""),
            taker=p.taker or str(p.session_id),
            live=p.live,
        )
        for p in present
    }


def _resumed(proven: Iterable[ProvenLogin]) -> dict[tuple[str, str], str]:
    """Return the takers of the sessions that these logins name, by agent and session."""
    named = {one.login.resumes for one in proven if _is_uuid(one.login.resumes)}
    rows = Session.objects.filter(id__in=named) if named else Session.objects.none()
    found = rows.values_list("agent_id", "id", "taker")
    return {(agent, str(pk)): taker or str(pk) for agent, pk, taker in found}


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _end_absences(admitted: Iterable[_Admitted], missing: Mapping[str, Missing]) -> None:
    """End the absences of agents that have a session now that takes their mail."""
    firsts: dict[str, Opened] = {}
    for one in admitted:
        if not one.opened.send_only:
            firsts.setdefault(one.opened.agent, one.opened)
    ended = {agent: one for agent, one in missing.items() if agent in firsts}
    end_missing(
        ended, {agent for agent, one in ended.items() if _is_back(one, firsts[agent].taker)}
    )


def _is_back(missing: Missing, taker: str) -> bool:
    return not missing.over and missing.taker == taker


def _takeovers(previous: _Held | None) -> int:
    """Return how often the agent's session was taken over so far; 0 if it has none now."""
    return previous.takeovers if previous is not None and previous.live else 0


def _make_current(held: Mapping[str, _Held], node_id: uuid.UUID) -> None:
    """Make the newest session of each agent the one that counts."""
    Presence.objects.bulk_create(
        [
            Presence(
                agent_id=agent,
                session_id=h.session,
                node_id=node_id,
                takeovers=h.takeovers,
                taker=h.taker,
            )
            for agent, h in sorted(held.items())
        ],
        update_conflicts=True,
        unique_fields=["agent"],
        update_fields=["session_id", "node", "takeovers", "taker"],
    )


def _session_row(one: _Admitted, node_id: uuid.UUID, at: datetime) -> Session:
    login = one.proven.login
    return Session(
        id=one.opened.session,
        agent_id=one.opened.agent,
        node_id=node_id,
        kid=one.proven.kid,
        remote_address=login.remote_address[:64],
        client=login.client[:120],
        send_only=one.opened.send_only,
        taker=one.opened.taker,
        opened_at=at,
    )


def _mailboxes(agents: Collection[str]) -> dict[str, dict[str, Mailbox]]:
    """Return the mailboxes of these agents, by agent and stream."""
    boxes: dict[str, dict[str, Mailbox]] = {agent: {} for agent in agents}
    for box in Mailbox.objects.filter(agent_id__in=agents):
        boxes[box.agent_id][box.stream] = box
    return boxes


def _undone(box: Mailbox) -> int:
    return box.last_seq - box.acked_seq - box.done_ahead_count


def close_sessions(
    closings: Iterable[tuple[str, str, str]],
    *,
    broken: Mapping[str, Sequence[BegunPlace]] | None = None,
) -> None:
    """Close sessions, each given as agent, session and error code.

    `broken` are those whose processes may come back, with the streams and places whose handlers
    ran. A session that was closed already is left as it is.
    """
    wanted = {session: (agent, code) for agent, session, code in closings}
    now = datetime.now(UTC)
    with transaction.atomic():
        # First, as in opening: in another order both could wait for each other.
        held = _lock_presences({agent for agent, _ in wanted.values()})
        rows = list(
            Session.objects.select_for_update()
            .filter(id__in=wanted, closed_at=None)
            .order_by("agent_id")
        )
        uids = organisations_of({row.agent_id for row in rows})
        drafts = []
        for row in rows:
            agent, code = row.agent_id, wanted[str(row.id)][1]
            row.closed_at, row.close_code = now, code
            drafts.append(closed_entry(agent, str(row.id), uids.get(agent, ""), code=code))
        Session.objects.bulk_update(rows, ["closed_at", "close_code"])
        note_departures(_departures(rows, held, broken or {}))
        _charge_replaced(held, broken or {}, {str(row.id) for row in rows})
        Presence.objects.filter(session_id__in=[row.id for row in rows]).delete()
        end_send_only(id__in=[row.id for row in rows if row.send_only])
        if drafts:
            append(drafts)


def _departures(
    rows: Iterable[Session], held: Mapping[str, _Held], broken: Mapping[str, Sequence[BegunPlace]]
) -> Iterator[Departure]:
    """Yield those of the broken sessions that took their agents' mail until now."""
    for row in rows:
        session, presence = str(row.id), held.get(row.agent_id)
        if session in broken and presence is not None and presence.session == session:
            yield Departure(row.agent_id, session, presence.taker, broken[session])


def _charge_replaced(
    held: Mapping[str, _Held], broken: Mapping[str, Sequence[BegunPlace]], closed: Collection[str]
) -> None:
    """Count the handlers of broken sessions whose mail another process took before their end.

    It logged in before the hub had noted that the socket was broken, so there is no absence.
    """
    begun = {session: places for session, places in broken.items() if places}
    if not (replaced := begun.keys() - closed):
        return
    rows = Session.objects.filter(id__in=replaced, close_code=SessionSuperseded.code)
    count_failures(
        (row.agent_id, stream, seq)
        for row in rows
        if (newer := held.get(row.agent_id)) and newer.taker != (row.taker or str(row.id))
        for stream, seq in begun[str(row.id)]
    )


def close_sessions_of_dead_nodes() -> int:
    """Close the sessions that nodes without a lease left open; return how many."""
    closed = 0
    left = Session.objects.filter(node__lease_until__lt=Now(), closed_at=None)
    while chunk := left.values_list("agent_id", "id")[:MOST_ENTRIES]:
        close_sessions((agent, str(session), "session.fenced") for agent, session in chunk)
        closed += len(chunk)
    return closed
