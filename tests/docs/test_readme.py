"""The README's commands work as written, in a fresh environment."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.story.officer import Officer
from tests.docs.tables import Block, blocks, code, page, rows
from tests.lines import Lines
from tests.processes import HubProcess, hub_environment, start_hub
from tests.sources import ROOT

LONGEST_SECONDS = 60
AGENTS = ("data-processor", "my-agent-001")
NOT_RUN = {  # what a test can't type, and why
    "make run": "the fixture runs what it ends in; tests/site/test_make.py makes the environment",
    "pip install .": "it downloads the dependencies; tests/site/test_make.py installs the package",
}
PRESSED = (  # by the officer of these tests, which fails where a page has no such button
    "Register", "Issue the token", "Approve this key", "Attest",
)  # fmt: skip

BLOCKS = list(blocks("README.md"))


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A folder and a hub; commands are typed in the folder as the README has them."""

    folder: Path
    hub: HubProcess

    def start(self, command: str) -> subprocess.Popen[str]:
        arguments = self._typed(command).split()
        return subprocess.Popen(
            arguments,
            cwd=self.folder,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, typed: str = "") -> str:
        process = self.start(command)
        output, problems = process.communicate(typed, timeout=LONGEST_SECONDS)
        assert process.returncode == 0, problems
        return output

    def _environment(self) -> dict[str, str]:
        """Return a newcomer's environment: Python buffers its output into a pipe."""
        environment = hub_environment(self.folder, self.hub.port, {"PYTHONPATH": str(ROOT)})
        environment.pop("PYTHONUNBUFFERED", None)
        return environment

    def _typed(self, command: str) -> str:
        """The command, but for this environment's Python and this hub's port."""
        command = command.replace(".venv/bin/atp ", f"{sys.executable} -m atp.cli ")
        command = re.sub(r"^(\.venv/bin/)?python ", f"{sys.executable} ", command)
        return command.replace(":8000", f":{self.hub.port}")


class Responder:
    """The responder of step 6, and its output."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said = Lines(process.stdout)
        self.problems = Lines(process.stderr)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    folder = tmp_path_factory.mktemp("newcomer")
    hub = start_hub(folder / "var")
    yield Newcomer(folder, hub)
    hub.stop()


@pytest.fixture(scope="module")
def agents(newcomer: Newcomer) -> None:
    """Steps 2 to 5: register, enrol, approve and attest both agents."""
    with Officer(newcomer.hub.url) as officer:
        officer.sign_in("officer", newcomer.hub.officer_password)
        for agent in AGENTS:
            fields = _form_values()
            officer.register(
                agent,
                organisation=fields["Organisation"],
                owner="A newcomer",
                declared_capabilities=code(fields["Declared capabilities"]),
            )
            token = officer.issue_token(agent)
            output = newcomer.run(_noted(f"run: enrol {agent}").text.strip(), f"{token}\n")
            read_out = re.search(r"^fingerprint +(.+)$", output, re.MULTILINE)
            assert read_out is not None
            officer.approve(agent, read_out=read_out.group(1))
            officer.attest_as_offered(agent)


def test_it_runs_or_explains_every_command() -> None:
    unexplained = [
        (block.line, block.text)
        for block in BLOCKS
        if block.language == "bash"
        and not block.note.startswith("<!-- run:")
        and block.text.strip() not in NOT_RUN
    ]
    assert not unexplained


@pytest.fixture
def responder(newcomer: Newcomer, agents: None) -> Iterator[Responder]:
    """Step 6, the first half."""
    for name in ("responder.py", "requester.py"):
        (newcomer.folder / name).write_text(_noted(f"file: {name}").text)
    process = newcomer.start(_noted("run: responder").text.strip())
    yield Responder(process)
    process.kill()
    process.wait(LONGEST_SECONDS)


def test_it_tells_a_story_that_comes_true(newcomer: Newcomer, responder: Responder) -> None:
    """Steps 6 and 7: each begins with what the one before left."""
    _two_agents_talk(newcomer, responder)
    _a_refusal_comes(newcomer)
    _a_suspension_ends_the_connection(newcomer, responder)
    _programs_end_quietly(responder)


def _two_agents_talk(newcomer: Newcomer, responder: Responder) -> None:
    ready, asked = _noted("expect: responder").text.splitlines()
    assert responder.said.next("the responder being ready") == ready
    told = newcomer.run(_noted("run: requester").text.strip())
    assert told == _noted("expect: requester").text
    assert responder.said.next("the request in the responder's output") == asked


def _a_refusal_comes(newcomer: Newcomer) -> None:
    script = _noted("file: requester.py").text
    (sensitivity,) = re.findall(r'`(\{"sensitivity": .*?\})`', page("README.md"))
    changed = script.replace("[2, 3, 5]})", f"[2, 3, 5]}}, {sensitivity})")
    assert changed != script
    (newcomer.folder / "restricted.py").write_text(changed)
    process = newcomer.start(f"{sys.executable} restricted.py")
    _, problems = process.communicate(timeout=LONGEST_SECONDS)
    assert problems.startswith(
        "refused: policy.denied: denied by the rule 'Restricted data needs a certified sender'"
    )
    assert len(problems.splitlines()) == 1


def _a_suspension_ends_the_connection(newcomer: Newcomer, responder: Responder) -> None:
    with Officer(newcomer.hub.url) as officer:
        officer.sign_in("officer", newcomer.hub.officer_password)
        officer.suspend("data-processor", reason="To see what happens.")
    responder.problems.until("session.revoked")
    process = newcomer.start(_noted("run: requester").text.strip())
    _, problems = process.communicate(timeout=LONGEST_SECONDS)
    assert problems.startswith("refused: recipient.unavailable")
    assert "identity.not_active" in responder.problems.next("why the responder stays outside")
    with Officer(newcomer.hub.url) as officer:
        officer.sign_in("officer", newcomer.hub.officer_password)
        officer.resume("data-processor", reason="Seen.")
    assert "accepts it again" in responder.problems.next("the responder's return")
    assert newcomer.run(_noted("run: requester").text.strip())


def _programs_end_quietly(responder: Responder) -> None:
    """Stop the responder with Ctrl-C."""
    responder.process.send_signal(signal.SIGINT)
    assert responder.process.wait(LONGEST_SECONDS) == 0
    assert (responder.said.rest()[-1], responder.problems.rest()) == ("stopped", [])


@pytest.mark.parametrize("name", ["responder", "requester"])
def test_it_says_in_a_sentence_what_is_missing(
    newcomer: Newcomer, agents: None, tmp_path: Path, name: str
) -> None:
    """Without the identity file, and with one whose hub does not run."""
    (tmp_path / f"{name}.py").write_text(_noted(f"file: {name}.py").text)
    alone = Newcomer(tmp_path, newcomer.hub)
    assert "`atp enroll` writes one" in _only_line(alone, f"{sys.executable} {name}.py")
    for agent in AGENTS:
        shutil.copytree(newcomer.folder / agent, tmp_path / agent)
        identity = tmp_path / agent / "identity.json"
        identity.write_text(identity.read_text().replace(f":{newcomer.hub.port}/", ":9/"))
    assert "is the hub running there?" in _only_line(alone, f"{sys.executable} {name}.py")


def test_it_names_the_buttons_that_are_pressed() -> None:
    text = page("README.md")
    assert [button for button in PRESSED if f"**{button}**" not in text] == []


def test_it_shows_what_an_enrolment_prints(newcomer: Newcomer, agents: None) -> None:
    """The labels, at least; ids and fingerprints differ."""
    assert (newcomer.folder / "data-processor" / "identity.json").exists()
    assert "identity     data-processor/identity.json" in page("README.md")


def test_it_shows_what_a_hub_prints(newcomer: Newcomer) -> None:
    told = newcomer.hub.output
    shown = next(block.text for block in BLOCKS if "is serving." in block.text)
    for line in shown.splitlines():
        label = line.split("http")[0].split("ws:")[0] if "://" in line else line
        label = re.sub(r"hub-[0-9a-f]+|(?<=password  )\S+", "", label)
        assert label in re.sub(r"hub-[0-9a-f]+|(?<=password  )\S+", "", told)


def test_it_runs_the_demo_in_memory(newcomer: Newcomer) -> None:
    assert newcomer.run(_noted("run: demo in memory").text.strip())


def test_it_lists_what_make_offers() -> None:
    told = {code(row["command"]) for row in rows("README.md", columns=("command", "does"))}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    offered = re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE)
    assert told == {f"make {name}" for name in offered}


def test_it_links_to_pages_that_exist() -> None:
    link = re.compile(r"\]\((?!https?:|mailto:)([^)#]+)")
    broken = [
        f"{name}: {target}"
        for name in _pages()
        for target in link.findall(page(name))
        if not ((ROOT / name).parent / target).exists()
    ]
    assert not broken


def test_it_links_to_headings_that_exist() -> None:
    broken = []
    for name in _pages():
        headings = {_anchor(line) for line in page(name).splitlines() if line.startswith("#")}
        broken += [
            f"{name}: {t}" for t in re.findall(r"\]\(#([^)]+)\)", page(name)) if t not in headings
        ]
    assert not broken


def _only_line(newcomer: Newcomer, command: str) -> str:
    """Return the output of a program that fails with an ordinary error."""
    process = newcomer.start(command)
    _, problems = process.communicate(timeout=LONGEST_SECONDS)
    assert process.returncode == 1
    (line,) = problems.splitlines()
    return line


def _pages() -> list[str]:
    return [os.path.relpath(path, ROOT) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]


def _anchor(heading: str) -> str:
    kept = re.sub(r"[^\w\- ]", "", heading.lstrip("#").strip().lower())
    return kept.replace(" ", "-")


def _noted(note: str) -> Block:
    """The block under a comment."""
    (found,) = [block for block in BLOCKS if block.note == f"<!-- {note} -->"]
    return found


def _form_values() -> dict[str, str]:
    return {row["field"]: row["value"] for row in rows("README.md", columns=("field", "value"))}
