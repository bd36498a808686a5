"""Describe an exception in one line: enough to find its cause, without secrets."""

from __future__ import annotations

import re
import traceback
from pathlib import PurePath
from urllib.parse import urlsplit

from django.conf import settings

from atp.wire.canonical import b64url
from messaging.periodic.models import ERROR_MAX_CHARS

MESSAGE_MAX_CHARS = 250

_URL_PASSWORD = re.compile(r"(?<=://)[^\s/@]+@")
_NAMED_SECRET = re.compile(r"(?i)\b(password|passwd|secret|token|key)(\s*[=:]\s*)\S+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def in_words(problem: BaseException) -> str:
    """Return class, first line and source line of an exception, at most `ERROR_MAX_CHARS`."""
    words, line = _with_kind(problem), _source_line(problem)
    return f"{words} ({line})"[:ERROR_MAX_CHARS] if line else words[:ERROR_MAX_CHARS]


def first_line(problem: BaseException) -> str:
    """Return the first line of an exception's message, or its class if there is no message.

    Further lines are left out: database drivers quote the rows there. If the first line only
    announces a list, such as that of the addresses that were tried, the list is kept.
    """
    lines = str(problem).strip().splitlines()
    if not lines:
        return type(problem).__name__
    kept = " ".join(map(str.strip, lines)) if lines[0].endswith(":") else lines[0]
    return _without_secrets(kept)[:MESSAGE_MAX_CHARS]


def _with_kind(problem: BaseException) -> str:
    kind, message = type(problem).__name__, first_line(problem)
    return kind if message == kind else f"{kind}: {message}"


def _without_secrets(text: str) -> str:
    text = _CONTROL.sub(" ", text)
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _NAMED_SECRET.sub(r"\1\2***", _URL_PASSWORD.sub("***@", text))


def _secrets() -> list[str]:
    """Return the secrets in the settings, the longer ones first."""
    given = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    given.append(b64url(settings.ATP_KEY_ENCRYPTION_KEY))
    given += [str(database.get("PASSWORD") or "") for database in settings.DATABASES.values()]
    hosts = settings.CHANNEL_LAYERS["default"]["CONFIG"].get("hosts", [])
    urls = [settings.CELERY_BROKER_URL, *(host["address"] for host in hosts)]
    given += [urlsplit(url).password or "" for url in urls]
    return sorted({text for text in given if text}, key=len, reverse=True)


def _source_line(problem: BaseException) -> str:
    """Return the innermost line of the project's own code, as `package/module.py:12`, or ""."""
    for frame in reversed(traceback.extract_tb(problem.__traceback__)):
        path = PurePath(frame.filename)
        if path.is_relative_to(settings.BASE_DIR) and "site-packages" not in path.parts:
            return f"{path.relative_to(settings.BASE_DIR)}:{frame.lineno}"
    return ""
