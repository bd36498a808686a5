"""Bulk inserts, compiled queries, shared round trips, and threads for database work."""
