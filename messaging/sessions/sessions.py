"""Opening and closing sessions, in batches: each of them appends to the trail."""

from __future__ import annotations

import logging
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Count, Min, Q
from django.db.models.functions import Now

from atp.errors import (
    ATPError,
    FlowTooMany,
    IdentityNotActive,
    IdentityRevoked,
    KeyRevoked,
    SessionAuthentication,
)
from atp.judging.facts import KeyFacts
from atp.judging.scoring import score
from atp.trust import tokens
from atp.trust.keys import PrivateKey
from atp.trust.signing import read_header, verify
from messaging.judging.registry_view import RegistryView, current_view
from messaging.models import Mailbox, Presence, Session
from registry.attestations.querysets import left_without_voucher
from registry.hub.actions import session_proof
from registry.trail.actions import (
    MOST_ENTRIES,
    EntryDraft,
    EpochMoved,
    append,
    count_refusals,
)
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

LOGIN_LOCK = 0x4154504C00000000  # PostgreSQL advisory locks: this and the CRC of an agent's id
LOGINS_WINDOW_SECONDS = 60  # in which an agent's logins are counted
WELCOME_SECONDS = 60  # life of the hub's proof over the agent's nonce
MOST_TRIES = 5  # at a batch of logins, while officers keep changing the registry
ALARMING_TAKEOVERS = 5  # sessions of one agent replaced while live, before officers are told


@dataclass(frozen=True, slots=True)
class LoginRequest:
    """The data of a login: the proof, the nonce of the challenge, and the address called."""

    proof: str
    nonce: str
    host: str
    path: str
    remote_address: str
    client: str = ""
    resumes: str = ""  # the session that the same process had before


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
class _Proven:
    login: LoginRequest
    agent: str
    kid: str
    client_nonce: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """The error of a refused login, and the signer of its proof; "" if the signature is bad."""

    problem: ATPError
    signer: str = ""

    def __post_init__(self) -> None:
        """Drop the traceback: its frames refer to this object and to what they handle.

        That is a cycle; it would stay in memory until the garbage collector runs.
        """
        self.problem.__traceback__ = None


@dataclass(frozen=True, slots=True)
class _Held:
    """The session that an agent has now, on whose node, and whether that node is alive."""

    session: str
    channel: str
    takeovers: int
    taker: str
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
    verdicts = _prove(logins, view, now)
    proven = [v for v in verdicts if isinstance(v, _Proven)]
    opened = iter(_open(proven, view, node_id, now))
    answers = [v if isinstance(v, _Refused) else next(opened) for v in verdicts]
    if refused := [answer for answer in answers if isinstance(answer, _Refused)]:
        _count_refused(refused, now)
    return [answer.problem if isinstance(answer, _Refused) else answer for answer in answers]


def _prove(
    logins: Sequence[LoginRequest], view: RegistryView, now: float
) -> list[_Proven | _Refused]:
    """Find whose key signed each proof, with one query a table for all of them."""
    kids = [_kid(login) for login in logins]
    view.load((), {kid for kid in kids if isinstance(kid, str)})
    signed = [
        kid if isinstance(kid, _Refused) else _verify(login, kid, view, now)
        for login, kid in zip(logins, kids, strict=True)
    ]
    agents = {one.agent for one in signed if isinstance(one, _Proven)}
    view.load(agents, ())
    unvouched = left_without_voucher(agents, view.standing, now)
    return [one if isinstance(one, _Refused) else _standing(one, view, unvouched) for one in signed]


def _kid(login: LoginRequest) -> str | _Refused:
    try:
        return read_header(login.proof).kid
    except ATPError as problem:
        return _Refused(problem)


def _verify(login: LoginRequest, kid: str, view: RegistryView, now: float) -> _Proven | _Refused:
    signer = ""
    try:
        key = view.key(kid)
        if key is None:
            raise SessionAuthentication("no agent has the key that signed this proof")
        claims = verify(login.proof, key.public, typ=tokens.TokenKind.AUTH.typ)
        signer = key.agent
        tokens.judge_claims(
            tokens.TokenKind.AUTH, claims, now=int(now), audience=view.hub_id, issuer=key.agent
        )
        if claims["nonce"] != login.nonce:
            raise SessionAuthentication("the proof is over another nonce than this socket's")
        _check_url(claims["htu"], login)
    except ATPError as problem:
        return _Refused(problem, signer)
    return _Proven(login, key.agent, kid, claims["cnonce"])


def _standing(one: _Proven, view: RegistryView, unvouched: Collection[str]) -> _Proven | _Refused:
    key = view.key(one.kid)
    assert key is not None
    try:
        _check_standing(key, view)
        if one.agent in unvouched:
            raise IdentityNotActive(
                "the issuer that vouched for this agent was suspended or revoked; ask the officers"
                " for another attestation"
            )
    except ATPError as problem:
        return _Refused(problem, one.agent)
    return one


def _lock_logins(agents: Collection[str]) -> None:
    """Let one transaction at a time count and open the sessions of an agent, over all nodes.

    SQLite has one writer anyway. No other code takes these locks, and each transaction takes them
    in the same order, so no two can wait for each other.
    """
    if connection.vendor == "postgresql":
        keys = sorted(LOGIN_LOCK ^ zlib.crc32(agent.encode("ascii")) for agent in agents)
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(k) FROM unnest(%s::bigint[]) k", [keys])


def _without_loops(proven: Sequence[_Proven], now: float) -> list[_Proven | _Refused]:
    """Refuse agents that log in too often: each session leaves entries in the trail."""
    agents = {one.agent for one in proven}
    since = datetime.fromtimestamp(now - LOGINS_WINDOW_SECONDS, UTC)
    rows = Session.objects.filter(agent_id__in=agents, opened_at__gt=since).order_by()
    found = rows.values_list("agent_id").annotate(Count("id"), Min("opened_at"))
    lately = {agent: (count, oldest.timestamp()) for agent, count, oldest in found}
    judged: list[_Proven | _Refused] = []
    for one in proven:
        count, oldest = lately.get(one.agent, (0, now))
        if count >= settings.ATP_LOGINS_PER_MINUTE:
            wait = oldest + LOGINS_WINDOW_SECONDS - now
            judged.append(_Refused(_looping(max(1.0, round(wait, 1))), one.agent))
        else:
            lately[one.agent] = count + 1, oldest
            judged.append(one)
    return judged


def _looping(wait_seconds: float) -> FlowTooMany:
    return FlowTooMany(
        f"this agent has logged in {settings.ATP_LOGINS_PER_MINUTE} times within a minute",
        retry_after=wait_seconds,
    )


def _check_url(dialled: str, login: LoginRequest) -> None:
    """Check the address in the proof: an agent that was lured to a relay dialled another one."""
    try:
        parts = urlsplit(dialled)
    except ValueError as exc:
        raise SessionAuthentication("the proof is for something that is no address") from exc
    if parts.scheme not in {"ws", "wss"} or parts.netloc.lower() != login.host.lower():
        raise SessionAuthentication("the proof is for another address than the one dialled")
    if parts.path != login.path:
        raise SessionAuthentication("the proof is for another path than the one dialled")


def _check_standing(key: KeyFacts, view: RegistryView) -> None:
    agent = view.agent(key.agent)
    if agent is None or agent.status == "revoked":
        raise IdentityRevoked("this agent has been revoked for good; the officers can say why")
    if key.status == "revoked":
        raise KeyRevoked(
            "an officer has refused or revoked this key; ask for another one-time token and enrol"
            " a new key"
        )
    if key.status == "retired":
        raise KeyRevoked("another key of this agent has taken the place of this one")
    if agent.status == "suspended":
        raise IdentityNotActive("this agent is suspended; the officers can say why, and resume it")
    if agent.status != "active" or key.status != "active":
        raise IdentityNotActive("an officer has not yet approved this agent's key")


def _open(
    proven: Sequence[_Proven], view: RegistryView, node_id: uuid.UUID, now: float
) -> list[Opened | _Refused]:
    """Open a session for each of `proven`, but not for an agent that logs in too often."""
    if not proven:
        return []
    welcomes = _welcomes(proven, view, now)
    with transaction.atomic():
        _lock_logins({one.agent for one in proven})
        judged = _without_loops(proven, now)
        admitted = [
            (one, welcome)
            for one, welcome in zip(judged, welcomes, strict=True)
            if isinstance(one, _Proven)
        ]
        opened = iter(_write_sessions(admitted, view, node_id, now))
    return [one if isinstance(one, _Refused) else next(opened) for one in judged]


def _write_sessions(
    admitted: Sequence[tuple[_Proven, Opened]], view: RegistryView, node_id: uuid.UUID, now: float
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
            taker = _taker(one.login, previous, welcome.session)
            held[one.agent] = _Held(welcome.session, "", _takeovers(one.agent, previous), taker)
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


def _welcomes(proven: Sequence[_Proven], view: RegistryView, now: float) -> list[Opened]:
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


def _proof(one: _Proven, session: str, signer: PrivateKey, hub: str, now: int) -> str:
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
        p.agent_id: _Held(
            str(p.session_id),
            p.node.channel,
            p.takeovers,
            p.taker or str(p.session_id),
            live=p.live,
        )
        for p in live.order_by("agent_id")
    }


def _taker(login: LoginRequest, previous: _Held | None, session: str) -> str:
    """Return the session whose taken deliveries count as taken by the new session too.

    It is the new session itself, unless the process of the agent goes on from its current one.
    """
    if previous is not None and login.resumes == previous.session:
        return previous.taker
    return session


def _takeovers(agent: str, previous: _Held | None) -> int:
    """Return how many live sessions of this agent were replaced so far; 0 if none was now."""
    if previous is None or not previous.live:
        return 0
    takeovers = previous.takeovers + 1
    if takeovers % ALARMING_TAKEOVERS == 0:
        logger.critical("the session of agent %s was taken over %d times", agent, takeovers)
    return takeovers


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


def _session_row(session: str, one: _Proven, node_id: uuid.UUID, at: datetime) -> Session:
    return Session(
        id=session,
        agent_id=one.agent,
        node_id=node_id,
        kid=one.kid,
        remote_address=one.login.remote_address[:64],
        client=one.login.client[:120],
        opened_at=at,
    )


def _opened(one: _Proven, session: str) -> EntryDraft:
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
        body={"by": new, "live": old.live, "takeovers": old.takeovers + int(old.live)},
    )


def _mailboxes(agents: Collection[str]) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    acked: dict[str, dict[str, int]] = {}
    pending: dict[str, int] = {}
    for box in Mailbox.objects.filter(agent_id__in=agents):
        acked.setdefault(box.agent_id, {})[box.stream] = box.acked_seq
        left = box.last_seq - box.acked_seq - box.done_ahead_count
        pending[box.agent_id] = pending.get(box.agent_id, 0) + left
    return acked, pending


def _count_refused(refused: Iterable[_Refused], now: float) -> None:
    """Count refused logins by agent and code; by the hub where the signature is bad."""
    counts = Counter((one.signer, one.problem.code) for one in refused)
    with transaction.atomic():
        count_refusals(counts, datetime.fromtimestamp(now, UTC))


def close_sessions(closings: Iterable[tuple[str, str, str]]) -> None:
    """Close sessions, each given as agent, session and error code.

    A session that was closed already is left as it is.
    """
    wanted = {session: (agent, code) for agent, session, code in closings}
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
