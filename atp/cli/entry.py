"""The entry point of `atp`: it reads the command line and turns errors into one sentence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from atp.cli import enroll, keygen
from atp.errors import ATPError
from atp.version import VERSION

__all__ = ["main"]

EXIT_REFUSED = 1
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the convention of shells
EXIT_WRONG_ARGUMENTS = 2  # argparse's own

_MORE = """\
examples:
  atp enroll --hub https://hub.example.com --agent financial-analyzer-001
  atp keygen keys/new.pem
  atp enroll --help

exit codes: 0 done, 1 refused or failed (a sentence says why), 2 wrong arguments
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help(sys.stderr)
        return EXIT_WRONG_ARGUMENTS
    try:
        options.run(options)
    except ATPError as exc:
        print(f"atp: {exc}", file=sys.stderr)
        return EXIT_REFUSED
    except OSError as exc:
        print(f"atp: {exc.filename or 'file'}: {exc.strerror or exc}", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        print("atp: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atp",
        description="Agent Trust Protocol: keys and enrolment of agents, on the agent's machine.",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"atp {VERSION}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    keygen.add_to(commands)
    enroll.add_to(commands)
    return parser
