"""The command `atp`: make a key, enrol an agent at a hub."""

from atp.cli.entry import main

__all__ = ["main"]
