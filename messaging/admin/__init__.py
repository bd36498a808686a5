"""Every admin page of messaging, for Django."""

from messaging.admin import dead_letters, health, messages, tasks

__all__ = ["dead_letters", "health", "messages", "tasks"]
