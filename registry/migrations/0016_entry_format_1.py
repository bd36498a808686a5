"""Entries of format 1. A trail of the format before it is exported, and a new log begins.

The leaves of the old format can't be turned into leaves of the new one: their hashes are their
point. So the old trail goes, as NDJSON, into a file of the data folder, and the new log's first
entry names its digest and size.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from datetime import UTC
from hashlib import sha256
from typing import Any

import django.db.models.deletion
import orjson
from django.conf import settings
from django.db import migrations, models

import registry.trail.fields
from atp.wire.canonical import b64url

CHUNK = 1_000
MEMBERS = {
    "index": "index", "hub": "hub", "kind": "kind", "actor": "actor", "subject": "subject",
    "sender": "sender", "recipient": "recipient", "message_id": "messageId",
    "request_id": "requestId", "sensitivity": "sensitivity", "verdict": "verdict",
    "policy": "policy", "rule": "rule", "issuer": "issuer", "score": "score",
}  # fmt: skip


def export(apps: Any, schema_editor: Any) -> None:
    """Write the old trail to a file, if there is one, and make the row of the new log."""
    if not apps.get_model("registry", "Entry").objects.exists():
        return
    path = settings.ATP_DATA_DIR / f"trail-format-0-{secrets.token_hex(4)}.ndjson"
    hashed, size, count = sha256(), 0, 0
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for line in _lines(apps):
            file.write(line)
            hashed.update(line)
            size, count = size + len(line), count + 1
        file.flush()
        os.fsync(file.fileno())
    apps.get_model("registry", "Log").objects.create(
        origin=f"log_{secrets.token_hex(8)}",
        first_position=0,
        previous={
            "file": path.name,
            "digest": b64url(hashed.digest()),
            "entries": count,
            "bytes": size,
        },
    )


def _lines(apps: Any) -> Iterator[bytes]:
    rows = apps.get_model("registry", "Entry").objects.select_related("body").order_by("index")
    for row in rows.iterator(chunk_size=CHUNK):
        body = getattr(row, "body", None)
        shown = {member: getattr(row, name) for name, member in MEMBERS.items()}
        shown["time"] = row.time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        shown["leaf"] = bytes(row.leaf).decode("utf-8")
        shown["leafHash"] = b64url(bytes(row.leaf_hash))
        shown["body"] = None if body is None else orjson.Fragment(bytes(body.content))
        yield orjson.dumps(shown, option=orjson.OPT_APPEND_NEWLINE)


def _text(length: int) -> Any:
    return models.CharField(blank=True, max_length=length)


class Migration(migrations.Migration):
    # The second one reads the trail that is exported here.
    dependencies = [
        ("registry", "0015_decisions_about_many"),
        ("messaging", "0011_dead_letters"),
    ]

    operations = [
        migrations.AddField(
            "hub", "blinding_sealed", models.BinaryField(editable=False, null=True)
        ),
        migrations.CreateModel(
            "Log",
            [
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("origin", models.CharField(editable=False, max_length=40, unique=True)),
                ("first_position", models.BigIntegerField(editable=False, unique=True)),
                ("started_at", models.DateTimeField(auto_now_add=True)),
                ("previous", models.JSONField(editable=False, null=True)),
            ],
        ),
        migrations.RunPython(export, migrations.RunPython.noop),
        migrations.DeleteModel("EntryBody"),
        migrations.DeleteModel("Entry"),
        migrations.CreateModel(
            "Entry",
            [
                ("position", models.BigIntegerField(primary_key=True, serialize=False)),
                ("time", models.DateTimeField()),
                ("hub", models.CharField(max_length=64)),
                ("kind", models.CharField(max_length=40)),
                ("actor", _text(140)),
                ("subject", _text(200)),
                ("sender", _text(128)),
                ("recipient", _text(128)),
                ("message_id", _text(36)),
                ("session", _text(64)),
                ("sensitivity", _text(12)),
                ("verdict", _text(12)),
                ("policy", _text(120)),
                ("rule", _text(160)),
                ("issuer", _text(120)),
                ("attestation", _text(64)),
                ("trace", _text(32)),
                ("sender_organisation", _text(24)),
                ("recipient_organisation", _text(24)),
                ("request_id", _text(22)),
                ("on_behalf_of", _text(22)),
                ("cause", models.BigIntegerField(blank=True, null=True)),
                ("score", models.PositiveSmallIntegerField(blank=True, null=True)),
                ("organisations", registry.trail.fields.WordsField(blank=True)),
                ("leaf", models.BinaryField()),
                ("leaf_hash", models.BinaryField()),
            ],
            options={
                "verbose_name_plural": "entries",
                "ordering": ["position"],
                "permissions": [
                    ("view_officer_names", "Can see the names of people beside their pseudonyms")
                ],
                "indexes": [
                    models.Index(fields=["time", "position"], name="entry_time"),
                    models.Index(fields=["kind", "position"], name="entry_kind"),
                    models.Index(fields=["sender", "position"], name="entry_sender"),
                    models.Index(fields=["recipient", "position"], name="entry_recipient"),
                    models.Index(fields=["message_id"], name="entry_message"),
                    models.Index(fields=["request_id"], name="entry_request"),
                    models.Index(fields=["actor", "position"], name="entry_actor"),
                    models.Index(fields=["subject", "position"], name="entry_subject"),
                ],
            },
        ),
        migrations.CreateModel(
            "EntryBody",
            [
                (
                    "entry",
                    models.OneToOneField(
                        db_column="position",
                        db_constraint=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="body",
                        serialize=False,
                        to="registry.entry",
                    ),
                ),
                ("digests", models.BinaryField()),
                ("shared", models.BinaryField(null=True)),
                ("sender", models.BinaryField(null=True)),
                ("recipient", models.BinaryField(null=True)),
                ("personal", models.BinaryField(null=True)),
                ("reason", models.CharField(db_default="", max_length=400, null=True)),
            ],
            options={"verbose_name_plural": "entry bodies"},
        ),
    ]
