"""Attestations in the admin."""
