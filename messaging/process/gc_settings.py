"""Settings of the garbage collector, which stops the whole process while it looks for cycles.

A full collection of a started hub takes a tenth of a second. By default CPython makes one for
every few hundred new sockets. Two facts make most of this work useless. Objects loaded at the start
stay until the end, so they are frozen: the collector skips them. Messages and sockets are freed by
their reference counts, because messaging/wire/sockets.py breaks their cycles. So full collections
can be rare.
"""

from __future__ import annotations

import gc

YOUNG, MIDDLE, OLD = 700, 10, 100  # the defaults of CPython, except OLD: its default is 10


def settle() -> None:
    """Freeze the loaded objects and set the thresholds. Call it once, before work begins."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
