"""The rows of messaging: nodes, sessions, batches, envelopes, deliveries, mailboxes, counters."""

from __future__ import annotations

from django.db import models

from atp.wire import words
from messaging.health.models import Process as Process
from messaging.periodic.models import BackgroundTask as BackgroundTask
from messaging.periodic.models import TaskRun as TaskRun
from registry.models import Agent


class Node(models.Model):
    """A serving process of the hub. Its sessions live only while its lease does."""

    id = models.UUIDField("boot id", primary_key=True)
    name = models.CharField(max_length=120)
    channel = models.CharField(max_length=100, help_text="Its channel in the channel layer.")
    started_at = models.DateTimeField()
    lease_until = models.DateTimeField(help_text="By the database's clock.")
    stopped_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-started_at"]

    def __str__(self) -> str:
        return f"{self.name} ({str(self.id)[:8]})"


class Session(models.Model):
    """One authenticated connection of an agent. Rows stay after the end, for officers."""

    id = models.UUIDField(primary_key=True)
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="sessions")
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="sessions")
    kid = models.CharField("key", max_length=64)
    remote_address = models.CharField(max_length=64, blank=True)
    client = models.CharField(
        max_length=120, blank=True, help_text="The name that the client gave itself."
    )
    send_only = models.BooleanField(
        default=False,
        db_default=False,
        help_text="It sends and hears answers; another session takes the agent's mail.",
    )
    taker = models.CharField(
        max_length=36,
        default="",
        db_default="",
        help_text="The first of the sessions that its process has resumed in turn; it may be this.",
    )
    opened_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True)
    close_code = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ["-opened_at"]
        indexes = [
            models.Index(fields=["agent", "-opened_at"], name="session_of_agent"),
            models.Index(
                fields=["node"], name="session_live", condition=models.Q(closed_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.agent_id} {str(self.id)[:8]}"


class Presence(models.Model):
    """The session that takes an agent's mail, and its node. An ack of another session is fenced.

    A login replaces the session in one statement. So comparing session ids is enough to fence.
    Envelopes are also taken from the agent's live sessions that only send (`SendOnlySession`).
    """

    agent = models.OneToOneField(Agent, primary_key=True, on_delete=models.PROTECT)
    session_id = models.UUIDField()
    taker = models.CharField(
        max_length=36,
        default="",
        db_default="",
        help_text="The first of the sessions that one process of the agent has resumed in turn.",
    )
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="presences")
    takeovers = models.PositiveIntegerField(
        default=0, help_text="Sessions replaced while their sockets were open; five raise an alarm."
    )

    class Meta:
        verbose_name_plural = "presences"

    def __str__(self) -> str:
        return f"{self.agent_id} on {self.node_id}"


class Absence(models.Model):
    """An agent whose session ended abnormally, and whose process may come back until `until`.

    Until then, what the session took counts as taken, and the handlers that had begun are not
    charged (docs/protocol.md#acks). The row ends when the process is back, when another session
    takes the agent's mail, or with a sweep after `until`.
    """

    agent = models.OneToOneField(Agent, primary_key=True, on_delete=models.PROTECT)
    session_id = models.UUIDField()
    taker = models.CharField(max_length=36, help_text="That of the session's presence.")
    until = models.DateTimeField(help_text="By the database's clock.")
    begun = models.JSONField(
        default=list, help_text="Streams and places whose handlers ran when the socket broke."
    )

    class Meta:
        indexes = [models.Index(fields=["until"], name="absence_until")]

    def __str__(self) -> str:
        return f"{self.agent_id} until {self.until}"


class SendOnlySession(models.Model):
    """A live session that only sends, and its node; its agent can have several.

    Its row ends with it. As with a `Presence`, a batch of a session without a row is fenced.
    """

    id = models.UUIDField("session", primary_key=True)
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="send_only_sessions")
    taker = models.CharField(
        max_length=36, default="", db_default="", help_text="That of the session."
    )
    node = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="send_only_sessions")

    def __str__(self) -> str:
        return f"{self.agent_id} {str(self.id)[:8]}"


class Batch(models.Model):
    """A judged batch. If a node sends it again, the hub sends its receipts again."""

    id = models.CharField(max_length=36, primary_key=True)
    unstored = models.JSONField(
        default=list, help_text="Receipts of the envelopes that left no row: invalid, throttled."
    )
    judged_at = models.DateTimeField()

    class Meta:
        verbose_name_plural = "batches"
        indexes = [models.Index(fields=["judged_at"], name="batch_judged")]

    def __str__(self) -> str:
        return str(self.id)


class Envelope(models.Model):
    """A judged envelope, as the canonical bytes that its sender signed."""

    class Status(models.TextChoices):
        """The verdicts that are stored."""

        ACCEPTED = "accepted", "accepted"
        DENIED = "denied", "denied"

    sender = models.ForeignKey(
        Agent,
        on_delete=models.PROTECT,
        related_name="sent_envelopes",
        db_constraint=False,
        db_index=False,  # other indexes begin with it
    )
    message_id = models.CharField(max_length=36)
    digest = models.CharField(max_length=43)
    kid = models.CharField("key", max_length=64)
    message_type = models.CharField(max_length=16)
    target = models.CharField(max_length=128)
    request_id = models.CharField(max_length=128, blank=True)
    answers = models.CharField(
        max_length=43, blank=True, help_text="Digest of the request that a response answers."
    )
    sensitivity = models.CharField(max_length=12)
    requires_trust = models.CharField(max_length=12, blank=True)
    status = models.CharField(max_length=12, choices=Status.choices)
    code = models.CharField(max_length=40, blank=True)
    detail = models.CharField(max_length=300, blank=True)
    score = models.PositiveSmallIntegerField()
    level = models.CharField(max_length=12, blank=True)
    chain_lowest_level = models.CharField(max_length=12, blank=True)
    chain_lowest_score = models.PositiveSmallIntegerField(default=0)
    chain_depth = models.PositiveSmallIntegerField(
        default=1, help_text="How many envelopes led to this one, itself included."
    )
    chain_sensitivity = models.CharField(
        max_length=12,
        blank=True,
        default="",
        db_default="",
        help_text="The highest in the chain, itself included; empty where it is `sensitivity`.",
    )
    recipients = models.PositiveIntegerField(default=0)
    judged_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    batch_id = models.CharField(max_length=36)
    fan_out = models.JSONField(
        null=True, blank=True, help_text="Recipients of a broadcast not yet given a delivery."
    )
    notify = models.BooleanField(default=False)
    sent_by = models.CharField(
        max_length=36,
        blank=True,
        default="",
        db_default="",
        help_text="The taker of the session that sent it, where it is told more than a receipt.",
    )
    size = models.PositiveIntegerField(help_text="Bytes of the canonical form.")
    content = models.BinaryField()  # empty if it was denied and large

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint("message_id", "sender", name="envelope_of_sender"),
            # Two nodes may have two answers judged at once: then the second is judged again.
            models.UniqueConstraint(
                fields=["answers"],
                name="one_answer",
                condition=models.Q(status="accepted") & ~models.Q(answers=""),
            ),
        ]
        indexes = [
            models.Index(fields=["sender", "status", "judged_at"], name="envelope_rate"),
            models.Index(fields=["target", "id"], name="envelope_target"),
            models.Index(fields=["digest"], name="envelope_digest"),
            models.Index(
                fields=["id"], name="envelope_fan_out", condition=models.Q(fan_out__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.sender_id} to {self.target}: {self.message_id}"


class Delivery(models.Model):
    """One envelope at one sequence number of a recipient's stream.

    `seq` has no gaps. Acknowledgements are stored in the mailbox. The row exists from the moment at
    which the envelope has its sequence number; `state` is the state of the delivery since then.
    """

    class State(models.TextChoices):
        """The states of a delivery. An acknowledged one stays `WAITING`.

        At the place of a `NOTICE` there is no envelope to deliver: the recipient of the row is the
        sender of the envelope, and is told what became of it.
        """

        WAITING = "waiting", "waiting or acknowledged"
        REFUSED = "refused", "refused by the recipient"
        REDELIVERED = "redelivered", "refused by the recipient, then redelivered"
        WITHHELD = "withheld", "withheld: never delivered at this sequence number"
        HELD = "held", "held: its sender is suspended"
        EXPIRED = "expired", "expired before it was delivered"
        NOTICE = "notice", "a notice to the sender of the envelope"

    envelope = models.ForeignKey(
        Envelope, on_delete=models.PROTECT, related_name="deliveries", db_constraint=False
    )
    recipient = models.ForeignKey(
        Agent,
        on_delete=models.PROTECT,
        related_name="deliveries",
        db_constraint=False,
        db_index=False,  # other indexes begin with it
    )
    stream = models.CharField(max_length=8)
    seq = models.BigIntegerField()
    sender = models.CharField(max_length=128)
    expires_at = models.DateTimeField()
    state = models.CharField(max_length=12, choices=State.choices, default=State.WAITING)
    code = models.CharField(max_length=40, blank=True)
    failures = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How many of its handlers began and failed."
    )
    redelivered = models.BooleanField(
        default=False, db_default=False, help_text="Whether it delivers a dead letter again."
    )
    refused_at = models.DateTimeField(
        null=True, blank=True, help_text="When it became a dead letter; empty if it is none."
    )
    notice = models.CharField(
        max_length=12, blank=True, default="", db_default="", help_text="What a notice tells."
    )
    asked_by = models.CharField(
        max_length=36,
        blank=True,
        default="",
        db_default="",
        help_text="In the stream answers: the taker of the session that it is for.",
    )
    notice_due = models.BooleanField(
        default=False, db_default=False, help_text="Whether its sender is still to be told."
    )

    class Meta:
        verbose_name_plural = "deliveries"
        ordering = ["recipient", "stream", "seq"]
        constraints = [
            models.UniqueConstraint("recipient", "stream", "seq", name="delivery_place"),
        ]
        indexes = [
            # Keeps reads fast when an absent agent has very many deliveries that ended.
            models.Index(
                fields=["recipient", "stream", "seq"],
                name="delivery_waiting",
                condition=models.Q(state="waiting"),
            ),
            models.Index(fields=["sender"], name="delivery_held", condition=models.Q(state="held")),
            # The conditions of these have no constant, which a query would pass as a parameter
            # (docs/design/decisions/0002-no-prepared-statement-with-a-partial-index.md).
            models.Index(
                fields=["refused_at"],
                name="delivery_dead_letter",
                condition=models.Q(refused_at__isnull=False),
            ),
            models.Index(
                fields=["id"], name="delivery_notice_due", condition=models.Q(notice_due=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.recipient_id} {self.stream} {self.seq}"


class DeadLetter(Delivery):
    """A delivery that its recipient has refused for good, as officers see it.

    Officers can redeliver it once. The new delivery can become a dead letter too.
    """

    class Meta:
        proxy = True
        default_permissions = ("change", "view")
        verbose_name = "dead letter"
        ordering = ["-refused_at"]

    def __str__(self) -> str:
        return f"{self.envelope.message_id} to {self.recipient_id}"


class Mailbox(models.Model):
    """The counters of a recipient's stream, and what the recipient has taken and done.

    Done is what the recipient has handled; taken is what it has in memory. `acked_seq` is the
    contiguous mark: everything up to it is done. `taken_seq` counts while the agent's current
    session is one of `taken_by` (`taken_for`), or such a one may come back (`Absence`). So what was
    taken falls back to what is done in the very transaction that ends the session or gives the
    agent another one (docs/protocol.md#acks).
    """

    class Stream(models.TextChoices):
        """The two streams of an agent (docs/protocol.md#frames)."""

        MAIL = words.MAIL, words.MAIL
        ANSWERS = words.ANSWERS, words.ANSWERS

    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="mailboxes")
    stream = models.CharField(max_length=8, choices=Stream.choices)
    last_seq = models.BigIntegerField(default=0)
    acked_seq = models.BigIntegerField(default=0)
    done_ahead = models.JSONField(
        null=True, blank=True, help_text="Ranges beyond the acked seq that are done."
    )
    done_ahead_count = models.BigIntegerField(
        default=0, db_default=0, help_text="How many sequence numbers those ranges have."
    )
    taken_seq = models.BigIntegerField(
        default=0, db_default=0, help_text="The seq up to which a session took the deliveries."
    )
    taken_by = models.CharField(
        max_length=36, default="", db_default="", help_text="That session: a presence's taker."
    )
    credited_seq = models.BigIntegerField(
        default=0, help_text="The seq up to which acks are counted in the senders' scores."
    )
    swept_seq = models.BigIntegerField(
        default=0,
        db_default=0,
        help_text="The seq up to which no delivery waits: each is acknowledged or ended.",
    )
    ended = models.PositiveIntegerField(
        default=0,
        db_default=0,
        help_text="Deliveries beyond the swept seq that did not wait at the last sweep.",
    )
    next_expiry = models.DateTimeField(
        null=True, blank=True, help_text="No waiting delivery expires before this time."
    )

    class Meta:
        verbose_name_plural = "mailboxes"
        constraints = [models.UniqueConstraint("agent", "stream", name="mailbox_of_agent")]

    def __str__(self) -> str:
        return f"{self.agent_id} {self.stream}"

    @property
    def settled_seq(self) -> int:
        """The sequence number up to which no delivery waits."""
        return max(self.acked_seq, self.swept_seq)

    @property
    def waiting(self) -> int:
        """How many deliveries wait: the lower of what the acks say and what the last sweep found.

        Both count some that do not wait: the acks those that ended without one, the sweep those
        that were done or expired since.
        """
        by_acks = self.last_seq - self.acked_seq - self.done_ahead_count
        by_sweep = self.last_seq - self.swept_seq - self.ended
        return max(0, min(by_acks, by_sweep))

    def taken_for(self, taker: str) -> int:
        """Return the `seq` up to which the current session of the agent has taken or done all.

        `taker` is that of the agent's presence while its node is alive, or of its absence; else "".
        """
        return max(self.acked_seq, self.taken_seq if taker and taker == self.taken_by else 0)


class RuleCounter(models.Model):
    """A count of a sender's envelopes that passed a throttling rule in one window of time."""

    rule = models.CharField(max_length=300)
    sender = models.CharField(max_length=128)
    window = models.BigIntegerField(help_text="Start of the window, in epoch seconds.")
    count = models.PositiveIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint("rule", "sender", "window", name="rule_counter")]
        indexes = [models.Index(fields=["window"], name="rule_counter_window")]

    def __str__(self) -> str:
        return f"{self.rule} {self.sender} {self.window}"
