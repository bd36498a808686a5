"""Decisions about many rows: each row in a transaction of its own, with progress and refusals."""
