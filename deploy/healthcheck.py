"""The health check of the image: 0 where the process of this container works, 1 with a sentence.

A node is asked whether it is ready, at the address and port that it was started with. Of a worker
or beat this sees that its process runs and was not stopped; whether it does its work is told by
`GET /api/v1/health` of a node. Any other command of `manage.py` is healthy while it runs.

Without Django, because it runs every ten seconds. Its argument is the folder `/proc` of a test.
"""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

ANSWER_SECONDS = 4.0
STOPPED = "TtZX"  # states of a process (proc_pid_stat(5)): stopped, traced, a zombie, dead
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # this side of a listening address


def main(proc: Path, environment: Mapping[str, str]) -> str:
    """Return what is wrong, or an empty text."""
    found = find_command(proc)
    if found is None:
        return "No process of this container runs manage.py."
    folder, words = found
    state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
    if state in STOPPED:
        return f"The process of manage.py {words[0]} has stopped."
    return ask_node(words, environment) if words[0] == "hub" else ""


def find_command(proc: Path) -> tuple[Path, Sequence[str]] | None:
    """Return the folder of the oldest process of manage.py, and its words after that."""
    folders = [each for each in proc.iterdir() if each.name.isdecimal()]
    for folder in sorted(folders, key=lambda each: int(each.name)):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:  # it has ended, or is another user's
            continue
        if "manage.py" in words and is_python(words[0]):  # not docker's own first process
            return folder, words[words.index("manage.py") + 1 :] or ["hub"]
    return None


def is_python(program: str) -> bool:
    """Whether this is an interpreter of Python."""
    return Path(program).name.startswith("python")


def ask_node(words: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return why the node is not ready, or an empty text."""
    host = option(words, "--host") or environment.get("ATP_HOST") or "127.0.0.1"
    port = option(words, "--port") or environment.get("ATP_PORT") or "8000"
    host = EVERYWHERE.get(host, host)
    url = f"http://[{host}]:{port}/readyz" if ":" in host else f"http://{host}:{port}/readyz"
    request = urllib.request.Request(url, headers={"Host": "127.0.0.1"})  # noqa: S310
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(request, timeout=ANSWER_SECONDS).close()
    except OSError as problem:
        return f"{url} can't be asked, or says no: {problem}"
    return ""


def option(words: Sequence[str], name: str) -> str:
    """Return the value of an option, given as `--port 8000` or `--port=8000`."""
    for place, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name:
            return "".join(words[place + 1 : place + 2])
    return ""


if __name__ == "__main__":
    sys.exit(main(Path(*(sys.argv[1:] or ["/proc"])), os.environ) or 0)
