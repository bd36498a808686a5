"""Pages that show traffic or entries. The hub enters who opens one, and then shows it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from registry.officers.readings import PageOpened, enter_reading
from registry.trail.kinds import Kind

logger = logging.getLogger(__name__)

PAGE = "p"  # the parameter of a list that names its page: all pages of a list are one reading
RETRY_SECONDS = 5


def entered(
    request: HttpRequest, opened: PageOpened, show: Callable[[], HttpResponse]
) -> HttpResponse:
    """Enter that the user opens this, then show it; answer 503 if it can't be entered.

    Call it when the user's right to see the page is known.
    """
    try:
        enter_reading(request.user, opened)
    except DatabaseError:
        logger.warning("a page is not shown: its reading can't be entered", exc_info=True)
        answer = render(request, "admin/registry/not_entered.html", status=503)
        answer.headers["Retry-After"] = str(RETRY_SECONDS)
        return answer
    return show()


def list_of(kind: Kind, subject: str, request: HttpRequest) -> PageOpened:
    """Return what opens a list: its search and its filters, whichever page of it is shown."""
    asked = {name: request.GET.getlist(name) for name in request.GET if name != PAGE}
    return PageOpened(kind, subject, asked=asked)
