"""`python -m atp.cli`, where the `atp` script is not on the path."""

import sys

from atp.cli.entry import main

sys.exit(main())
