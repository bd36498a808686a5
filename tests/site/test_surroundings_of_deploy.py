"""What surrounds an installation: the user's pip, a strict umask, a container of each role."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.processes import free_port, start_hub
from tests.production.fleet import wait_until
from tests.sources import ROOT

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
DEPLOY = ROOT / "deploy"
CHECK = DEPLOY / "healthcheck.py"
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what a container listens on
PIP_VARIABLES = {
    "PIP_USER": "1",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_TARGET": "elsewhere",
    "PIP_PREFIX": "elsewhere",
    "PIP_ROOT": "elsewhere",
    "PIP_DRY_RUN": "1",
    "PIP_PYTHON": "/nonexistent",
    "PIP_REQUIRE_HASHES": "1",
    "PIP_NO_BINARY": ":all:",
    "PIP_REQUIREMENT": "/nonexistent",
}
BACKEND = """
import zipfile

def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "trial_project-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("trial_project.py", "")
        wheel.writestr("trial_project-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\\nName: trial-project\\nVersion: 1.0\\n")
        wheel.writestr("trial_project-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("trial_project-1.0.dist-info/RECORD", "")
    return name
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with this Makefile that needs one package, without any index of packages."""
    folder = tmp_path / "project"
    (folder / "backend").mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", folder)
    wheel = folder / "trial_needed-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as made:
        made.writestr("trial_needed.py", "")
        about = "trial_needed-1.0.dist-info"
        named = "Metadata-Version: 2.1\nName: trial-needed\nVersion: 1.0\n"
        made.writestr(f"{about}/METADATA", named)
        kind = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        made.writestr(f"{about}/WHEEL", kind)
        made.writestr(f"{about}/RECORD", "")
    (folder / "requirements.txt").write_text("trial-needed==1.0\n")
    (folder / "backend" / "trial_backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "trial_backend"\n'
        'backend-path = ["backend"]\n[project]\nname = "trial-project"\nversion = "1.0"\n'
    )
    return folder


@pytest.mark.parametrize("place", ["environment", "own pip.conf", "given pip.conf"])
def test_it_installs_where_the_makefile_says(place: str, project: Path, tmp_path: Path) -> None:
    """Whatever the user has told pip; but from the index that the user has told it."""
    elsewhere, index = tmp_path / "elsewhere", f"no-index = true\nfind-links = {project}\n"
    given = {"HOME": str(tmp_path)}
    if place == "environment":
        given |= {**PIP_VARIABLES, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(project)}
    elif place == "own pip.conf":
        told = f"user = true\ntarget = {elsewhere}\nprefix = {elsewhere}\nroot = {elsewhere}\n"
        (tmp_path / ".pip").mkdir()
        (tmp_path / ".pip" / "pip.conf").write_text(f"[install]\n{told}[global]\n{told}{index}")
    else:
        told = f"user = true\ntarget = {elsewhere}\nroot = {elsewhere}\n"
        (tmp_path / "pip.conf").write_text(f"[install]\n{told}[global]\n{index}")
        given["PIP_CONFIG_FILE"] = str(tmp_path / "pip.conf")
    done = subprocess.run(
        ["make", "--no-print-directory", ".venv/.runtime", f"PYTHON={sys.executable}"],
        cwd=project,
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    python = project / ".venv" / "bin" / "python"
    tried = [str(python), "-I", "-c", "import trial_needed, trial_project"]
    subprocess.run(tried, check=True, timeout=60)
    assert not list(tmp_path.rglob("elsewhere"))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def unreadable(folder: Path) -> list[Path]:
    """What another user can't read, or can't go into."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    return [p for p, m in modes.items() if m & 0o005 != 0o005 if p.is_dir() or not m & 0o004]


def test_the_image_can_be_read_by_its_user_whatever_the_umask_of_the_clone(tmp_path: Path) -> None:
    """What the build copies it makes readable, before the stage that runs takes it over."""
    build, final = DOCKERFILE.rsplit("\nFROM ", 1)
    copied = re.findall(r"^COPY (\S+) \./", build, re.MULTILINE)
    assert {"manage.py", "atp", "messaging"} <= set(copied)
    assert re.findall(r"^COPY .*", final, re.MULTILINE) == [
        "COPY --from=build /opt/venv /opt/venv",
        "COPY --from=build /opt/atp /opt/atp",
    ]
    image = tmp_path / "image"
    with umask(0o077):
        image.mkdir()
        for name in copied:
            place = image / Path(name).name
            if (ROOT / name).is_dir():
                place.mkdir()
                place /= "a_file"
            place.touch()
    assert unreadable(image)
    (command,) = re.findall(r"^RUN (chmod .*)$", build, re.MULTILINE)
    subprocess.run(command.replace("/opt/atp", str(image)), shell=True, check=True, timeout=60)  # noqa: S602
    assert not unreadable(image)


def test_the_users_of_the_units_can_read_what_root_installs(tmp_path: Path) -> None:
    """The commands of the page, in a shell that root has set to keep everything for itself."""
    page = (ROOT / "docs" / "production.md").read_text()
    (commands,) = re.findall(r"```bash\n(umask [^`]*useradd [^`]*)```", page)
    for old, new in {
        " -g atp ": " ",
        "/opt/atp": f"{tmp_path}/opt",
        "/etc/atp": f"{tmp_path}/etc",
        "/usr/local/bin": f"{tmp_path}/bin",
        "/etc/systemd/system": f"{tmp_path}/units",
    }.items():
        assert old in commands
        commands = commands.replace(old, new)
    stand_ins = f"""
        useradd() {{ :; }}; systemctl() {{ :; }}; sudo() {{ :; }}
        git() {{ mkdir "$3" && touch "$3/manage.py" && mkdir "$3/deploy" \\
            && cat < /dev/null > "$3/deploy/x" && mkdir "$3/deploy/systemd" \\
            && for f in {DEPLOY}/systemd/*; do cat "$f" > "$3/deploy/systemd/${{f##*/}}"; done \\
            && chmod +x "$3/deploy/systemd/atp-manage"; }}
        make() {{ mkdir "$2/.venv" && touch "$2/.venv/.runtime"; }}
        set -e; umask 077; mkdir -m 755 {tmp_path}/bin {tmp_path}/units
    """
    subprocess.run(["sh", "-c", textwrap.dedent(stand_ins) + commands], check=True, timeout=60)
    for folder in ("opt", "bin", "units"):
        assert not unreadable(tmp_path / folder)
    assert (tmp_path / "bin" / "atp-manage").stat().st_mode & 0o001
    assert (tmp_path / "etc" / "atp.env").stat().st_mode & 0o004


def healthy(proc: Path, **environment: str) -> tuple[int, str]:
    """Run the image's health check on the processes in a folder."""
    (line,) = re.findall(r'^    CMD \["python", "-I", "(.*)"\]$', DOCKERFILE, re.MULTILINE)
    assert line == "/opt/atp/healthcheck.py"
    done = subprocess.run(
        [sys.executable, "-I", CHECK, proc],
        env={"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1", **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stderr.strip()


def container(folder: Path, pid: int) -> Path:
    """A folder like `/proc` in a container where docker's own process comes first."""
    proc = folder / "proc"
    (proc / "1").mkdir(parents=True)
    (proc / "1" / "cmdline").write_bytes(b"/sbin/docker-init\0--\0python\0manage.py\0hub\0")
    (proc / "self").mkdir()
    (proc / "7").symlink_to(f"/proc/{pid}")
    return proc


def test_a_node_is_healthy_while_it_is_ready(tmp_path: Path) -> None:
    hub = start_hub(tmp_path / "data")
    try:
        proc = container(tmp_path, hub.process.pid)
        assert healthy(proc, ATP_PORT=str(hub.port)) == (0, "")
        status, sentence = healthy(proc, ATP_PORT=str(free_port()))
        assert status == 1
        assert "can't be asked" in sentence
    finally:
        hub.stop()


@contextmanager
def stand_in(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the command line of one of the image's, which does nothing."""
    code = "import time; time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", code, "manage.py", *words])
    try:
        yield process
    finally:
        process.kill()
        process.wait(15)


@pytest.mark.parametrize("words", ["worker --name worker-1", "beat", "migrate"])
def test_a_process_without_a_port_is_healthy_while_it_runs(words: str, tmp_path: Path) -> None:
    with stand_in(*words.split()) as process:
        proc = container(tmp_path, process.pid)
        wait_until(lambda: healthy(proc) == (0, ""))
        process.send_signal(signal.SIGSTOP)
        stopped = (1, f"The process of manage.py {words.split()[0]} has stopped.")
        wait_until(lambda: healthy(proc) == stopped)
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: healthy(proc) == (0, ""))
    assert healthy(proc) == (1, "No process of this container runs manage.py.")


@pytest.mark.parametrize(
    ("words", "environment", "asked"),
    [
        ("hub --host 127.0.0.9", {}, "http://127.0.0.9:8000/readyz"),
        ("hub", {"ATP_PORT": "9", "ATP_HOST": EVERYWHERE}, "http://127.0.0.1:9/readyz"),
        ("hub --host 0.0.0.0 --port 9", {"ATP_PORT": "8"}, "http://127.0.0.1:9/readyz"),
        ("hub --host=:: --port=9", {}, "http://[::1]:9/readyz"),
        ("hub --port 9", {"ATP_HOST": "127.0.0.9"}, "http://127.0.0.9:9/readyz"),
    ],
)
def test_a_node_is_asked_where_it_listens(
    words: str, environment: dict[str, str], asked: str, tmp_path: Path
) -> None:
    with stand_in(*words.split()) as process:
        proc = container(tmp_path, process.pid)
        wait_until(lambda: asked in healthy(proc, **environment)[1])
