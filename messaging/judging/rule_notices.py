"""Apply the `log` and `notify` rules that matched the envelopes of a batch.

This happens after the commit, because these rules decide nothing and the entry already names them.
A failure raises an alarm and denies no envelope (docs/design/trust.md#deciding).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from atp.judging.judgement import Verdict
from atp.trust.envelope import Envelope
from registry.policies.notices import Matched, record_notices

logger = logging.getLogger(__name__)

TOLD = frozenset({"log", "notify"})


def tell(judged: Iterable[tuple[Envelope, Verdict]], now: float) -> None:
    """Write the log's lines and the officers' notifications of a batch that was stored."""
    notices = []
    for action, match in _told(judged):
        if action == "log":
            logger.info(
                "rule '%s' of policy '%s' logs message %s from %s to %s",
                *(match.rule, match.policy, match.message_id, match.sender, match.recipient),
            )
        else:
            notices.append(match)
    try:
        record_notices(notices, datetime.fromtimestamp(now, UTC))
    except Exception:  # whatever the database says: the batch is stored, its receipts must go out
        logger.critical("%d notifications of policies were lost", len(notices), exc_info=True)


def _told(judged: Iterable[tuple[Envelope, Verdict]]) -> Iterator[tuple[str, Matched]]:
    for envelope, verdict in judged:
        for rule in verdict.matched:
            if rule.action in TOLD:
                yield (
                    rule.action,
                    Matched(
                        rule.policy,
                        rule.rule,
                        envelope.sender,
                        envelope.target,
                        envelope.message_id,
                    ),
                )
