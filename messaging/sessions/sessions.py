"""Opening and closing sessions, in batches: each of them appends to the trail."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from django.db import transaction
from django.db.models import Q
from django.db.models.functions import Now

from atp.errors import ATPError
from atp.judging.scoring import score
from atp.trust import tokens
from atp.trust.keys import PrivateKey
from messaging import failpoints
from messaging.judging.registry_view import RegistryView, current_view
from messaging.models import Mailbox, Presence, Session
from messaging.sessions.limits import lock_logins, without_loops
from messaging.sessions.proofs import LoginRequest, ProvenLogin, RefusedLogin, count_refused, prove
from registry.hub.actions import session_proof
from registry.trail.actions import MOST_ENTRIES, EntryDraft, EpochMoved, append
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

WELCOME_SECONDS = 60  # life of the hub's proof over the agent's nonce
MOST_TRIES = 5  # at a batch of logins, while officers keep changing the registry


@dataclass(frozen=True, slots=True)
class Opened:
    """An authenticated session with the values of its welcome frame."""

    session: str
    agent: str
    level: str
    score: int
    pending: int
    proof: str
    succession: tuple[str, ...] = ()
    acked: dict[str, int] = field(default_factory=dict)
    superseded: tuple[str, str] | None = None  # the earlier session, and the channel of its node


@dataclass(frozen=True, slots=True)
class _Held:
    """The session that an agent has now, on whose node, and whether that node is alive."""

    session: str
    channel: str
    takeovers: int
    live: bool = True


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
    with transaction.atomic():
        lock_logins({one.agent for one in proven})
        judged = without_loops(proven, now)
        admitted = [
            (one, welcome)
            for one, welcome in zip(judged, welcomes, strict=True)
            if isinstance(one, ProvenLogin)
        ]
        opened = iter(_write_sessions(admitted, view, node_id, now))
    return [one if isinstance(one, RefusedLogin) else next(opened) for one in judged]


def _write_sessions(
    admitted: Sequence[tuple[ProvenLogin, Opened]],
    view: RegistryView,
    node_id: uuid.UUID,
    now: float,
) -> list[Opened]:
    if not admitted:
        return []
    proven, opened = [one for one, _ in admitted], [welcome for _, welcome in admitted]
    at = datetime.fromtimestamp(now, UTC)
    with transaction.atomic():
        held = _lock_presences({p.agent for p in proven})
        drafts: list[EntryDraft] = []
        for index, (one, welcome) in enumerate(zip(proven, opened, strict=True)):
            if (previous := held.get(one.agent)) is not None:
                opened[index] = replace(welcome, superseded=(previous.session, previous.channel))
                drafts.append(_superseded(one.agent, previous, welcome.session))
            held[one.agent] = _Held(welcome.session, "", _takeovers(previous))
            drafts.append(_opened(one, welcome.session))
        Session.objects.bulk_create(
            [_session_row(o.session, p, node_id, at) for p, o in zip(proven, opened, strict=True)]
        )
        closed = [o.superseded[0] for o in opened if o.superseded]
        Session.objects.filter(id__in=closed, closed_at=None).update(
            closed_at=at, close_code="session.superseded"
        )
        _make_current(held, node_id)
        append(drafts, expected_epoch=view.epoch)
    return opened


def _welcomes(proven: Sequence[ProvenLogin], view: RegistryView, now: float) -> list[Opened]:
    agents = {p.agent for p in proven}
    inputs = view.score_inputs(agents, now)
    totals = {agent: score(i, now, view.profile).total for agent, i in inputs.items()}
    acked, pending = _mailboxes(agents)
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
                pending=pending.get(one.agent, 0),
                proof=_proof(one, session, signer, view.hub_id, int(now)),
                succession=succession,
                acked=acked.get(one.agent, {}),
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
    return {
        p.agent_id: _Held(str(p.session_id), p.node.channel, p.takeovers, live=p.live)
        for p in live.order_by("agent_id")
    }


def _takeovers(previous: _Held | None) -> int:
    """Return how often the agent's session was taken over so far; 0 if it has none now."""
    return previous.takeovers if previous is not None and previous.live else 0


def _make_current(held: Mapping[str, _Held], node_id: uuid.UUID) -> None:
    """Make the newest session of each agent the one that counts."""
    Presence.objects.bulk_create(
        [
            Presence(agent_id=agent, session_id=h.session, node_id=node_id, takeovers=h.takeovers)
            for agent, h in sorted(held.items())
        ],
        update_conflicts=True,
        unique_fields=["agent"],
        update_fields=["session_id", "node", "takeovers"],
    )


def _session_row(session: str, one: ProvenLogin, node_id: uuid.UUID, at: datetime) -> Session:
    return Session(
        id=session,
        agent_id=one.agent,
        node_id=node_id,
        kid=one.kid,
        remote_address=one.login.remote_address[:64],
        client=one.login.client[:120],
        opened_at=at,
    )


def _opened(one: ProvenLogin, session: str) -> EntryDraft:
    return EntryDraft(
        kind=Kind.SESSION_OPENED,
        actor=f"agent:{one.agent}",
        subject=session,
        sender=one.agent,
        body={"kid": one.kid, "remoteAddress": one.login.remote_address},
    )


def _superseded(agent: str, old: _Held, new: str) -> EntryDraft:
    return EntryDraft(
        kind=Kind.SESSION_SUPERSEDED,
        actor=f"agent:{agent}",
        subject=old.session,
        sender=agent,
        body={"by": new, "live": old.live},
    )


def _mailboxes(agents: Collection[str]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    acked: dict[str, dict[str, int]] = {}
    pending: dict[str, int] = {}
    for box in Mailbox.objects.filter(agent_id__in=agents):
        acked.setdefault(box.agent_id, {})[box.stream] = box.acked_seq
        pending[box.agent_id] = pending.get(box.agent_id, 0) + box.last_seq - box.acked_seq
    return acked, pending


def close_sessions(closings: Iterable[tuple[str, str, str]]) -> None:
    """Close sessions, each given as agent, session and error code.

    A session that was closed already is left as it is.
    """
    wanted = {session: (agent, code) for agent, session, code in closings}
    failpoints.hit("before_close", wanted)
    now = datetime.now(UTC)
    with transaction.atomic():
        _lock_presences(
            {agent for agent, _ in wanted.values()}
        )  # first, as in opening: in another order both could wait for each other
        rows = list(
            Session.objects.select_for_update()
            .filter(id__in=wanted, closed_at=None)
            .order_by("agent_id")
        )
        drafts = []
        for row in rows:
            row.closed_at, row.close_code = now, wanted[str(row.id)][1]
            drafts.append(_closed(row))
        Session.objects.bulk_update(rows, ["closed_at", "close_code"])
        Presence.objects.filter(session_id__in=[row.id for row in rows]).delete()
        if drafts:
            append(drafts)


def close_sessions_of_dead_nodes() -> int:
    """Close the sessions that nodes without a lease left open; return how many."""
    closed = 0
    left = Session.objects.filter(node__lease_until__lt=Now(), closed_at=None)
    while chunk := left.values_list("agent_id", "id")[:MOST_ENTRIES]:
        close_sessions((agent, str(session), "session.fenced") for agent, session in chunk)
        closed += len(chunk)
    return closed


def _closed(row: Session) -> EntryDraft:
    return EntryDraft(
        kind=Kind.SESSION_CLOSED,
        actor=f"agent:{row.agent_id}",
        subject=str(row.id),
        sender=row.agent_id,
        body={"code": row.close_code},
    )
