"""Which requests have an answer that was accepted."""

from __future__ import annotations

from collections.abc import Collection

from django.db.models import OuterRef, Subquery

from messaging.models import Envelope
from registry.storage.compiled import Compiled

# A message that answers nothing has "" here. The index leaves it out, so the query does, too.
_ANSWERS = Envelope.objects.filter(
    status=Envelope.Status.ACCEPTED, answers=OuterRef("digest")
).exclude(answers="")
_ANSWERED = Compiled(
    lambda digests: (
        Envelope.objects.filter(digest__any_of=digests)
        .order_by()
        # By itself for each: with EXISTS, the database would rather read all answers there are.
        .annotate(answer=Subquery(_ANSWERS.values("id")[:1]))
        .values_list("digest", "answer")
    )
)


def answered_among(digests: Collection[str]) -> set[str]:
    """Return those of these digests whose requests were answered."""
    return {digest for digest, answer in _ANSWERED.rows(digests) if answer is not None}
