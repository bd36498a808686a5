"""Settings of the garbage collector, which stops the whole process while it looks for cycles.

A look through all of a started hub takes a tenth of a second, and CPython takes one whenever a
few hundred sockets are new. What was loaded at the start stays anyway, and what messages and
sockets leave behind is freed by its reference count (messaging/wire/sockets.py breaks their
cycles), so the collector skips the first and rarely looks at the second.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 700, 10, 100  # CPython's own but for the last, which is 10


def settle() -> None:
    """Freeze what is loaded and set the thresholds; call once, before work begins."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
