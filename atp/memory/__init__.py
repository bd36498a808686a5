"""Agents within one process: the in-memory transport, its hub, and the keys of demo mode."""
