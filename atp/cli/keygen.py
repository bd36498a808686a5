"""The command `atp keygen`: it makes a key pair in a file that only its owner may read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from atp.cli.key_files import write_key
from atp.trust.fingerprint import fingerprint
from atp.trust.keys import ALGORITHMS, PrivateKey

__all__ = ["add_to", "run"]


def add_to(commands: Any) -> None:
    """Add the command `keygen` to the parser."""
    parser = commands.add_parser(
        "keygen",
        help="make a key pair",
        description="Make a key pair and print its fingerprint. The private key stays in the file.",
    )
    parser.add_argument("out", type=Path, help="the file to write (PEM, PKCS #8, mode 0600)")
    parser.add_argument(
        "--alg", choices=sorted(ALGORITHMS), default="EdDSA", help="default: %(default)s"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Make and write the key; raises `KeyInUse` if the file exists."""
    key = PrivateKey.generate(options.alg)
    write_key(options.out, key)
    print(f"key          {options.out}")
    print(f"algorithm    {key.alg}")
    print(f"fingerprint  {fingerprint(key.kid)}")
