"""Run `python -m atp.cli` if the `atp` script is not on the path."""

import sys

from atp.cli.entry import main

sys.exit(main())
