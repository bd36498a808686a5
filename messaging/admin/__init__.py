"""Every admin page of messaging, for Django."""

from messaging.admin import health, messages, tasks

__all__ = ["health", "messages", "tasks"]
