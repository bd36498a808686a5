"""Check an exported trail: `python -m examples.verifier trail.ndjson`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from examples.verifier.trail import Verifier


def main() -> int:
    """Print what does not fit; return 1 if there is such a thing."""
    verifier = Verifier()
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        for line in lines:
            for problem in verifier.read(json.loads(line)):
                print(problem)
    print(", ".join(f"{n} {what}" for what, n in verifier.checked.items()))
    return 1 if verifier.problems else 0


if __name__ == "__main__":
    sys.exit(main())
