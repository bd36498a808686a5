"""`make bench`: prints a table and writes `var/bench.jsonl` for programs.

ONLY=hub.oneway,hub.request measures the figures whose names begin with these words. ALL=1 measures
also those that take many minutes. ONLY=help lists the figures. PROFILE=production makes a database
for the run, on the PostgreSQL of ATP_BENCH_DATABASE_URL, and starts a Redis. CPU times
(*.cpu.node, ...) are the sum of all processes of a kind, for a thousand envelopes or logins.
cpu.load is the load generator; cpu.hub does not include it.
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks import hub, sdk
from benchmarks.fleet import PROFILES, engine_versions
from benchmarks.report import Figure, append_jsonl, conditions, print_table, warn_if_busy
from benchmarks.run import Run
from benchmarks.yardsticks import Yardsticks, measure_yardsticks

SDK = ("sdk.sign", "sdk.parse", "sdk.verify")


def main() -> None:
    """Run the benchmarks that the environment variables select."""
    argparse.ArgumentParser(
        prog="make bench",
        usage="make bench [ONLY=figure,...] [ALL=1] [PROFILE=embedded|production]",
        description=__doc__,
        epilog=_listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    only = tuple(filter(None, os.environ.get("ONLY", "").replace(" ", "").split(",")))
    profile = os.environ.get("PROFILE") or "embedded"
    if only == ("help",):
        print(_listing())
        return
    if profile not in PROFILES:
        sys.exit(f"PROFILE must be {' or '.join(PROFILES)}, not {profile!r}.")
    benches = [b for b in hub.BENCHES if b.wanted(only, everything=bool(os.environ.get("ALL")))]
    of_sdk = [name for name in SDK if not only or name.startswith(only)]
    if not benches and not of_sdk:
        sys.exit(f"There is no figure {','.join(only)!r}; `make bench ONLY=help` lists them all.")
    moment = conditions(engine_versions(profile))
    print(moment, flush=True)
    warn_if_busy()
    run = Run(profile, measure_yardsticks())
    figures = [f for f in sdk.figures(run) if f.bench in of_sdk] if of_sdk else []
    figures += [f for f in hub.figures(benches, run) if not only or f.bench.startswith(only)]
    figures = [*_of_yardsticks(profile, run.yardsticks), *figures]
    print_table(figures)
    append_jsonl(figures, moment)


def _of_yardsticks(profile: str, measured: Yardsticks) -> list[Figure]:
    return [
        Figure("ed25519.verify", profile, measured.ed25519, "signatures/s"),
        Figure("ed25519.cpu", profile, measured.ed25519_cpu, "per CPU s"),
        Figure("asgi.echo", profile, measured.echo, "messages/s"),
    ]


def _listing() -> str:
    rows = [("sdk", "sign, parse and verify an envelope of 800 bytes, on one core", True)]
    rows += [(b.name, b.says, b.by_default) for b in hub.BENCHES]
    return "\n".join(
        f"  {name:<35}{says}{'' if always else ' (with ONLY= or ALL=1)'}"
        for name, says, always in rows
    )


if __name__ == "__main__":
    main()
