"""Stored mail: mailboxes, inbox, fan-out, withheld and held deliveries."""
