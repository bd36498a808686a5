"""One run: start a hub and agents, make faults, undo them, and check the result."""

from __future__ import annotations

import json
import random
import re
import secrets
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
from celery import Celery
from kombu.exceptions import OperationalError
from psycopg import sql

from tests.crash.agenda import Agenda
from tests.crash.agents import TURNS, Part, Phase
from tests.crash.blows import Blow, Blows
from tests.crash.checker import Violation, check
from tests.crash.company import Company
from tests.crash.engines import Engines, Storage, Ways, ways_to
from tests.crash.lasting import Lasting
from tests.crash.ledger import Query, read_ledger, unfinished
from tests.crash.log import AgentLog, Occurrences, read_log
from tests.crash.nemesis import Nemesis, Temper
from tests.crash.proxy import Proxy
from tests.crash.recovery import HEALED_SECONDS, Acceptances, healing_seconds
from tests.processes import free_port, hub_environment
from tests.sources import ROOT

BOOT_SECONDS = 60
SETTLE_SECONDS = 150
FINISH_SECONDS = 40
_FAILPOINT = re.compile(rb"failpoint (\S+): this process ends here")


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a run. Without engines the hub is one process on SQLite."""

    seconds: float
    seed: int
    processes: int = 4  # of agents
    agents: int = 4  # in each
    rate: float = 4.0  # messages that each agent begins a second
    turns: Mapping[str, float] = field(default_factory=lambda: dict(TURNS))
    temper: Temper = field(default_factory=Temper)
    armed_share: float = 0.7
    mutant: str = ""  # of the hub's processes
    agents_module: str = "tests.crash.agents"
    settle_seconds: float = SETTLE_SECONDS
    patience_ms: int = 20_000  # limit for an answer or a receipt, in milliseconds


@dataclass(slots=True)
class Outcome:
    """The result of a run."""

    plan: Plan
    violations: list[Violation]
    logs: list[AgentLog]
    blows: Sequence[Blow]
    deaths: Counter[str]
    failpoints: Counter[str]
    settle_seconds: float
    left_over: str
    refused: Mapping[str, int]  # dead letters, by code
    healing: Mapping[str, float]  # seconds, by fault
    not_made: Sequence[str]  # faults that this machine does not allow, with the reason

    @property
    def slow(self) -> list[str]:
        """Return the faults after which the hub took longer to heal than it should."""
        return [fault for fault, seconds in self.healing.items() if seconds > HEALED_SECONDS]


class Stage:
    """A hub and its agents, during a run."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        engines: Engines | None,
        storage: Storage = Storage(),  # noqa: B008  # it is frozen
    ) -> None:
        """`storage` is that of the engines, or of a hub without any."""
        self.plan = plan
        self.storage = storage
        self.folder = folder
        self.chance = random.Random(plan.seed)  # noqa: S311  # a run is to be repeatable
        self.engines = engines
        self.database = f"crash_{secrets.token_hex(4)}"
        self.logs = folder / "logs"
        self._phase = folder / "phase"
        self._identities = folder / "identities"
        self._ports = [free_port() for _ in range(2 if engines else 1)]
        own = folder if engines or storage.disk is None else storage.disk.folder
        self.company = Company(folder, own / "data", {}, self.chance)
        self.proxy = Proxy(self._ports, seed=plan.seed)
        self._agents: list[str] = []
        self._receipts = Occurrences(self.logs, b'"status":"accepted"')

    @property
    def query(self) -> Query:
        """Return a function that queries the hub's database; each query opens a connection."""
        return self._ask_postgres if self.engines else self._ask_sqlite

    def open(self, ways: Ways | None = None) -> None:
        """Start everything and wait until each agent has connected once.

        The hub uses its engines by these ways, or directly.
        """
        self.company.env = self._environment(ways)
        self.logs.mkdir(parents=True)
        self.company.data.mkdir()
        if self.engines:
            self._make_database(self.engines)
        self._start_hub()
        self._say("run", self.plan.rate)
        parts = self._enrol()
        for number, identities in enumerate(parts):
            part = Part(
                identities=identities,
                everyone=self._agents,
                url=f"ws://127.0.0.1:{self.proxy.port}/ws/agents/",
                logs=str(self.logs),
                phase=str(self._phase),
                seed=self.plan.seed,
                turns=dict(self.plan.turns),
                patience_ms=self.plan.patience_ms,
            )
            path = self.folder / f"agents-{number}.json"
            part.write(path)
            self.company.add_agents(f"agents-{number}", path, module=self.plan.agents_module)
        for number in range(len(self._ports)):
            self._await_node(number)
        assert self._all_logs_have(b'"kind":"opened"', seconds=BOOT_SECONDS), "no agents"

    def pace(self, rate: float) -> None:
        """Set the rate of each agent, in messages a second."""
        self._say("run", rate)

    def settle(self) -> tuple[float, str]:
        """Wait until the hub has no work left; return the seconds, and the work that is left."""
        began = time.monotonic()
        self.company.disarm()
        self._say("quiet")
        self._all_logs_have(b'"kind":"settled"', seconds=self.plan.settle_seconds)
        left = "?"

        def is_finished() -> bool:
            nonlocal left
            left = unfinished(self.query)
            return not left

        self.company.tend_until(is_finished, seconds=FINISH_SECONDS)
        self.company.tend_until(self._all_settled, seconds=FINISH_SECONDS)
        took = time.monotonic() - began
        self._say("end")
        return took, left

    def send_task(self, name: str) -> None:
        """Send a task to the workers, if the broker takes it."""
        if self.engines is None:
            return
        options = {"socket_timeout": 1, "socket_connect_timeout": 1}
        sender = Celery(
            broker=self.engines.redis.database(1),
            broker_transport_options=options,
            task_serializer="msgpack",
            set_as_current=False,  # the current application of this process stays the hub's
        )
        with sender, suppress(OperationalError):
            sender.send_task(name, queue="atp", ignore_result=True, retry=False)

    def accepted(self) -> int:
        """Return how many receipts so far said `accepted`."""
        return self._receipts.count()

    def close(self) -> None:
        """Stop all processes except services."""
        self.company.stop()

    def read_logs(self) -> list[AgentLog]:
        return [read_log(path) for path in sorted(self.logs.glob("*.jsonl"))]

    def failpoints(self) -> Counter[str]:
        """Return how often a process ended at each failpoint."""
        outputs = (path.read_bytes() for path in self.folder.glob("*.log"))
        return Counter(name.decode() for out in outputs for name in _FAILPOINT.findall(out))

    def _environment(self, ways: Ways | None) -> dict[str, str]:
        if self.engines is None:
            return {}
        if ways is not None:
            return ways.urls(self.database)
        return {
            "ATP_DATABASE_URL": self._database_url(self.engines),
            "ATP_REDIS_URL": self.engines.redis.database(0),
            "ATP_BROKER_URL": self.engines.redis.database(1),
        }

    def _database_url(self, engines: Engines) -> str:
        return f"{engines.postgres.url.rpartition('/')[0]}/{self.database}"

    def _make_database(self, engines: Engines) -> None:
        with psycopg.connect(engines.postgres.url, autocommit=True) as server:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))
        engines.redis.flush()
        self.company.services |= {"postgres": engines.postgres, "redis": engines.redis}

    def _start_hub(self) -> None:
        self._add_node(0)  # the first node migrates
        self._await_node(0)
        if self.engines is not None:
            self._add_node(1)
            for number in range(2):
                arguments = ("worker", "--concurrency=1", f"--name=w{number}")
                self.company.add(
                    f"worker-{number}", *arguments, port=self._ports[0], mutant=self.plan.mutant
                )
            self.company.add("beat", "beat", port=self._ports[0])

    def _add_node(self, number: int) -> None:
        port = self._ports[number]
        arguments = ("hub", "--port", str(port))
        self.company.add(f"node-{number}", *arguments, port=port, mutant=self.plan.mutant)

    def _await_node(self, number: int) -> None:
        ready = self.company.tend_until(
            lambda: _is_ready(self._ports[number]), seconds=BOOT_SECONDS
        )
        assert ready, (self.folder / f"node-{number}.log").read_text()[-3000:]

    def _enrol(self) -> list[list[str]]:
        """Enrol new agents; return their identity files by process."""
        count = self.plan.processes * self.plan.agents
        with (self.folder / "identities.log").open("w+") as output:
            enrolling = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.provision", str(count), str(self._identities)],
                cwd=ROOT,
                env=hub_environment(self.company.data, self._ports[0], self.company.env),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            self.company.tend_until(lambda: enrolling.poll() is not None, seconds=BOOT_SECONDS)
            output.seek(0)
            assert enrolling.returncode == 0, output.read()[-3000:]
        paths = sorted(self._identities.glob("*.json"))
        self._agents = [path.stem for path in paths]
        for path in paths:
            members = json.loads(path.read_text())
            members["ws_url"] = f"ws://127.0.0.1:{self.proxy.port}/ws/agents/"
            path.write_text(json.dumps(members))
        processes = self.plan.processes
        return [[str(path) for path in paths[n::processes]] for n in range(processes)]

    def _say(self, name: str, rate: float = 1.0) -> None:
        Phase(name, rate).write(self._phase)

    def _all_logs_have(self, word: bytes, *, seconds: float) -> bool:
        waiting = {self.logs / f"{agent}.jsonl" for agent in self._agents}

        def has_all() -> bool:
            found = {path for path in waiting if path.exists() and word in path.read_bytes()}
            waiting.difference_update(found)
            return not waiting

        return self.company.tend_until(has_all, seconds=seconds)

    def _all_settled(self) -> bool:
        """Return whether each agent has settled since its process was started last."""
        logs = [(self.logs / f"{agent}.jsonl").read_bytes() for agent in self._agents]
        return all(log.rfind(b'"kind":"settled"') > log.rfind(b'"kind":"began"') for log in logs)

    def _ask_postgres(self, question: LiteralString) -> Sequence[tuple[Any, ...]]:
        assert self.engines is not None
        with psycopg.connect(self._database_url(self.engines), connect_timeout=5) as database:
            return database.execute(question).fetchall()

    def _ask_sqlite(self, question: LiteralString) -> Sequence[tuple[Any, ...]]:
        with closing(sqlite3.connect(next(self.company.data.glob("*.sqlite3")))) as database:
            return database.execute(question).fetchall()


def run(
    plan: Plan,
    folder: Path,
    engines: Engines | None,
    storage: Storage = Storage(),  # noqa: B008  # it is frozen
) -> Outcome:
    """Do a run in `folder`, which must be empty."""
    stage = Stage(plan, folder, engines, storage)
    with ExitStack() as running:
        running.enter_context(stage.proxy)
        ways = running.enter_context(ways_to(engines, seed=plan.seed)) if engines else None
        nemesis = _nemesis(stage, ways)
        try:
            stage.open(ways)
            stage.company.armed_share = plan.armed_share
            stage.company.tasks = _scheduled_tasks()
            nemesis.strike_for(plan.seconds)
            took, left = stage.settle()
        finally:
            stage.close()
        return judge(stage, list(nemesis.blows), took, left)


def _nemesis(stage: Stage, ways: Ways | None) -> Nemesis:
    agenda, blows = Agenda(), Blows()
    lasting = Lasting(
        stage.company,
        agenda,
        blows,
        stage.chance,
        engines=stage.engines,
        ways=ways,
        database=stage.database,
        disk=stage.storage.disk,
    )
    return Nemesis(
        stage.company,
        stage.proxy,
        stage.chance,
        lasting,
        blows,
        agenda,
        temper=stage.plan.temper,
        send_task=stage.send_task,
        accepted=stage.accepted,
    )


def judge(stage: Stage, blows: Sequence[Blow], took: float, left: str) -> Outcome:
    """Check the logs and the database of a finished run."""
    logs, ledger = stage.read_logs(), read_ledger(stage.query)
    violations = check(logs, ledger)
    if left:
        violations.append(Violation("settles", "", "", left))
    if ended := stage.company.deaths["agents"]:
        detail = f"{ended} processes of agents ended by themselves; agents-*.log says why"
        violations.append(Violation("settles", "", "", detail))
    return Outcome(
        plan=stage.plan,
        violations=violations,
        logs=logs,
        blows=blows,
        deaths=stage.company.deaths,
        failpoints=stage.failpoints(),
        settle_seconds=took,
        left_over=left,
        refused=Counter(d.code for d in ledger.deliveries if d.state == "refused"),
        healing=healing_seconds(blows, Acceptances(logs, ledger)),
        not_made=[f"full disk: {stage.storage.why_not}"] if stage.storage.why_not else [],
    )


def _scheduled_tasks() -> tuple[str, ...]:
    from atp_site import settings

    return tuple(settings.CELERY_BEAT_SCHEDULE)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
