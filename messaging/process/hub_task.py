"""The base of every task: what a worker does where the broker or the database says nothing."""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.worker.request import Request
from django.conf import settings

from registry.storage.patience import waiting_at_most


class ConnectingRequest(Request):
    """A task in the hands of a worker, whose failed acknowledgement ends the connection.

    Celery would write a line and go on. But what is not acknowledged counts as work in hand, and a
    worker takes no other task beyond its prefetch count: it would wait for ever. Where the broker
    gives the task out again, it runs again; every task of the hub may.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        # Celery passes over these errors. Without any, they reach its loop, which connects again.
        super().__init__(*args, **{**options, "connection_errors": ()})


class HubTask(Task):  # type: ignore[type-arg]
    """A task, each of whose statements has an answer within `ATP_ANSWER_SECONDS`, or fails.

    A worker that waited for longer on a connection that is there and dead would judge nothing.
    """

    abstract = True
    Request = f"{__name__}:{ConnectingRequest.__name__}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task."""
        with waiting_at_most(settings.ATP_ANSWER_SECONDS):
            return super().__call__(*args, **kwargs)
